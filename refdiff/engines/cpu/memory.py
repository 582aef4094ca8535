"""Memory that is used again. Fresh memory costs a page fault every 4 kB, more than the arithmetic done in it.

`empty` gives an array for a result. When the last reference to it (or to a view of it) is gone, its block goes back to
the pool and the next array of that size takes it: a step of training asks the system for nothing that an earlier step
has had. Blocks start on page boundaries. `scratch` gives working space that lasts until the thread's next operation.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import prod
from typing import Any, Protocol

import numpy as np

__all__ = ["Lease", "Pool", "contiguous", "elsewhere", "empty", "pages", "pool", "release", "scratch", "trim_heap"]

_SMALL = 1 << 15  # bytes; below, the system's own allocator is as good
_HUGE = 1 << 21  # bytes of a huge page
_SPARE = 64 << 20  # bytes that may always lie free
_MOST = 4096  # shapes of working space that are remembered


class Lease(weakref.ref):
    """Tells who lent an array's memory when the array and all its views are gone. place: where it lies."""

    __slots__ = ("place",)
    place: Any


class Pool:
    """Blocks by size. fresh: how many came from the system so far; bytes: how many bytes the pool holds, used and free."""

    def __init__(self) -> None:
        self.fresh = 0
        self.bytes = 0
        self._free: dict[int, list[mmap.mmap]] = {}
        self._leases: dict[int, Lease] = {}
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
            block = self._more(size)
        # The base of a view is the array that owns memory or lies in something that is no array. So every view of `a`
        # keeps `a` itself alive, and the end of `a` is the end of all use.
        a = kind(shape, np.float32, block)
        lease = Lease(a, self._give_back)
        lease.place = block
        self._leases[id(lease)] = lease
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

    def _give_back(self, lease: Lease) -> None:
        del self._leases[id(lease)]
        self._free.setdefault(len(lease.place), []).append(lease.place)

    def _more(self, size: int) -> mmap.mmap:
        """A new block. When the pool holds half as much again as was ever used at once, other shapes than before are at
        work: let go of what lies free."""
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


class Source(Protocol):
    """Where results come from."""

    def empty(self, shape: tuple[int, ...], kind: type[np.ndarray] = np.ndarray) -> np.ndarray: ...


class _Own(threading.local):
    """What a thread uses: where results come from, as arrays of which kind; working space by name, the arrays of it that
    were asked for, and how many bytes a name takes at least."""

    def __init__(self) -> None:
        self.source: Source = pool
        self.kind: type[np.ndarray] = np.ndarray
        self.buffers: dict[str, Any] = {}
        self.arrays: dict[tuple[Any, ...], np.ndarray] = {}
        self.least: dict[str, int] = {}


_own = _Own()


@contextmanager
def elsewhere(source: Source, kind: type[np.ndarray], least: dict[str, int]) -> Iterator[None]:
    """Inside, on this thread: results and working space are arrays of this kind, the working space fresh.

    least: bytes of working space, by name, that are taken at once; afterwards also what was taken.
    """
    before = dict(vars(_own))
    vars(_own).update(source=source, kind=kind, buffers={}, arrays={}, least=least)
    try:
        yield
    finally:
        least.update((name, len(buffer)) for name, buffer in _own.buffers.items())
        vars(_own).update(before)


def empty(shape: tuple[int, ...]) -> np.ndarray:
    """An array of float32 with any values, for a result."""
    return _own.source.empty(shape, _own.kind)


def contiguous(x: np.ndarray) -> np.ndarray:
    """x itself when it is contiguous, or else a copy that is."""
    if x.flags.c_contiguous:
        return x
    y = empty(x.shape)
    np.copyto(y, x)
    return y


def release() -> None:
    """What lies free, this thread's working space included, is given back to the system."""
    pool.trim()
    _own.arrays.clear()
    _own.buffers.clear()
    trim_heap()


def trim_heap() -> None:
    """Arrays that are gone are given back to the system; the C library of Linux otherwise keeps those of many sizes."""
    with suppress(AttributeError, OSError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def scratch(name: str, *shape: int) -> np.ndarray:
    """Working space of float32 that belongs to this thread and this name, until either is asked for again."""
    own = _own
    try:
        return own.arrays[name, shape]
    except KeyError:
        size = 4 * prod(shape)
    buffer = own.buffers.get(name)
    if len(own.arrays) > _MOST:
        own.arrays.clear()
    if buffer is None or len(buffer) < size:
        own.arrays.clear()
        buffer = own.buffers[name] = pages(max(_rounded(size), mmap.PAGESIZE, own.least.get(name, 0)))
        pool.fresh += 1
    a = own.arrays[name, shape] = own.kind(shape, np.float32, buffer)
    return a


def _forget() -> None:
    """A child process of fork begins with locks that nobody holds."""
    pool._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
