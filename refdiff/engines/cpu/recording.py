"""The calls of NumPy that operations make, written down once and made again: what Python does in between is left out.

A step of training makes some ten thousand calls of a few microseconds, the same ones each time, and finding out which took
Python a fifth of the time. While a function is written down, results and working space are arrays of a kind of their own,
`Written`, which hand every call to the recording. They lie in a pool of its own, in which memory is used again as always; so
the calls name the same places each time they are made.

What cannot be written down is an error and never left out: a call that is not known here, and a copy behind NumPy's back.
"""

from __future__ import annotations

import mmap
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from .memory import elsewhere, empty
from .profile import profiled
from .workers import available

__all__ = ["Repeated", "Written", "call", "followed", "writing"]

_VIEWS = {np.broadcast_to}
_Call = tuple[Callable[..., Any], tuple[Any, ...]]


class _Local(threading.local):
    recording: Recording | None = None


_local = _Local()


class Recording:
    """Calls of NumPy, in order, on arrays that stay where they are."""

    def __init__(self) -> None:
        self.calls: list[_Call] = []
        self._known: dict[tuple[Any, ...], np.ndarray] = {}
        self._errors = np.geterr()

    def play(self) -> None:
        for f, args in self.calls:
            f(*args)

    def end(self) -> None:
        """Nothing more will be added."""
        self._known.clear()

    def add(self, f: Callable[..., Any], *args: Any) -> None:
        """f(*args), each time the recording is played."""
        if np.geterr() != self._errors:
            f = partial(_with_errors, np.geterr(), f)
        self.calls.append((f, tuple(self.place(a) for a in args)))

    def place(self, a: Any) -> Any:
        """The same place as a plain array that keeps the memory and not the array: its block can be used again."""
        if type(a) in (list, tuple):
            return [self.place(b) for b in a]
        if not isinstance(a, np.ndarray):
            return a
        address = a.__array_interface__["data"][0]
        name = address, a.shape, a.strides, a.dtype
        if name not in self._known:
            root = a
            while isinstance(root.base, np.ndarray):
                root = root.base
            if isinstance(root.base, mmap.mmap):
                offset = address - root.__array_interface__["data"][0]
                self._known[name] = np.ndarray(a.shape, a.dtype, root.base, offset, a.strides)
            else:
                self._known[name] = a.view(np.ndarray)
        return self._known[name]


def _with_errors(errors: Any, f: Callable[..., Any], *args: Any) -> None:
    with np.errstate(**errors):
        f(*args)


class Written(np.ndarray):
    """An array whose calls of NumPy are written down."""

    def __array_finalize__(self, obj: Any) -> None:
        if isinstance(obj, Written) and self.base is None:
            raise TypeError("a copy of an array cannot be written down: use np.copyto")

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = (), **kwargs: Any) -> Any:
        recording = _current()
        f = ufunc if method == "__call__" else getattr(ufunc, method)
        plain = [_plain(a) for a in inputs]
        if out:
            f(*plain, out=_plain(out[0]), **kwargs)
            result = out[0]
        else:
            result = f(*plain, **kwargs)
            if not isinstance(result, np.ndarray):
                raise TypeError(f"{ufunc.__name__}.{method} cannot be written down: its result is no array; give `out`")
            result = _own(result)
        if method == "__call__" and not kwargs:
            recording.add(ufunc, *inputs, result)
        else:
            recording.add(partial(_to_last, partial(f, **kwargs)), *inputs, result)
        return result

    def __array_function__(self, f: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if f in _VIEWS:
            return super().__array_function__(f, types, args, kwargs)
        if f is np.copyto and len(args) == 2 and not kwargs:
            np.copyto(_plain(args[0]), _plain(args[1]))
            _current().add(np.copyto, *args)
            return None
        if f is np.concatenate and len(args) == 1:
            axis, out = kwargs.get("axis", 0), kwargs.get("out")
            result = np.concatenate([_plain(a) for a in args[0]], axis, None if out is None else _plain(out))
            result = _own(result) if out is None else out
            _current().add(np.concatenate, args[0], axis, result)
            return result
        raise TypeError(f"{f.__name__} cannot be written down: add it to {__name__}")

    def __setitem__(self, index: Any, value: Any) -> None:
        target = self[index]
        if isinstance(value, np.ndarray) and _is(target, value):  # a[i] += b ends with a[i] = a[i]
            return
        np.copyto(_plain(target), _plain(value))
        _current().add(np.copyto, target, value)


def _to_last(f: Callable[..., Any], *args: Any) -> None:
    f(*args[:-1], out=args[-1])


def _is(a: np.ndarray, b: np.ndarray) -> bool:
    data = a.__array_interface__["data"] == b.__array_interface__["data"]
    return data and a.shape == b.shape and a.strides == b.strides and a.dtype == b.dtype


def _plain(a: Any) -> Any:
    return a.view(np.ndarray) if isinstance(a, Written) else a


def _own(result: np.ndarray) -> np.ndarray:
    """A fresh result, moved to the recording's memory if it is of this engine's type."""
    if result.dtype != np.float32:
        return result.view(Written)
    own = empty(result.shape)
    np.copyto(_plain(own), result)
    return own


def _current() -> Recording:
    if _local.recording is None:
        raise TypeError("an array of a recording was used outside it")
    return _local.recording


def writing() -> bool:
    """Whether this thread's calls are written down."""
    return _local.recording is not None


def call(f: Callable[..., Any], *args: Any) -> None:
    """f(*args), which writes to arrays among the arguments; written down as it is, where calls are."""
    recording = _local.recording
    if recording is None:
        f(*args)
        return
    with elsewhere(np.ndarray):
        f(*(_plain(a) for a in args))
    recording.add(f, *args)


def followed(a: np.ndarray) -> np.ndarray:
    """An array whose values may have changed when the calls are made again. Others count as constants."""
    return a if _local.recording is None else a.view(Written)


class Repeated:
    """f(*arrays) -> an array, which is called again and again: written down at call number `after` with these shapes, and
    from then on played back. The result has the same bits.

    f consists of operations of this engine; of arrays other than its arguments it follows those that it says. It is called as it is
    where an operation has several threads, while `profile` is recording.
    """

    def __init__(self, f: Callable[..., np.ndarray], after: int = 2) -> None:
        self.f, self.after = f, after
        self._calls, self._shapes = 0, ()
        self._recording: Recording | None = None
        self._inputs: list[np.ndarray] = []
        self._result = np.empty(0)

    def __call__(self, *arrays: np.ndarray) -> np.ndarray:
        shapes = tuple((a.shape, a.dtype) for a in arrays)
        if shapes != self._shapes:
            self._shapes, self._calls, self._recording = shapes, 0, None
        self._calls += 1
        if available() > 1 or profiled() or self._calls < self.after:
            return self.f(*arrays)
        if self._recording is None:
            self._write(arrays)
        else:
            for own, a in zip(self._inputs, arrays, strict=True):
                np.copyto(own, a)
            self._recording.play()
        return self._result.copy()

    def _write(self, arrays: tuple[np.ndarray, ...]) -> None:
        recording = Recording()
        _local.recording = recording
        try:
            with elsewhere(Written):
                inputs = [a.copy() for a in arrays]
                result = self.f(*(a.view(Written) for a in inputs))
                self._result = recording.place(result)
        finally:
            _local.recording = None
        recording.end()
        self._inputs, self._recording = inputs, recording
