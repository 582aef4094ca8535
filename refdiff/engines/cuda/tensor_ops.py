"""Sums, multiples, joins, splits, shapes, fan-out and dropout: kernels/tensor_ops.cu. Where values are only passed on,
nothing is launched: the result is the same array or a view of it. Where data in float32 meet a network's bfloat16, they
are rounded."""

from __future__ import annotations

import ctypes
from typing import Any, TypeAlias

import numpy as np

from ...random import Sequence, uniform_threshold
from .random_numbers import sequence_struct
from .runtime.context import ITEMSIZE, THREADS, Array, blocks, current, dtype_name
from .transfer import host

__all__ = [
    "Gradients", "accumulate", "add", "add_backward", "array", "cast", "concat", "concat_backward", "dense", "dropout",
    "dropout_backward", "host", "one_type", "pack_of", "reshape", "reshape_backward", "scale", "scale_backward", "split",
    "split_backward", "zeros",
]  # fmt: skip

Gradients: TypeAlias = dict[str, Array]


def array(x: Any, dtype: Any = np.float32) -> Array:
    """x, from the host or of this engine, as an array of dtype."""
    return cast(x, dtype) if isinstance(x, Array) else current().array(x, dtype)


def cast(x: Array, dtype: Any) -> Array:
    """x as dtype: itself if it is of that type, else rounded to the nearest. Between float32 and bfloat16."""
    name = dtype_name(dtype)
    if name == x.dtype:
        return x
    assert {name, x.dtype} == {"float32", "bfloat16"}, f"cast: expected float32 and bfloat16, got {x.dtype} to {name}"
    x, y = dense(x), x.context.empty(x.shape, name)
    x.context.map(
        "tensor_ops.cu", "from_float32" if x.dtype == "float32" else "to_float32", x.size, x, y, dtype="bfloat16"
    )
    return y


def dense(x: Array) -> Array:
    """x itself if its rows lie together, else a copy in which they do."""
    if x.dense:
        return x
    y = x.context.empty(x.shape, x.dtype)
    _copy(x, y)
    return y


def zeros(shape: tuple[int, ...], dtype: Any = np.float32) -> Array:
    """An array of zeros, float32 or bfloat16."""
    y = current().empty(shape, dtype)
    y.context.map("tensor_ops.cu", "fill", y.size, y, 0.0, dtype=y.dtype)
    return y


def add(a: Array, b: Array) -> tuple[Array, Any]:
    """y = a + b, of one shape."""
    assert a.shape == b.shape, f"add: {a.shape} and {b.shape}"
    a, b = one_type(a, b)
    return _sum(a, b), None


def add_backward(dy: Array, saved: Any) -> tuple[Array, Array]:
    """da = dy,  db = dy."""
    return dy, dy


def scale(x: Array, factor: float) -> tuple[Array, Any]:
    """y = factor x, the factor a number of Python."""
    return _times(x, factor), factor


def scale_backward(dy: Array, saved: Any) -> Array:
    """dx = factor dy."""
    return _times(dy, saved)


def concat(a: Array, b: Array) -> tuple[Array, Any]:
    """y = [a, b] along the last axis.   a (..., A), b (..., B) -> y (..., A + B)."""
    assert a.shape[:-1] == b.shape[:-1], f"concat: {a} and {b}"
    a, b = one_type(a, b)
    A, B = a.shape[-1], b.shape[-1]
    y = a.context.empty((*a.shape[:-1], A + B), a.dtype)
    _join("concat", (dense(a), dense(b), y), A, B, y.size)
    return y, A


def concat_backward(dy: Array, saved: Any) -> tuple[Array, Array]:
    """da and db are the parts of dy."""
    A, B = saved, dy.shape[-1] - saved
    da, db = (dy.context.empty((*dy.shape[:-1], width), dy.dtype) for width in (A, B))
    _join("concat_backward", (dense(dy), da, db), A, B, dy.size)
    return da, db


def split(x: Array, parts: int) -> tuple[tuple[Array, ...], Any]:
    """x cut into equal parts along the last axis, each a view.   x (..., parts C) -> parts times (..., C)."""
    c = x.shape[-1] // parts
    assert c * parts == x.shape[-1], f"split: {x.shape} into {parts} parts"
    shape = (*x.shape[:-1], c)
    return tuple(Array(x.buffer, shape, x.dtype, x.offset + i * c, x.pitch) for i in range(parts)), None


def split_backward(dys: tuple[Array, ...], saved: Any) -> Array:
    """dx joins the gradients of the parts: without a copy where they lie side by side, as the parts of one array do."""
    first, c = dys[0], dys[0].shape[-1]
    shape = (*first.shape[:-1], c * len(dys))
    if all(
        dy.buffer is first.buffer and dy.offset == first.offset + i * c and dy.pitch == shape[-1]
        for i, dy in enumerate(dys)
    ):
        return Array(first.buffer, shape, first.dtype, first.offset)
    dx = first.context.empty(shape, first.dtype)
    for dy, part in zip(dys, split(dx, len(dys))[0], strict=True):
        _copy(dy, part)
    return dx


def reshape(x: Array, shape: tuple[int, ...]) -> tuple[Array, Any]:
    """The same values in another shape: a view."""
    return dense(x).view(shape), x.shape


def reshape_backward(dy: Array, saved: Any) -> Array:
    """dx has the shape that x had."""
    return dense(dy).view(saved)


def accumulate(*dys: Array) -> Array:
    """dx of a value that several operations used: the sum of their gradients, four at a time.

    In bfloat16 if one of them is.
    """
    assert all(dy.shape == dys[0].shape for dy in dys), f"accumulate: {[dy.shape for dy in dys]}"
    if any(dy.dtype != dys[0].dtype for dy in dys):
        dys = tuple(cast(dy, "bfloat16") for dy in dys)
    dx, rest = dys[0], dys[1:]
    while rest:
        dx, rest = _sum(dx, *rest[:3]), rest[3:]
    return dx


def dropout(x: Array, rate: float, key: Sequence) -> tuple[Array, Any]:
    """y = x m / (1 - rate), m = 1 where a uniform number of `key` and the sample's place exceeds rate, else 0. [Dropout]

    x (N, ...), 0 <= rate < 1 -> y (N, ...). The same key drops the same elements. key.step, key.first: integers or int32
    Arrays of shape (), see `random_numbers`. The mask is not saved: the backward draws it again.
    """
    assert 0 <= rate < 1, f"dropout: expected a rate in [0, 1), got {rate}"
    return _dropout(x, rate, key), (rate, key)


def dropout_backward(dy: Array, saved: Any) -> Array:
    """dx = dy m / (1 - rate)."""
    rate, key = saved
    return _dropout(dy, rate, key)


def one_type(a: Array, b: Array) -> tuple[Array, Array]:
    """Both as they are, or in bfloat16 if one of them is."""
    return (a, b) if a.dtype == b.dtype else (cast(a, "bfloat16"), cast(b, "bfloat16"))


def _times(x: Array, factor: float) -> Array:
    x, y = dense(x), x.context.empty(x.shape, x.dtype)
    x.context.map("tensor_ops.cu", "scale", x.size, x, y, float(factor), dtype=x.dtype)
    return y


def _dropout(x: Array, rate: float, key: Sequence) -> Array:
    x, y = dense(x), x.context.empty(x.shape, x.dtype)
    n = x.shape[0]
    sample, each = x.size // n, 16 // ITEMSIZE[x.dtype]
    x.context.launch(
        "tensor_ops.cu", "dropout", blocks(n * blocks(sample, each), THREADS), THREADS, x, y, n, sample,
        ctypes.c_ulonglong(uniform_threshold(rate)), 1 / (1 - rate), sequence_struct(key), dtype=x.dtype,
    )  # fmt: skip
    return y


def _sum(a: Array, b: Array, c: Array | None = None, d: Array | None = None) -> Array:
    assert all(x is None or (x.dtype == a.dtype and x.size == a.size) for x in (b, c, d)), "a sum of arrays that differ"
    a, b, c, d = (None if x is None else dense(x) for x in (a, b, c, d))  # type: ignore[assignment]
    y = a.context.empty(a.shape, a.dtype)
    a.context.map("tensor_ops.cu", "add", a.size, a, b, c, d, y, dtype=a.dtype)
    return y


def _copy(x: Array, y: Array) -> None:
    """Write x to y, either with any pitch."""
    width, pack = x.shape[-1], 16 // ITEMSIZE[x.dtype]
    if width % pack or x.pitch % pack or y.pitch % pack or x.pointer % 16 or y.pointer % 16:
        pack = 1
    x.context.launch(
        "tensor_ops.cu", "copy", blocks(x.size, THREADS * pack), THREADS, x, y, x.size // max(width, 1), width, x.pitch,
        y.pitch, dtype=x.dtype,
    )  # fmt: skip


def _join(name: str, arrays: tuple[Array, ...], A: int, B: int, n: int) -> None:
    x = arrays[0]
    each = pack_of(x, A) if pack_of(x, B) > 1 else 1
    x.context.launch("tensor_ops.cu", name, blocks(n, THREADS * each), THREADS, *arrays, A, B, n, dtype=x.dtype)


def pack_of(x: Array, c: int) -> int:
    """How many channels a thread takes: 16 bytes where they divide c, else one."""
    pack = 16 // ITEMSIZE[x.dtype]
    return pack if c % pack == 0 else 1
