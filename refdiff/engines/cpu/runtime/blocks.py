"""Memory that is used again. Fresh memory costs a page fault every 4 kB, more than the arithmetic done in it.

When the last reference to an array of a `Pool` (or to a view of it) is gone, its block goes back to the pool and the next
array of that size takes it: a step of training asks the system for nothing that an earlier step has had. Blocks start on
page boundaries. A `Workspace` holds working space by name.
"""

from __future__ import annotations

import ctypes
import mmap
import threading
import weakref
from contextlib import suppress
from math import prod
from typing import Any, Protocol

import numpy as np

from .fork import after_fork

__all__ = ["Allocator", "BlockFinalizer", "Pool", "Workspace", "pages", "pool", "trim_heap"]

_SMALL = 1 << 15  # bytes; below, the system's own allocator is as good
_HUGE = 1 << 21  # bytes of a huge page
_SPARE = 64 << 20  # bytes that may always lie free
MAX_ARRAYS = 4096  # shapes of working space that are remembered


class Allocator(Protocol):
    """Where results come from."""

    def empty(self, shape: tuple[int, ...], kind: type[np.ndarray] = np.ndarray) -> np.ndarray: ...


class BlockFinalizer(weakref.ref):
    """Returns a block to its allocator once no view of its array is alive. block: what the allocator needs to know of it."""

    __slots__ = ("block",)
    block: Any


class Pool:
    """Blocks by size. fresh: how many came from the system so far; bytes: how many bytes the pool holds, used and free."""

    def __init__(self) -> None:
        self.fresh = 0
        self.bytes = 0
        self._free: dict[int, list[mmap.mmap]] = {}
        self._finalizers: dict[int, BlockFinalizer] = {}
        self._most = 0  # bytes used at once, as far as seen when a block was missing
        self._lock = threading.Lock()

    def empty(self, shape: tuple[int, ...], kind: type[np.ndarray] = np.ndarray) -> np.ndarray:
        """An array of float32 with any values."""
        size = 4 * prod(shape)
        if size < _SMALL:
            return kind(shape, np.float32)
        size = _rounded(size)
        try:
            block = self._free[size].pop()
        except (KeyError, IndexError):
            block = self._allocate(size)
        # The base of a view is the array that owns memory or lies in something that is no array. So every view of `a`
        # keeps `a` itself alive, and the end of `a` is the end of all use.
        a = kind(shape, np.float32, block)
        finalizer = BlockFinalizer(a, self._take_back)
        finalizer.block = block
        self._finalizers[id(finalizer)] = finalizer
        return a

    def trim(self) -> None:
        """Give the free blocks back to the system."""
        with self._lock:
            for size, blocks in list(self._free.items()):
                while blocks:
                    try:
                        blocks.pop()
                    except IndexError:
                        break
                    self.bytes -= size

    def unlock(self) -> None:
        """In a child process of fork, where no other thread can be inside."""
        self._lock = threading.Lock()

    def _take_back(self, finalizer: BlockFinalizer) -> None:
        del self._finalizers[id(finalizer)]
        self._free.setdefault(len(finalizer.block), []).append(finalizer.block)

    def _allocate(self, size: int) -> mmap.mmap:
        """A new block. When the pool holds half as much again as was ever used at once, other shapes than before are at
        work: give the free blocks back first."""
        used = self.bytes - sum(n * len(blocks) for n, blocks in list(self._free.items())) + size
        self._most = max(self._most, used)
        if self.bytes + size > 1.5 * self._most + _SPARE:
            self.trim()
            self._most = used
        block = pages(size)
        with self._lock:
            self.fresh += 1
            self.bytes += size
        return block


def pages(size: int) -> mmap.mmap:
    """Memory of this process alone, in huge pages where the system has them: shared memory gets none."""
    if not hasattr(mmap, "MAP_PRIVATE"):
        return mmap.mmap(-1, size)
    block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if size >= _HUGE and hasattr(mmap, "MADV_HUGEPAGE"):
        block.madvise(mmap.MADV_HUGEPAGE)
    return block


def _rounded(size: int) -> int:
    """Up to the next of 16 sizes an octave, so that nearly equal shapes share their blocks; whole pages."""
    step = max(mmap.PAGESIZE, 1 << max(0, size.bit_length() - 5))
    return -(-size // step) * step


pool = Pool()
after_fork(pool.unlock)


class Workspace:
    """Working space by name, one buffer a name, for one thread.

    sizes: bytes that a name takes at least; it is updated with what was taken, so that another workspace made of it takes
    each buffer once.
    """

    def __init__(self, sizes: dict[str, int] | None = None) -> None:
        self.sizes = sizes
        self.arrays: dict[tuple[str, tuple[int, ...]], np.ndarray] = {}
        self._buffers: dict[str, mmap.mmap] = {}

    def take(self, name: str, shape: tuple[int, ...], kind: type[np.ndarray]) -> np.ndarray:
        """An array in the buffer of this name, a larger one where it does not suffice."""
        size, buffer = 4 * prod(shape), self._buffers.get(name)
        if len(self.arrays) > MAX_ARRAYS:
            self.arrays.clear()
        if buffer is None or len(buffer) < size:
            self.arrays.clear()
            least = self.sizes.get(name, 0) if self.sizes is not None else 0
            buffer = self._buffers[name] = pages(max(_rounded(size), mmap.PAGESIZE, least))
            pool.fresh += 1
            if self.sizes is not None:
                self.sizes[name] = len(buffer)
        a = self.arrays[name, shape] = kind(shape, np.float32, buffer)
        return a

    def clear(self) -> None:
        self.arrays.clear()
        self._buffers.clear()


def trim_heap() -> None:
    """Arrays that are gone are given back to the system; the C library of Linux otherwise keeps those of many sizes."""
    with suppress(AttributeError, OSError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
