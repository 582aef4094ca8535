"""What memory a function of this engine takes, found without computing it: shapes go through it, numbers do not.

The operations are the engine's own. Results find their places as in a capture, so the figure is what a capture takes; but
no array has memory of its own, and no call of NumPy is made.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ...arena import Places
from .arena import PAGE
from .blocks import BlockFinalizer, Workspace
from .capture import Capture
from .context import current, using
from .shared_memory import SharedMemory
from .traced_array import CaptureError, TracedArray

__all__ = ["Memory", "dry_run"]

_ENDLESS = 1 << 62  # bytes of places, which cost nothing


class Memory(NamedTuple):
    """Bytes of results at the most, and of working space."""

    results: int
    workspace: int


class DryArray(TracedArray):
    """An array without values: what NumPy would make of it has a shape and a type."""

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = (), **kwargs: Any) -> Any:
        if out:
            return out[0]
        shapes = [_shape(a) for a in inputs]
        if method == "reduce":
            shape = _reduced(shapes[0], kwargs.get("axis", 0), kwargs.get("keepdims", False))
        elif method != "__call__":
            raise CaptureError(f"{ufunc.__name__}.{method} is not known to {__name__}")
        elif ufunc is np.matmul:
            a, b = shapes
            shape = (*np.broadcast_shapes(a[:-2], b[:-2]), a[-2], b[-1])
        else:
            shape = np.broadcast_shapes(*shapes)
        ones = [np.ones((1,) * max(2, a.ndim), a.dtype) if isinstance(a, np.ndarray) else a for a in inputs]
        return _array(shape, ufunc(*ones).dtype if method == "__call__" else ones[0].dtype)

    def __array_function__(self, f: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if f is np.broadcast_to:
            return super().__array_function__(f, types, args, kwargs)
        if f is np.copyto:
            return None
        if f is np.where and len(args) == 3 and not kwargs:
            return _array(np.broadcast_shapes(*map(_shape, args)), _dtype(args[1:]))
        if f is np.concatenate and len(args) == 1:
            out, axis, (first, *others) = kwargs.get("out"), kwargs.get("axis", 0), args[0]
            if out is not None:
                return out
            shape = list(first.shape)
            shape[axis] += sum(a.shape[axis] for a in others)
            return _array(tuple(shape), _dtype(args[0]))
        raise CaptureError(f"{f.__name__} with such arguments is not known to {__name__}")

    def __setitem__(self, index: Any, value: Any) -> None: ...


def dry_run(f: Callable[..., Any], *arrays: np.ndarray) -> Memory:
    """What f(*arrays) takes when it is captured; f consists of operations of this engine, and what it reads of its arguments
    is their shapes. CaptureError, a TypeError, for what is known neither here nor to a capture.

    The shards are those of the caller's context. What f returns is let go of.
    """
    places, sizes = _Places(), dict[str, int]()
    with using(
        threads=1, allocator=places, kind=DryArray, workspace=Workspace(sizes), capture=_Nothing(), gradients=None
    ):
        f(*(a.view(DryArray) for a in arrays))
    return Memory(places.top + places.others, sum(sizes.values()))


class _Nothing(Capture):
    """A capture in which no call is made, nor kept."""

    dry = True

    def add(self, f: Callable[..., Any], *args: Any) -> None: ...


class _Places:
    """Where arrays would lie in an arena. top: the end of the highest so far; others: bytes that lie elsewhere, all kept."""

    def __init__(self) -> None:
        self.top = self.others = 0
        self._places = Places()
        self._places.add_region(0, _ENDLESS)
        self._memory = SharedMemory(("",), 1)  # of all arrays, which are never written to: it takes no page
        self._finalizers: dict[int, BlockFinalizer] = {}

    def empty(self, shape: tuple[int, ...], kind: type[np.ndarray] = np.ndarray) -> np.ndarray:
        size = 4 * prod(shape)
        if size < PAGE:
            return kind(shape, np.float32)
        start = self._places.take(-(-size // PAGE) * PAGE)
        assert start is not None
        self.top = max(self.top, start + -(-size // PAGE) * PAGE)
        if self._memory.count < size // 4:
            self._memory = SharedMemory(("",), size // 4)
        a = kind(shape, np.float32, self._memory[""].base)
        finalizer = BlockFinalizer(a, self._take_back)
        finalizer.block = start
        self._finalizers[id(finalizer)] = finalizer
        return a

    def _take_back(self, finalizer: BlockFinalizer) -> None:
        del self._finalizers[id(finalizer)]
        self._places.give_back(finalizer.block)


def _array(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """A result: float32 from the arena, others from NumPy, and kept as long as a capture, as there."""
    places = current().allocator
    assert isinstance(places, _Places)
    if dtype == np.float32:
        return places.empty(shape, DryArray)
    places.others += prod(shape) * dtype.itemsize
    return np.zeros(shape, dtype).view(DryArray)


def _shape(a: Any) -> tuple[int, ...]:
    return getattr(a, "shape", ())


def _dtype(arrays: Any) -> np.dtype:
    return np.result_type(*(a.dtype if isinstance(a, np.ndarray) else a for a in arrays))


def _reduced(shape: tuple[int, ...], axis: Any, keepdims: bool) -> tuple[int, ...]:
    axes = range(len(shape)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    gone = {i % len(shape) for i in axes}
    return tuple(1 if i in gone else n for i, n in enumerate(shape) if keepdims or i not in gone)
