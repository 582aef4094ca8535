"""Arrays that hand every call of NumPy to the capture of their thread.

What cannot be captured is an error, never left out: a call that is not known here, a copy that no call makes, a number
that is read.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from .arena import Arena
from .blocks import Workspace
from .capture import Capture
from .context import current, using
from .memory import empty

__all__ = ["CaptureError", "TracedArray", "call", "graph_input", "is_capturing"]


_OUT_BY_NAME = (np.maximum, np.minimum)  # NumPy 2.4 warns of a third argument without a name


def is_capturing() -> bool:
    """True if the calls of this thread are captured."""
    return current().capture is not None


def graph_input(a: np.ndarray) -> np.ndarray:
    """An array whose values may change, in place, between replays; what a capture computes of others alone is constant."""
    return a.view(current().kind) if is_capturing() else a


def call(f: Callable[..., Any], *args: Any) -> None:
    """f(*args), which writes to arrays among its arguments; inside a capture, captured as one call."""
    if not is_capturing():
        f(*args)
        return
    capture = _capture()
    if capture.dry:
        return
    with using(allocator=Arena(), kind=np.ndarray, workspace=Workspace(), capture=None, gradients=None):
        f(*(_plain(a) for a in args))
    capture.add(f, *args)


class CaptureError(TypeError):
    """A call that cannot be captured: the message says which."""


class TracedArray(np.ndarray):
    """An array whose calls of NumPy are made and captured."""

    def __array_finalize__(self, source: Any) -> None:
        if isinstance(source, TracedArray) and self.base is None:
            raise CaptureError("a copy that no call makes cannot be captured: use np.copyto")

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = (), **kwargs: Any) -> Any:
        f = ufunc if method == "__call__" else getattr(ufunc, method)
        values = [_plain(a) for a in inputs]
        if out:
            f(*values, out=_plain(out[0]), **kwargs)
            result = out[0]
        else:
            result = _moved(f(*values, **kwargs))
        if method == "__call__" and not kwargs and ufunc not in _OUT_BY_NAME:
            _capture().add(ufunc, *inputs, result)
        else:
            _capture().add(partial(_into_last, partial(f, **kwargs)), *inputs, result)
        return result

    def __array_function__(self, f: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if f is np.broadcast_to:  # a view
            return super().__array_function__(f, types, args, kwargs)
        if f is np.copyto and len(args) == 2 and not kwargs:
            np.copyto(_plain(args[0]), _plain(args[1]))
            _capture().add(np.copyto, *args)
            return None
        if f is np.where and len(args) == 3 and not kwargs:
            condition, a, b = args
            if np.result_type(_plain(condition)) != np.dtype(bool):
                condition = np.not_equal(condition, 0)
            result = _moved(np.where(_plain(condition), _plain(a), _plain(b)))
            _capture().add(_where, condition, a, b, result)
            return result
        if f is np.concatenate and len(args) == 1 and kwargs.keys() <= {"axis", "out"}:
            axis, out = kwargs.get("axis", 0), kwargs.get("out")
            result = np.concatenate([_plain(a) for a in args[0]], axis, _plain(out))
            result = _moved(result) if out is None else out
            _capture().add(np.concatenate, list(args[0]), axis, result)
            return result
        raise CaptureError(f"{f.__name__} with such arguments cannot be captured: it is not known to {__name__}")

    def __getitem__(self, index: Any) -> Any:
        part = super().__getitem__(index)
        if isinstance(part, TracedArray) and (part.size == 0 or np.may_share_memory(_plain(part), _plain(self))):
            return part
        raise CaptureError(f"a copy that no call makes cannot be captured: {type(part).__name__} by index {index!r}")

    def _read(self, *_: Any) -> Any:
        raise CaptureError("a number cannot be read inside a capture: it would be a constant")

    __bool__ = __float__ = item = tobytes = tolist = _read  # type: ignore[assignment]

    def __setitem__(self, index: Any, value: Any) -> None:
        target = self[index]
        if isinstance(value, np.ndarray) and _same(target, value):  # a[i] += b ends with a[i] = a[i]
            return
        np.copyto(_plain(target), _plain(value))
        _capture().add(np.copyto, target, value)


def _capture() -> Capture:
    capture = current().capture
    if capture is None:
        raise CaptureError("an array of a capture was used outside it")
    return capture


def _into_last(f: Callable[..., Any], *args: Any) -> None:
    f(*args[:-1], out=args[-1])


def _where(condition: Any, a: Any, b: Any, out: np.ndarray) -> None:
    """np.where(condition, a, b), into out."""
    np.copyto(out, b)
    np.copyto(out, a, where=condition)


def _plain(a: Any) -> Any:
    return a.view(np.ndarray) if isinstance(a, TracedArray) else a


def _moved(result: Any) -> np.ndarray:
    """A fresh result, in the capture's memory if it is of this engine's type."""
    if not isinstance(result, np.ndarray):
        raise CaptureError(f"expected an array to capture, got the number {result!r}: give the call an `out`")
    if result.dtype != np.float32:
        return result.view(TracedArray)
    moved = empty(result.shape)
    np.copyto(_plain(moved), result)
    return moved


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    start = a.__array_interface__["data"] == b.__array_interface__["data"]
    return start and a.shape == b.shape and a.strides == b.strides and a.dtype == b.dtype
