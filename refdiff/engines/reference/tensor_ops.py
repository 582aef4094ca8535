"""Sums, products, joins, splits, shapes, fan-out and dropout."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from ...random import Sequence, uniform
from .samples import column, sum_like, sums

__all__ = [
    "accumulate", "add", "add_backward", "add_positions", "add_positions_backward", "array", "broadcast_add",
    "broadcast_add_backward", "concat", "concat_backward", "cumulative_sum", "cumulative_sum_backward", "dropout",
    "dropout_backward", "host", "multiply", "multiply_backward", "repeat", "repeat_backward", "reshape",
    "reshape_backward", "sample_sum", "sample_sum_backward", "scale", "scale_backward", "split", "split_backward",
]  # fmt: skip

Gradients: TypeAlias = dict[str, np.ndarray]


def array(x: Any, dtype: Any = np.float32) -> np.ndarray:
    """x from the host as an array of this engine."""
    return np.asarray(x, dtype)


def host(x: np.ndarray) -> np.ndarray:
    """An array of this engine as NumPy's."""
    return x


def add(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, Any]:
    """y = a + b, of one shape."""
    assert a.shape == b.shape, f"add: {a.shape} and {b.shape}"
    return a + b, None


def add_backward(dy: np.ndarray, saved: Any) -> tuple[np.ndarray, np.ndarray]:
    """da = dy,  db = dy."""
    return dy.copy(), dy.copy()


def broadcast_add(x: np.ndarray, e: np.ndarray) -> tuple[np.ndarray, Any]:
    """y[n, ..., c] = x[n, ..., c] + e[n, c].   x (N, ..., C), e (N, C) -> y (N, ..., C)."""
    assert e.shape == (len(x), x.shape[-1]), f"broadcast_add: {x.shape} and {e.shape}"
    return x + e.reshape(len(e), *[1] * (x.ndim - 2), -1), None


def broadcast_add_backward(dy: np.ndarray, saved: Any) -> tuple[np.ndarray, np.ndarray]:
    """dx = dy,  de = the sum of dy over all positions."""
    return dy.copy(), dy.reshape(len(dy), -1, dy.shape[-1]).sum(axis=1)


def add_positions(x: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, Any]:
    """y[n] = x[n] + weight, what is learned of each position.   x (N, ...), weight (...) -> y (N, ...)."""
    assert weight.shape == x.shape[1:], f"add_positions: {x.shape} and {weight.shape}"
    return x + weight, None


def add_positions_backward(dy: np.ndarray, saved: Any) -> tuple[np.ndarray, Gradients]:
    """dx = dy,  dweight = the sum of dy over the samples."""
    return dy.copy(), {"weight": dy.sum(axis=0)}


def scale(x: np.ndarray, factor: float) -> tuple[np.ndarray, Any]:
    """y = factor x, the factor a number of Python."""
    return x * factor, factor


def scale_backward(dy: np.ndarray, saved: Any) -> np.ndarray:
    """dx = factor dy."""
    return dy * saved


def multiply(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, Any]:
    """y = a b.   a (N, ...), b of its shape, or one number a sample (N,) -> y (N, ...)."""
    assert b.shape in (a.shape, a.shape[:1]), f"multiply: {a.shape} and {b.shape}"
    return a * column(b, a), (a, b)


def multiply_backward(dy: np.ndarray, saved: Any) -> tuple[np.ndarray, np.ndarray]:
    """da = dy b,  db = dy a, summed over each sample where b is one number a sample."""
    a, b = saved
    return dy * column(b, a), sum_like(dy * a, b)


def sample_sum(x: np.ndarray) -> tuple[np.ndarray, Any]:
    """y_n = the sum of all elements of x_n.   x (N, ...) -> (N,)."""
    return sums(x), x.shape


def sample_sum_backward(dy: Any, saved: Any) -> np.ndarray:
    """dx_n = dy_n everywhere.   dy (N,)."""
    return np.broadcast_to(dy.reshape(-1, *[1] * (len(saved) - 1)), saved).copy()


def repeat(x: np.ndarray, times: int) -> tuple[np.ndarray, Any]:
    """y[n times + k] = x[n]: each sample so often, one copy after another.   x (N, ...) -> y (N times, ...)."""
    return np.repeat(x, times, axis=0), times


def repeat_backward(dy: np.ndarray, saved: Any) -> np.ndarray:
    """dx[n] = the sum of dy over the copies of x[n]."""
    return dy.reshape(-1, saved, *dy.shape[1:]).sum(axis=1)


def cumulative_sum(x: np.ndarray) -> tuple[np.ndarray, Any]:
    """y_k = x_0 + ... + x_k.   x (K,) -> y (K,)."""
    assert x.ndim == 1, f"cumulative_sum: expected (K,), got {x.shape}"
    return np.cumsum(x), None


def cumulative_sum_backward(dy: np.ndarray, saved: Any) -> np.ndarray:
    """dx_k = dy_k + ... + dy_{K-1}."""
    return np.cumsum(dy[::-1])[::-1].copy()


def concat(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, Any]:
    """y = [a, b] along the last axis.   a (..., A), b (..., B) -> y (..., A + B)."""
    return np.concatenate([a, b], axis=-1), a.shape[-1]


def concat_backward(dy: np.ndarray, saved: Any) -> tuple[np.ndarray, np.ndarray]:
    """da and db are the parts of dy."""
    return dy[..., :saved].copy(), dy[..., saved:].copy()


def split(x: np.ndarray, parts: int) -> tuple[tuple[np.ndarray, ...], Any]:
    """x cut into equal parts along the last axis.   x (..., parts C) -> parts times (..., C)."""
    return tuple(np.split(x, parts, axis=-1)), None


def split_backward(dys: tuple[np.ndarray, ...], saved: Any) -> np.ndarray:
    """dx joins the gradients of the parts."""
    return np.concatenate(dys, axis=-1)


def reshape(x: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, Any]:
    """The same values in another shape."""
    return x.reshape(shape), x.shape


def reshape_backward(dy: np.ndarray, saved: Any) -> np.ndarray:
    """dx has the shape that x had."""
    return dy.reshape(saved).copy()


def accumulate(*dys: np.ndarray) -> np.ndarray:
    """dx of a value that several operations used: the sum of their gradients."""
    dx = dys[0].copy()
    for dy in dys[1:]:
        dx = dx + dy
    return dx


def dropout(x: np.ndarray, rate: float, key: Sequence) -> tuple[np.ndarray, Any]:
    """y = x m / (1 - rate), m = 1 where a uniform number of `key` and the sample's place exceeds rate, else 0. [Dropout]

    x (N, ...), 0 <= rate < 1 -> y (N, ...). The same key drops the same elements.
    """
    assert 0 <= rate < 1, f"dropout: expected a rate in [0, 1), got {rate}"
    keep = uniform(key, np.arange(len(x)), x.shape[1:]) > rate
    mask = keep.astype(x.real.dtype) * (1 / (1 - rate))
    return x * mask, mask


def dropout_backward(dy: np.ndarray, saved: Any) -> np.ndarray:
    """dx = dy m / (1 - rate)."""
    mask = saved
    return dy * mask
