"""Products of two arrays or with one number a sample, sums over a sample and over copies of it, and running sums:
kernels/sums.cu."""

from __future__ import annotations

from math import prod
from typing import Any

from .per_sample import add_parts, over_elements, parts_of
from .position_ops import sum_over_positions
from .runtime.context import ITEMSIZE, THREADS, Array
from .samples import results, values
from .structs import constant, struct
from .tensor_ops import cast, dense, one_type

__all__ = [
    "cumulative_sum", "cumulative_sum_backward", "multiply", "multiply_backward", "repeat", "repeat_backward", "sample_sum",
    "sample_sum_backward",
]  # fmt: skip

CumulativeSum = struct("sums.cu", "CumulativeSum")
SCAN = constant("sums.cu", "SCAN")


def multiply(a: Array, b: Array) -> tuple[Array, Any]:
    """y = a b.   a (N, ...), b of its shape, or one number a sample (N,), which stays float32 -> y (N, ...)."""
    assert b.shape in (a.shape, a.shape[:1]), f"multiply: {a.shape} and {b.shape}"
    types = a.dtype, b.dtype
    if b.shape == a.shape:
        a, b = one_type(a, b)
        a, b = dense(a), dense(b)
        y = a.context.empty(a.shape, a.dtype)
        a.context.map("sums.cu", "multiply", a.size, a, b, y, dtype=a.dtype)
        return y, (a, b, types)
    a, b = dense(a), cast(b, "float32")
    y = a.context.empty(a.shape, a.dtype)
    over_elements("sums.cu", "multiply_samples", a, a, b, y, a.size // a.shape[0], a.size)
    return y, (a, b, types)


def multiply_backward(dy: Array, saved: Any) -> tuple[Array, Array]:
    """da = dy b,  db = dy a, summed over each sample where b is one number a sample."""
    a, b, types = saved
    dy, da = cast(dense(dy), a.dtype), a.context.empty(a.shape, a.dtype)
    if b.shape == a.shape:
        db = a.context.empty(a.shape, a.dtype)
        a.context.map("sums.cu", "multiply_backward", a.size, dy, a, b, da, db, dtype=a.dtype)
    else:
        db = _summed("multiply_samples_backward", a, dy, a, b, da)
    return cast(da, types[0]), cast(db, types[1])


def sample_sum(x: Array) -> tuple[Array, Any]:
    """y_n = the sum of all elements of x_n.   x (N, ...) -> (N,) float32."""
    saved = x.shape, x.dtype
    if x.ndim == 1:
        return cast(dense(x), "float32"), saved
    x = dense(x)
    return _summed("sample_sum", x, x), saved


def sample_sum_backward(dy: Any, saved: Any) -> Array:
    """dx_n = dy_n everywhere.   dy (N,) float32."""
    shape, dtype = saved
    if len(shape) == 1:
        return cast(dy, dtype)
    assert (dy.shape, dy.dtype) == (shape[:1], "float32"), f"sample_sum: expected float32 {shape[:1]}, got {dy}"
    dx = dy.context.empty(shape, dtype)
    over_elements("sums.cu", "spread_samples", dx, dy, dx, dx.size // shape[0], dx.size)
    return dx


def repeat(x: Array, times: int) -> tuple[Array, Any]:
    """y[n times + k] = x[n]: each sample so often, one copy after another.   (N, ...) -> (N times, ...), integers too."""
    x = dense(x)
    y = x.context.empty((x.shape[0] * times, *x.shape[1:]), x.dtype)
    over_elements("sums.cu", "repeat", y, x, y, times, prod(x.shape[1:]), y.size)
    return y, times


def repeat_backward(dy: Array, saved: Any) -> Array:
    """dx[n] = the sum of dy over the copies of x[n]."""
    n, shape = dy.shape[0] // saved, dy.shape[1:]
    return sum_over_positions(dense(dy).view((n, saved, prod(shape)))).view((n, *shape))


def cumulative_sum(x: Array) -> tuple[Array, Any]:
    """y_k = x_0 + ... + x_k.   x (K,) -> y (K,) float32."""
    assert x.ndim == 1, f"cumulative_sum: expected (K,), got {x.shape}"
    return _scan(x, "float32", False), x.dtype


def cumulative_sum_backward(dy: Array, saved: Any) -> Array:
    """dx_k = dy_k + ... + dy_{K-1}."""
    return _scan(dy, saved, True)


def _scan(x: Array, dtype: str, reverse: bool) -> Array:
    x, y = dense(x), x.context.empty(x.shape, dtype)
    x.context.launch(
        "sums.cu", "cumulative_sum", 1, SCAN, CumulativeSum(x=values(x), y=results(y), K=len(x), reverse=reverse),
        dtype="float32",
    )  # fmt: skip
    return y


def _summed(name: str, x: Array, *arguments: Array) -> Array:
    """A kernel that sums over each sample of x, whose last arguments are sums, elements and parts of a sample.   -> (N,)"""
    n, count = x.shape[0], x.size // x.shape[0]
    parts, total = parts_of(n, count * ITEMSIZE[x.dtype] // 16), x.context.empty((n,))
    out = total if parts == 1 else x.context.empty((n, parts))
    x.context.launch("sums.cu", name, n * parts, THREADS, *arguments, out, count, parts, dtype=x.dtype)
    if parts > 1:
        add_parts(out, None, total, 1.0)
    return total
