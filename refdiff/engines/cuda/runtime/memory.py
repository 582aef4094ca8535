"""What a memory of a device promises, and whether there is enough of it. The one that is used is arena.py's."""

from __future__ import annotations

from typing import Protocol

from ....errors import option
from .device import Device, DeviceError

__all__ = ["ALIGNMENT", "Memory", "PerArrayAllocator", "require_memory"]

ALIGNMENT = 256  # bytes: what an address is a multiple of


class Memory(Protocol):
    """Gives addresses on a device, and takes them back."""

    device: Device

    def allocate(self, nbytes: int) -> int:
        """The address of nbytes."""
        ...

    def free(self, pointer: int) -> None:
        """Take back what `allocate` gave."""
        ...


class PerArrayAllocator:
    """Each array is reserved on its own: slow, but a tool that watches memory sees an access past an array's end."""

    def __init__(self, device: Device) -> None:
        self.device = device

    def allocate(self, nbytes: int) -> int:
        return self.device.reserve(nbytes)

    def free(self, pointer: int) -> None:
        self.device.release(pointer)


def require_memory(device: Device, extent: int, what: str, advice: str) -> int:
    """The bytes to reserve at once for an arena of this extent. DeviceError, with the numbers, if fewer are free.

    what: what needs them, with its verb; advice: what else may be done about it.
    """
    need, free = extent + ALIGNMENT, device.free_bytes()
    if need > free:
        raise DeviceError(
            f"not enough memory on {device.name}: {what} {need / 2**30:.2f} GiB, {free / 2**30:.2f} GiB are free; "
            f"{advice}, take {option('dtype', 'bfloat16')} or {option('engine', 'cpu')}"
        )
    return need
