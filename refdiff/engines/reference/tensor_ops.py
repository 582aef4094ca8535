"""Sums, multiples, joins, splits, shapes, fan-out and dropout."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from ...random import Sequence, uniform

__all__ = [
    "accumulate", "add", "add_backward", "add_positions", "add_positions_backward", "array", "broadcast_add",
    "broadcast_add_backward", "concat", "concat_backward", "dropout", "dropout_backward", "host", "reshape",
    "reshape_backward", "scale", "scale_backward", "split", "split_backward",
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
        dx += dy
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
