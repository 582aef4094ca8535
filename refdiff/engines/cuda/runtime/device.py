"""What the engine asks of a device: memory, copies, launches, capture. CuPy is one; the tests' emulator is another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from ....errors import DeviceError as DeviceError

__all__ = ["Device", "DeviceError", "DeviceLost", "Graph", "Kernel", "is_lost"]


class DeviceLost(DeviceError):
    """After this (an illegal address, a launch that failed) the device answers nothing more to this process: it must end,
    and what comes next needs a new one."""


def is_lost(error: BaseException | None) -> bool:
    """Whether it, or a cause of it, is DeviceLost."""
    while error is not None and not isinstance(error, DeviceLost):
        error = error.__cause__ or error.__context__
    return error is not None


class Kernel(NamedTuple):
    """source: a file of kernels/; name: the function in it; defines: what the compiler is told, as (name, integer)."""

    source: str
    name: str
    defines: tuple[tuple[str, int], ...] = ()


class Graph(NamedTuple):
    """Launches that were captured: `replay()` queues all of them at once. launches: how many."""

    replay: Callable[[], None]
    launches: int


class Device(Protocol):
    """Pointers are integers. Everything is queued in order; `read` and `synchronise` wait."""

    name: str
    architecture: str  # "sm_90"

    def free_bytes(self) -> int:
        """How much memory could be reserved now."""
        ...

    def reserve(self, nbytes: int) -> int:
        """The address of fresh memory, aligned to 16 bytes at least. DeviceError where there is too little."""
        ...

    def release(self, pointer: int) -> None:
        """Give back what `reserve` gave."""
        ...

    def write(self, pointer: int, array: np.ndarray) -> None:
        """Copy a contiguous array of the host to the device."""
        ...

    def read(self, pointer: int, array: np.ndarray) -> None:
        """Copy from the device into a contiguous array of the host, when all that was queued is done."""
        ...

    def pinned(self, nbytes: int) -> np.ndarray:
        """Memory of the host that `send` and `fetch` copy without waiting.   -> (nbytes,) uint8, with whatever is there."""
        ...

    def send(self, pointer: int, array: np.ndarray) -> None:
        """Queue a copy from the host, of an array in `pinned` memory, which must stay as it is until the copy is done."""
        ...

    def fetch(self, pointer: int, array: np.ndarray) -> Callable[[], None]:
        """Queue a copy to the host, into an array in `pinned` memory.   -> wait(), which returns when that copy, and all
        that was queued before it, is done."""
        ...

    def launch(
        self, kernel: Kernel, grid: tuple[int, ...], block: tuple[int, ...], arguments: Sequence[Any], shared: int = 0
    ) -> None:
        """Queue a kernel. arguments: ctypes values, in the kernel's order; shared: bytes of dynamic shared memory."""
        ...

    def synchronise(self) -> None:
        """Wait until all that was queued is done."""
        ...

    def begin_capture(self) -> None:
        """From here launches are recorded, not run. Memory, copies and waiting are refused."""
        ...

    def end_capture(self) -> Graph:
        """What was recorded."""
        ...
