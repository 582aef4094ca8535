"""The emulator as a device of the CUDA engine (see refdiff/engines/cuda/runtime/device.py)."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from refdiff.engines.cuda.runtime.device import DeviceError, Graph, Kernel
from refdiff.engines.cuda.runtime.sources import KERNELS

from .build import library

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
PAGE = mmap.PAGESIZE


def _watch(what: str, address: int, nbytes: int) -> None:
    """Tell AddressSanitizer that nobody may touch these bytes ("poison"), or that all may again ("unpoison")."""
    getattr(_libc, f"__asan_{what}_memory_region")(ctypes.c_void_p(address), ctypes.c_size_t(nbytes))


class Emulator:
    """seed: the order in which blocks and threads run; arrays end at an unmapped page if it is even, begin at one if odd.

    sanitize: a build with AddressSanitizer, which sees more, slowly; True under the runner of sanitized.py, where its
    library is loaded.
    """

    name = "emulator"
    architecture = "emulated"

    def __init__(self, seed: int = 0, sanitize: bool | None = None) -> None:
        self.seed, self.sanitize = (
            seed,
            "REFDIFF_SANITIZE" in os.environ if sanitize is None else sanitize,
        )
        if self.sanitize and not hasattr(_libc, "__asan_init"):
            raise DeviceError("AddressSanitizer must be loaded before Python: run through python -m emulator.sanitized")
        self.launches: list[Kernel] = []  # what ran, for tests
        self._blocks: dict[int, tuple[int, int]] = {}  # pointer -> what was mapped for it
        self._slack: dict[
            int, list[tuple[int, int]]
        ] = {}  # pointer -> (address, bytes) that are mapped and not its own
        self.recording: list[tuple[Any, ...]] | None = None

    def free_bytes(self) -> int:
        return 8 << 30

    def reserve(self, nbytes: int) -> int:
        """Memory full of NaN, with an unmapped page right before and right after."""
        assert self.recording is None, "memory cannot be reserved during a capture"
        pages = -(-max(nbytes, 1) // PAGE) * PAGE
        if pages > self.free_bytes():
            raise DeviceError(f"not enough memory on the emulator: {nbytes} bytes")
        base = _libc.mmap(None, pages + 2 * PAGE, 3, 0x22, -1, 0)
        first, end = base + PAGE, base + PAGE + pages
        _libc.mprotect(base, PAGE, 0)
        _libc.mprotect(end, PAGE, 0)
        if self.sanitize:
            _watch("unpoison", base, pages + 2 * PAGE)  # what was a fibre's stack here may have left marks
        ctypes.memset(first, 0xFF, pages)
        pointer = first + (0 if self.seed % 2 else (pages - nbytes) // 16 * 16)
        self._blocks[pointer] = (base, pages + 2 * PAGE)
        slack = [(first, pointer - first), (pointer + nbytes, end - pointer - nbytes)]
        self._slack[pointer] = [part for part in slack if part[1]]
        if self.sanitize:
            for address, count in self._slack[pointer]:
                _watch("poison", address, count)
        return pointer

    def release(self, pointer: int) -> None:
        base, nbytes = self._blocks.pop(pointer)
        if self.sanitize:
            _watch("unpoison", base, nbytes)
        del self._slack[pointer]
        _libc.munmap(base, nbytes)

    def write(self, pointer: int, array: np.ndarray) -> None:
        assert self.recording is None, "a copy from the host cannot be captured"
        array = np.ascontiguousarray(array)
        ctypes.memmove(pointer, array.ctypes.data, array.nbytes)

    def read(self, pointer: int, array: np.ndarray) -> None:
        assert self.recording is None, "a copy to the host cannot be captured"
        ctypes.memmove(array.ctypes.data, pointer, array.nbytes)

    def pinned(self, nbytes: int) -> np.ndarray:
        return np.full(nbytes, 0xFF, np.uint8)

    def send(self, pointer: int, array: np.ndarray) -> None:
        self.write(pointer, array)

    def fetch(self, pointer: int, array: np.ndarray) -> Callable[[], None]:
        self.read(pointer, array)
        return lambda: None

    def launch(
        self,
        kernel: Kernel,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        arguments: Sequence[Any],
        shared: int = 0,
    ) -> None:
        if self.recording is not None:
            self.recording.append((kernel, grid, block, arguments, shared))
            return
        self.launches.append(kernel)
        found = library(KERNELS / kernel.source, kernel.defines, self.sanitize)
        if kernel.name not in found.names:
            raise DeviceError(f"{kernel.source}: expected a kernel {kernel.name}, has {', '.join(found.names)}")
        self._check_arguments(found, kernel, arguments)
        dims = (ctypes.c_uint * 6)(*(*grid, 1, 1)[:3], *(*block, 1, 1)[:3])
        pointers = (ctypes.c_void_p * len(arguments))(*(ctypes.addressof(a) for a in arguments))
        run = getattr(found, f"run_{kernel.name}")
        bound = getattr(found, f"bound_{kernel.name}")()
        if found.emulator_launch(run, dims, ctypes.c_size_t(shared), pointers, self.seed, bound):
            raise DeviceError(f"{kernel.source}, {kernel.name}: {found.emulator_error().decode()}")
        self._check_slack(kernel)

    def _check_slack(self, kernel: Kernel) -> None:
        """Nothing was written between an array and the unmapped pages."""
        if self.sanitize:
            return  # which has stopped at it already
        for pointer, parts in self._slack.items():
            for address, count in parts:
                if ctypes.string_at(address, count) != b"\xff" * count:
                    where = "before" if address < pointer else "past the end of"
                    ctypes.memset(address, 0xFF, count)
                    raise DeviceError(f"{kernel.source}, {kernel.name}: a write {where} the array at {pointer:#x}")

    def _check_arguments(self, found: Any, kernel: Kernel, arguments: Sequence[Any]) -> None:
        sizes = (ctypes.c_int * 64)()
        count = getattr(found, f"sizes_{kernel.name}")(sizes)
        given = [ctypes.sizeof(a) for a in arguments]
        if given != list(sizes[:count]):
            raise DeviceError(f"{kernel.name}: expected arguments of {list(sizes[:count])} bytes, got {given}")

    def synchronise(self) -> None:
        assert self.recording is None, "a capture cannot wait"

    def begin_capture(self) -> None:
        assert self.recording is None, "captures do not nest"
        self.recording = []

    def end_capture(self) -> Graph:
        assert self.recording is not None
        recorded, self.recording = self.recording, None

        def replay() -> None:
            for kernel, grid, block, arguments, shared in recorded:
                self.launch(kernel, grid, block, arguments, shared)

        return Graph(replay, len(recorded))
