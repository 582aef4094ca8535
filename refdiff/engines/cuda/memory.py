"""Where arrays live: in one arena, in a fixed order, so that every step finds the same addresses; or each on its own."""

from __future__ import annotations

import sys
from bisect import bisect_left, insort
from typing import Protocol

from ...errors import option
from .device import Device, DeviceError

__all__ = ["ALIGNMENT", "Arena", "Memory", "Separate", "enough"]

ALIGNMENT = 256


class Memory(Protocol):
    """Gives and takes back addresses."""

    def allocate(self, nbytes: int) -> int:
        """The address of nbytes."""
        ...

    def free(self, pointer: int) -> None:
        """Take back what `allocate` gave."""
        ...


def enough(device: Device, extent: int, what: str, advice: str) -> int:
    """The bytes to reserve at once for an arena of this extent. DeviceError, with the numbers, if fewer are free."""
    need, free = extent + ALIGNMENT, device.free_bytes()
    if need > free:
        raise DeviceError(
            f"not enough memory on {device.name}: {what} {need / 2**30:.2f} GiB, {free / 2**30:.2f} GiB are free; "
            f"{advice}, take {option('dtype', 'bfloat16')} or {option('engine', 'cpu')}"
        )
    return need


class Separate:
    """Each array is reserved on its own: slow, but a tool that watches memory sees an access past an array's end."""

    def __init__(self, device: Device) -> None:
        self.device = device

    def allocate(self, nbytes: int) -> int:
        return self.device.reserve(nbytes)

    def free(self, pointer: int) -> None:
        self.device.release(pointer)


class Arena:
    """First fit in blocks of memory reserved from the device, given back to it only at the end.

    used, peak: bytes in arrays now and at most; reserved: bytes taken from the device; extent: where the furthest array
    ended, so the size of one block that would do for the same calls.

    The same sequence of calls gives the same addresses, which is what lets a step be captured once and replayed. An array
    that is freed may be given out again at once: all work is queued in one order, so the next use comes after the last.
    """

    def __init__(self, device: Device, block: int = 64 << 20) -> None:
        """block: bytes reserved at a time, at least."""
        self.device, self.block = device, block
        self.used = self.peak = self.reserved = self.extent = 0
        self._closing = False
        self._free: list[tuple[int, int]] = []  # (address, bytes), by address, neighbours merged
        self._sizes: dict[int, int] = {}
        self._bases: dict[int, int] = {}  # first address of a block -> what the device gave

    def allocate(self, nbytes: int) -> int:
        """DeviceError if the device has no more."""
        assert not self._closing, "this arena is closed"
        size = -(-max(nbytes, 1) // ALIGNMENT) * ALIGNMENT
        place = next((i for i, (_, room) in enumerate(self._free) if room >= size), None)
        if place is None:
            self._grow(size)
            return self.allocate(nbytes)
        pointer, room = self._free.pop(place)
        if room > size:
            self._free.insert(place, (pointer + size, room - size))
        self._sizes[pointer] = size
        self.extent = max(self.extent, pointer + size - min(self._bases))
        self.used += size
        self.peak = max(self.peak, self.used)
        return pointer

    def free(self, pointer: int) -> None:
        size = self._sizes.pop(pointer)
        self.used -= size
        place = bisect_left(self._free, (pointer, 0))
        if place < len(self._free) and self._free[place][0] == pointer + size and pointer + size not in self._bases:
            size += self._free.pop(place)[1]
        if place and sum(self._free[place - 1]) == pointer and pointer not in self._bases:
            before, room = self._free.pop(place - 1)
            pointer, size = before, room + size
        insort(self._free, (pointer, size))
        if self._closing:
            self.close()

    def close(self) -> None:
        """Give everything back to the device, as soon as the last array is freed. Nothing more can be allocated."""
        self._closing = True
        if not self._sizes:
            for base in self._bases.values():
                self.device.release(base)
            self._free, self._bases, self.reserved = [], {}, 0

    def __del__(self) -> None:
        """No array is left: each would keep its arena."""
        if not sys.is_finalizing():
            self._sizes = {}
            self.close()

    def _grow(self, size: int) -> None:
        size = max(size, self.block) + ALIGNMENT
        free = self.device.free_bytes()
        if size > free:
            raise DeviceError(
                f"not enough memory on {self.device.name}: {self.reserved >> 20} MiB are in use, {size >> 20} MiB more are "
                f"needed, {free >> 20} MiB are free; lower train.batch or take {option('dtype', 'bfloat16')}"
            )
        base = self.device.reserve(size)
        pointer = -(-base // ALIGNMENT) * ALIGNMENT
        self._bases[pointer] = base
        self.reserved += size
        insort(self._free, (pointer, base + size - pointer))
