"""Sums, products, joins, splits and shapes. A gradient that is only passed on is the same array: none is written to."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import reference
from ..reference import Gradients
from .runtime.memory import contiguous, empty, gradient_of_sum, gradient_out, scratch
from .runtime.profiler import operation
from .runtime.shards import shards, tree_sum
from .runtime.traced_array import call, graph_input

__all__ = [
    "accumulate", "add", "add_backward", "add_positions", "add_positions_backward", "array", "broadcast_add",
    "broadcast_add_backward", "concat", "concat_backward", "cumulative_sum", "cumulative_sum_backward", "host", "multiply",
    "multiply_backward", "repeat", "repeat_backward", "reshape", "reshape_backward", "sample_sum", "sample_sum_backward",
    "scale", "scale_backward", "split", "split_backward",
]  # fmt: skip

host = reference.host


def array(x: Any, dtype: Any = np.float32) -> np.ndarray:
    """x from the host as an array of this engine. ValueError for a dtype other than float32."""
    if np.dtype(dtype) != np.float32:
        raise ValueError(
            f"dtype: expected float32, the one type of the cpu engine, got {np.dtype(dtype)}; leave it out, or use the "
            f"reference engine"
        )
    return np.asarray(x, np.float32)


@operation
def add(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, Any]:
    """y = a + b, of one shape."""
    assert a.shape == b.shape, f"add: {a.shape} and {b.shape}"
    y = empty(a.shape)
    return np.add(a, b, out=y), None


@operation
def add_backward(dy: np.ndarray, saved: Any) -> tuple[np.ndarray, np.ndarray]:
    """da = dy,  db = dy."""
    return dy, dy


@operation
def broadcast_add(x: np.ndarray, e: np.ndarray) -> tuple[np.ndarray, Any]:
    """y[n, ..., c] = x[n, ..., c] + e[n, c].   x (N, ..., C), e (N, C) -> y (N, ..., C)."""
    assert e.shape == (len(x), x.shape[-1]), f"broadcast_add: {x.shape} and {e.shape}"
    y = empty(x.shape)
    np.add(x.reshape(len(x), -1, x.shape[-1]), e[:, None], out=y.reshape(len(x), -1, x.shape[-1]))
    return y, None


@operation
def broadcast_add_backward(dy: np.ndarray, saved: Any) -> tuple[np.ndarray, np.ndarray]:
    """dx = dy,  de = the sum of dy over all positions."""
    rows = dy.reshape(len(dy), -1, dy.shape[-1])
    de = empty((len(dy), dy.shape[-1]))
    np.matmul(np.ones((1, rows.shape[1]), np.float32), rows, out=de[:, None])
    return dy, de


@operation
def add_positions(x: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, Any]:
    """y[n] = x[n] + weight, what is learned of each position.   x (N, ...), weight (...) -> y (N, ...)."""
    assert weight.shape == x.shape[1:], f"add_positions: {x.shape} and {weight.shape}"
    y = empty(x.shape)
    return np.add(x, weight, out=y), weight


@operation
def add_positions_backward(dy: np.ndarray, saved: Any) -> tuple[np.ndarray, Gradients]:
    """dx = dy,  dweight = the sum of dy over the samples."""
    weight, parts = saved, shards(len(dy))
    sums = [gradient_out(weight), *(empty(weight.shape) for _ in parts[1:])]
    for shard, out in zip(parts, sums, strict=True):
        np.add.reduce(dy[shard], axis=0, out=out)
    return dy, {"weight": tree_sum(sums)}


@operation
def scale(x: np.ndarray, factor: float) -> tuple[np.ndarray, Any]:
    """y = factor x, the factor a number of Python."""
    y = empty(x.shape)
    return np.multiply(x, np.float32(factor), out=y), factor


@operation
def scale_backward(dy: np.ndarray, saved: Any) -> np.ndarray:
    """dx = factor dy."""
    dx = empty(dy.shape)
    return np.multiply(dy, np.float32(saved), out=dx)


@operation
def multiply(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, Any]:
    """y = a b.   a (N, ...), b of its shape, or one number a sample (N,) -> y (N, ...)."""
    assert b.shape in (a.shape, a.shape[:1]), f"multiply: {a.shape} and {b.shape}"
    y = empty(a.shape)
    return np.multiply(a, _like(b, a), out=y), (a, b)


@operation
def multiply_backward(dy: np.ndarray, saved: Any) -> tuple[np.ndarray, np.ndarray]:
    """da = dy b,  db = dy a, summed over each sample where b is one number a sample."""
    (a, b), da, db = saved, empty(dy.shape), empty(saved[1].shape)
    np.multiply(dy, _like(b, a), out=da)
    if b.shape == a.shape:
        np.multiply(dy, a, out=db)
    else:
        product = np.multiply(dy, a, out=scratch("u", *a.shape))
        np.add.reduce(product.reshape(len(a), -1), axis=1, out=db)
    return da, db


def _like(b: np.ndarray, a: np.ndarray) -> np.ndarray:
    """b, or where it is one number a sample, (N, 1, ..., 1), to go with a."""
    return b if b.shape == a.shape else b.reshape(-1, *[1] * (a.ndim - 1))


@operation
def sample_sum(x: np.ndarray) -> tuple[np.ndarray, Any]:
    """y_n = the sum of all elements of x_n.   x (N, ...) -> (N,)."""
    y = empty(x.shape[:1])
    return np.add.reduce(contiguous(x).reshape(len(x), -1), axis=1, out=y), x.shape


@operation
def sample_sum_backward(dy: Any, saved: Any) -> np.ndarray:
    """dx_n = dy_n everywhere.   dy (N,)."""
    dx = empty(saved)
    np.copyto(dx, _like(dy, dx))
    return dx


@operation
def repeat(x: np.ndarray, times: int) -> tuple[np.ndarray, Any]:
    """y[n times + k] = x[n]: each sample so often, one copy after another.   x (N, ...) -> y (N times, ...)."""
    shape = len(x) * times, *x.shape[1:]
    y = empty(shape) if x.dtype == np.float32 else graph_input(np.empty(shape, x.dtype))
    np.copyto(y.reshape(len(x), times, *x.shape[1:]), x[:, None])
    return y, times


@operation
def repeat_backward(dy: np.ndarray, saved: Any) -> np.ndarray:
    """dx[n] = the sum of dy over the copies of x[n]."""
    dx = empty((len(dy) // saved, *dy.shape[1:]))
    return np.add.reduce(contiguous(dy).reshape(len(dx), saved, *dy.shape[1:]), axis=1, out=dx)


@operation
def cumulative_sum(x: np.ndarray) -> tuple[np.ndarray, Any]:
    """y_k = x_0 + ... + x_k, added in float64 and rounded once.   x (K,) -> y (K,)."""
    assert x.ndim == 1, f"cumulative_sum: expected (K,), got {x.shape}"
    y = empty(x.shape)
    call(_cumulative_sum, x, y)
    return y, None


@operation
def cumulative_sum_backward(dy: np.ndarray, saved: Any) -> np.ndarray:
    """dx_k = dy_k + ... + dy_{K-1}.

    x has no samples, so dy is the sum over all shards of a pass: in training each shard takes a pass of its own.
    """
    gradient_of_sum()
    dx = empty(dy.shape)
    call(_cumulative_sum, dy[::-1], dx[::-1])
    return dx


def _cumulative_sum(x: np.ndarray, y: np.ndarray) -> None:
    y[...] = np.cumsum(x, dtype=np.float64)


@operation
def concat(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, Any]:
    """y = [a, b] along the last axis.   a (..., A), b (..., B) -> y (..., A + B)."""
    return _join(a, b), a.shape[-1]


@operation
def concat_backward(dy: np.ndarray, saved: Any) -> tuple[np.ndarray, np.ndarray]:
    """da and db are the parts of dy, where they lie."""
    return dy[..., :saved], dy[..., saved:]


@operation
def split(x: np.ndarray, parts: int) -> tuple[tuple[np.ndarray, ...], Any]:
    """x cut into equal parts along the last axis.   x (..., parts C) -> parts times (..., C)."""
    c = x.shape[-1] // parts
    assert parts * c == x.shape[-1], f"split: {x.shape[-1]} channels do not divide into {parts} parts"
    return tuple(x[..., i * c : (i + 1) * c] for i in range(parts)), None


@operation
def split_backward(dys: tuple[np.ndarray, ...], saved: Any) -> np.ndarray:
    """dx joins the gradients of the parts: as they lie where `attention_backward` has put them side by side."""
    base, c = dys[0].base, dys[0].shape[-1]
    if isinstance(base, np.ndarray) and base.shape == (*dys[0].shape[:-1], len(dys) * c) and base.dtype == np.float32:
        start = base.ctypes.data
        whole = all(
            dy.base is base and dy.shape[-1] == c and dy.strides == base.strides and dy.ctypes.data == start + 4 * i * c
            for i, dy in enumerate(dys)
        )
        if whole:
            return base
    return _join(*dys)


def _join(*arrays: np.ndarray) -> np.ndarray:
    first = arrays[0]
    y = empty((*first.shape[:-1], sum(a.shape[-1] for a in arrays)))
    return np.concatenate(arrays, axis=-1, out=y)


@operation
def reshape(x: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, Any]:
    """The same values in another shape: where they lie, or, of a part of a split, copied side by side first."""
    return contiguous(x).reshape(shape), x.shape


@operation
def reshape_backward(dy: np.ndarray, saved: Any) -> np.ndarray:
    """dx has the shape that x had."""
    return dy.reshape(saved)


@operation
def accumulate(*dys: np.ndarray) -> np.ndarray:
    """dx of a value that several operations used: the sum of their gradients."""
    dx = empty(dys[0].shape)
    if len(dys) == 1:
        np.copyto(dx, dys[0])
    else:
        np.add(dys[0], dys[1], out=dx)
    for dy in dys[2:]:
        dx += dy
    return dx
