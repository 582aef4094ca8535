"""Captures a function's NumPy calls and replays them without the Python in between, like a CUDA graph.

A step of training makes some thousands of calls of a few microseconds each, the same ones every time, and finding out which
took Python a fifth of the time. While a function is captured, results and working space are a `TracedArray`. They lie in an
arena, whose places are used again as always; so the calls find their arrays at the same places each time they are made.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np

from .arena import Arena
from .blocks import Workspace
from .capture import Capture
from .context import current, using
from .memory import release
from .profiler import profiled
from .thread_pool import available
from .traced_array import TracedArray

__all__ = ["BUFFER", "Captured"]

BUFFER = 2048  # elements. NumPy repeats a row that is broadcast in a buffer; of this size it stays in the nearest cache
_TIMED = 2  # calls as they are, where that uses several threads


class Captured:
    """f(*arrays) -> an array, which is called again and again: call number `after` with the same shapes is captured, and
    from then on it is replayed. The results are fresh and have the same bits.

    f consists of operations of this engine. Its arguments may change, and what it names with `graph_input`; other arrays
    must not, as long as state() is equal. f itself says where gradients go: a gradient buffer of its caller's context is
    not used in it. A replay runs on one thread. Where operations may use several, some calls are timed first, and f goes
    on being called as it is if that is faster; so it is while another thread is in here.
    """

    def __init__(self, f: Callable[..., np.ndarray], after: int = 2, state: Callable[[], Any] = lambda: None) -> None:
        self.f, self.after, self.state = f, after, state
        self.capture: Capture | None = None
        self._like: Any = None
        self._calls = 0
        self._seconds = math.inf  # of a call as it is
        self._arrays: tuple[np.ndarray, ...] = ()
        self._result = np.empty(0)
        self._sizes: dict[str, int] = {}  # bytes of working space, by name
        self._lock = threading.Lock()

    def __call__(self, *arrays: np.ndarray) -> np.ndarray:
        with using(gradients=None):
            if not self._lock.acquire(blocking=False):
                return self.f(*arrays)
            try:
                return self._call(arrays)
            finally:
                self._lock.release()

    def _call(self, arrays: tuple[np.ndarray, ...]) -> np.ndarray:
        several = available() > 1
        like = self.state(), current().shards, several, *((a.shape, a.dtype) for a in arrays)
        if like != self._like:
            self._like, self._calls, self._seconds = like, 0, math.inf
            self._forget()
        self._calls += 1
        number, start = self._calls - (_TIMED if several else 0), perf_counter()
        if self.capture is not None:
            self._replay(arrays)
            if several and number == self.after + 1 and perf_counter() - start > self._seconds:
                result = self._result.copy()
                self._forget()
                return result
        elif number == self.after:
            self._capture(arrays)
        elif number == self.after - 1:  # how much working space it needs is then known when it is captured
            with using(threads=1, allocator=Arena(), workspace=Workspace(self._sizes)):
                return self.f(*arrays).copy()
        else:
            result = self.f(*arrays)
            self._seconds = min(self._seconds, perf_counter() - start)
            return result
        return self._result.copy()

    def _replay(self, arrays: tuple[np.ndarray, ...]) -> None:
        assert self.capture is not None
        for own, a in zip(self._arrays, arrays, strict=True):
            np.copyto(own, a)
        before = np.setbufsize(BUFFER)
        try:
            if not profiled(self.capture):
                self.capture.run(0, len(self.capture.calls))
        finally:
            np.setbufsize(before)

    def _capture(self, arrays: tuple[np.ndarray, ...]) -> None:
        release()
        capture, self._arrays = Capture(), tuple(a.copy() for a in arrays)
        workspace = Workspace(self._sizes)
        try:
            with using(threads=1, allocator=Arena(), kind=TracedArray, workspace=workspace, capture=capture):
                self._result = capture.place(self.f(*(a.view(TracedArray) for a in self._arrays)))
            self.capture = capture
        finally:
            capture.end()
            if self.capture is None:  # it did not come to its end: once more, the next time
                self._calls -= 1

    def _forget(self) -> None:
        self.capture, self._arrays, self._result = None, (), np.empty(0)
