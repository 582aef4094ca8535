"""The calls of NumPy that operations make, written down once and made again: what Python does in between is left out.

A step of training makes some thousands of calls of a few microseconds each, the same ones every time, and finding out which
took Python a fifth of the time. While a function is written down, results and working space are arrays of a kind of their
own, `Written`, which hand every call to the recording. They lie in an arena, whose places are used again as always; so the
calls find their arrays at the same places each time they are made.

What cannot be written down is an error, never left out: a call that is not known here, or a copy that no call makes.
"""

from __future__ import annotations

import math
import mmap
import threading
from collections.abc import Callable
from functools import partial
from itertools import islice
from time import perf_counter
from typing import Any

import numpy as np

from .arena import Arena
from .memory import elsewhere, empty, release
from .profile import current, profiled, written_down
from .runtime.shards import shard_count
from .workers import available, limited

__all__ = ["CaptureError", "Repeated", "Written", "call", "followed", "writing"]

_BUFFER = (
    2048  # elements. NumPy repeats a row that is broadcast in a buffer; of this size it stays in the nearest cache
)
_TIMED = 2  # calls as they are, where that uses several threads


class CaptureError(TypeError):
    """A call that cannot be captured: the message says which."""


def _current() -> Recording:
    recording = current()
    if recording is None:
        raise CaptureError("an array of a recording was used outside it")
    return recording


class Recording:
    """Calls of NumPy, in order, on arrays that stay where they are."""

    def __init__(self) -> None:
        self.calls: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
        self.spans: list[tuple[int, int, tuple[str, str, str]]] = []  # of the calls of an operation, see `profile`
        self._errors: dict[str, Any] = {**np.geterr()}
        self._places: dict[tuple[Any, ...], np.ndarray] = {}
        self._starts: dict[mmap.mmap, int] = {}

    def play(self) -> None:
        before = np.setbufsize(_BUFFER)
        try:
            if not profiled(self, self._play):
                self._play(0, len(self.calls))
        finally:
            np.setbufsize(before)

    def _play(self, first: int, last: int) -> None:
        for f, args in islice(self.calls, first, last):
            f(*args)

    def add(self, f: Callable[..., Any], *args: Any) -> None:
        """f(*args) is what comes next, under those floating-point errors that are not as at the beginning."""
        if changed := {kind: mode for kind, mode in np.geterr().items() if mode != self._errors[kind]}:
            f = partial(_under, changed, f)
        self.calls.append((f, tuple(self.place(a) for a in args)))

    def place(self, a: Any) -> Any:
        """The same place as a plain array, which keeps the memory and not the array: the place can be used again."""
        if type(a) in (list, tuple):
            return [self.place(b) for b in a]
        if not isinstance(a, np.ndarray):
            return a
        address = a.__array_interface__["data"][0]
        name = address, a.shape, a.strides, a.dtype
        if name not in self._places:
            memory: Any = a
            while isinstance(memory, np.ndarray):
                memory = memory.base
            if isinstance(memory, mmap.mmap):
                self._places[name] = np.ndarray(a.shape, a.dtype, memory, address - self._start(memory), a.strides)
            else:
                self._places[name] = a.view(np.ndarray)
        return self._places[name]

    def _start(self, memory: mmap.mmap) -> int:
        """Its address."""
        if memory not in self._starts:
            self._starts[memory] = np.frombuffer(memory, np.uint8, 1).__array_interface__["data"][0]
        return self._starts[memory]

    def end(self) -> None:
        """Nothing more will be added."""
        self._places.clear()
        self._starts.clear()


def _under(errors: Any, f: Callable[..., Any], *args: Any) -> None:
    with np.errstate(**errors):
        f(*args)


def _into_last(f: Callable[..., Any], *args: Any) -> None:
    f(*args[:-1], out=args[-1])


class Written(np.ndarray):
    """An array whose calls of NumPy are made and written down."""

    def __array_finalize__(self, source: Any) -> None:
        if isinstance(source, Written) and self.base is None:
            raise CaptureError("a copy that no call makes cannot be written down: use np.copyto")

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = (), **kwargs: Any) -> Any:
        f = ufunc if method == "__call__" else getattr(ufunc, method)
        values = [_plain(a) for a in inputs]
        if out:
            f(*values, out=_plain(out[0]), **kwargs)
            result = out[0]
        else:
            result = _moved(f(*values, **kwargs))
        if method == "__call__" and not kwargs:
            _current().add(ufunc, *inputs, result)
        else:
            _current().add(partial(_into_last, partial(f, **kwargs)), *inputs, result)
        return result

    def __array_function__(self, f: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if f is np.broadcast_to:  # a view
            return super().__array_function__(f, types, args, kwargs)
        if f is np.copyto and len(args) == 2 and not kwargs:
            np.copyto(_plain(args[0]), _plain(args[1]))
            _current().add(np.copyto, *args)
            return None
        if f is np.concatenate and len(args) == 1 and kwargs.keys() <= {"axis", "out"}:
            axis, out = kwargs.get("axis", 0), kwargs.get("out")
            result = np.concatenate([_plain(a) for a in args[0]], axis, _plain(out))
            result = _moved(result) if out is None else out
            _current().add(np.concatenate, list(args[0]), axis, result)
            return result
        raise CaptureError(f"{f.__name__} with such arguments cannot be written down: it is not known to {__name__}")

    def __getitem__(self, index: Any) -> Any:
        part = super().__getitem__(index)
        if isinstance(part, Written) and (part.size == 0 or np.may_share_memory(_plain(part), _plain(self))):
            return part
        raise CaptureError(
            f"a copy that no call makes cannot be written down: {type(part).__name__} by index {index!r}"
        )

    def _read(self, *_: Any) -> Any:
        raise CaptureError("a number cannot be read while calls are written down: it would be a constant")

    __bool__ = __float__ = item = tobytes = tolist = _read  # type: ignore[assignment]

    def __setitem__(self, index: Any, value: Any) -> None:
        target = self[index]
        if isinstance(value, np.ndarray) and _same(target, value):  # a[i] += b ends with a[i] = a[i]
            return
        np.copyto(_plain(target), _plain(value))
        _current().add(np.copyto, target, value)


def _plain(a: Any) -> Any:
    return a.view(np.ndarray) if isinstance(a, Written) else a


def _moved(result: Any) -> np.ndarray:
    """A fresh result, in the recording's memory if it is of this engine's type."""
    if not isinstance(result, np.ndarray):
        raise CaptureError(f"expected an array to write down, got the number {result!r}: give the call an `out`")
    if result.dtype != np.float32:
        return result.view(Written)
    own = empty(result.shape)
    np.copyto(_plain(own), result)
    return own


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    start = a.__array_interface__["data"] == b.__array_interface__["data"]
    return start and a.shape == b.shape and a.strides == b.strides and a.dtype == b.dtype


def writing() -> bool:
    """Whether calls of this thread are written down."""
    return current() is not None


def followed(a: np.ndarray) -> np.ndarray:
    """An array whose values may have changed when the calls are made again; what is computed of others alone is not."""
    return a.view(Written) if writing() else a


def call(f: Callable[..., Any], *args: Any) -> None:
    """f(*args), which writes to arrays among its arguments; where calls are written down, as one of them."""
    if not writing():
        f(*args)
        return
    with elsewhere(Arena(), np.ndarray, {}):
        f(*(_plain(a) for a in args))
    _current().add(f, *args)


class Repeated:
    """f(*arrays) -> an array, which is called again and again: call number `after` with the same shapes is written down, and
    from then on it is played back. The results are fresh and have the same bits.

    f consists of operations of this engine. Its arguments may change, and what it names with `followed`; other arrays must
    not, as long as state() is equal. What is played back runs on one thread. Where operations may use several, some calls
    are timed first, and f goes on being called as it is if that is faster; so it is while another thread is in here.
    """

    def __init__(self, f: Callable[..., np.ndarray], after: int = 2, state: Callable[[], Any] = lambda: None) -> None:
        self.f, self.after, self.state = f, after, state
        self._like: Any = None
        self._calls = 0
        self._seconds = math.inf  # of a call as it is
        self._recording: Recording | None = None
        self._arrays: tuple[np.ndarray, ...] = ()
        self._result = np.empty(0)
        self._least: dict[str, int] = {}  # bytes of working space, by name
        self._lock = threading.Lock()

    def __call__(self, *arrays: np.ndarray) -> np.ndarray:
        if not self._lock.acquire(blocking=False):
            return self.f(*arrays)
        try:
            return self._call(arrays)
        finally:
            self._lock.release()

    def _call(self, arrays: tuple[np.ndarray, ...]) -> np.ndarray:
        several = available() > 1
        like = self.state(), shard_count(), several, *((a.shape, a.dtype) for a in arrays)
        if like != self._like:
            self._like, self._calls, self._seconds = like, 0, math.inf
            self._forget()
        self._calls += 1
        number, start = self._calls - (_TIMED if several else 0), perf_counter()
        if self._recording is not None:
            self._play(arrays)
            if several and number == self.after + 1 and perf_counter() - start > self._seconds:
                result = self._result.copy()
                self._forget()
                return result
        elif number == self.after:
            self._write(arrays)
        elif number == self.after - 1:  # how much working space it needs is then known when it is written down
            with limited(1), elsewhere(Arena(), np.ndarray, self._least):
                return self.f(*arrays).copy()
        else:
            result = self.f(*arrays)
            self._seconds = min(self._seconds, perf_counter() - start)
            return result
        return self._result.copy()

    def _play(self, arrays: tuple[np.ndarray, ...]) -> None:
        assert self._recording is not None
        for own, a in zip(self._arrays, arrays, strict=True):
            np.copyto(own, a)
        self._recording.play()

    def _write(self, arrays: tuple[np.ndarray, ...]) -> None:
        release()
        recording, self._arrays = Recording(), tuple(a.copy() for a in arrays)
        try:
            with limited(1), elsewhere(Arena(), Written, self._least), written_down(recording):
                self._result = recording.place(self.f(*(a.view(Written) for a in self._arrays)))
            self._recording = recording
        finally:
            recording.end()
            if self._recording is None:  # it did not come to its end: once more, the next time
                self._calls -= 1

    def _forget(self) -> None:
        self._recording, self._arrays, self._result = None, (), np.empty(0)
