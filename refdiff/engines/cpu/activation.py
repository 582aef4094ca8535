"""SiLU by the tanh of half its argument; ReLU; exp(x) - 1; GELU and softplus as the reference has them."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import reference
from .elementwise import by_rows
from .runtime.memory import empty, scratch
from .runtime.profiler import operation
from .runtime.traced_array import call

__all__ = [
    "expm1", "expm1_backward", "gelu", "gelu_backward", "gelu_tanh", "gelu_tanh_backward", "relu", "relu_backward",
    "silu", "silu_backward", "softplus", "softplus_backward",
]  # fmt: skip

gelu, gelu_backward = operation(reference.gelu), operation(reference.gelu_backward)
gelu_tanh, gelu_tanh_backward = operation(reference.gelu_tanh), operation(reference.gelu_tanh_backward)


@operation
def silu(x: np.ndarray) -> tuple[np.ndarray, Any]:
    """y = u + u tanh(u), u = x / 2: it cannot overflow.   [SiLU]"""
    y = empty(x.shape)

    def task(x: np.ndarray, y: np.ndarray) -> None:
        u, t = scratch("u", *x.shape), y
        np.multiply(x, np.float32(0.5), out=u)
        np.tanh(u, out=t)
        t += np.float32(1)
        t *= u

    by_rows(task, x, y)
    return y, x


@operation
def silu_backward(dy: np.ndarray, saved: Any) -> np.ndarray:
    """dy/dx = (1 + t) (1 + u (1 - t)) / 2, t = tanh(u), u = x / 2."""
    x = saved
    dx = empty(dy.shape)

    def task(dy: np.ndarray, x: np.ndarray, dx: np.ndarray) -> None:
        u, t = scratch("u", *x.shape), scratch("t", *x.shape)
        np.multiply(x, np.float32(0.5), out=u)
        np.tanh(u, out=t)
        times_slope(dy, u, t, dx)
        dx *= np.float32(0.5)

    by_rows(task, dy, x, dx)
    return dx


@operation
def relu(x: np.ndarray) -> tuple[np.ndarray, Any]:
    """y = x where x > 0, else 0. NaN stays NaN."""
    y = empty(x.shape)
    by_rows(lambda x, y: np.maximum(x, np.float32(0), out=y), x, y)
    return y, y


@operation
def relu_backward(dy: np.ndarray, saved: Any) -> np.ndarray:
    """dx = dy where y > 0, else 0."""
    y, dx = saved, empty(dy.shape)
    by_rows(lambda dy, y, dx: call(_where_positive, dy, y, dx), dy, y, dx)
    return dx


def _where_positive(dy: np.ndarray, y: np.ndarray, dx: np.ndarray) -> None:
    np.copyto(dx, dy)
    np.copyto(dx, np.float32(0), where=y <= 0)


@operation
def softplus(x: np.ndarray) -> tuple[np.ndarray, Any]:
    """y = log(1 + exp(x)) = max(x, 0) + log1p(exp(-|x|)), which cannot overflow; -softplus(-x) = log sigmoid(x)."""
    y = empty(x.shape)
    by_rows(lambda x, y: call(_softplus, x, y), x, y)
    return y, x


def _softplus(x: np.ndarray, y: np.ndarray) -> None:
    y[...], _ = reference.softplus(x)


@operation
def softplus_backward(dy: np.ndarray, saved: Any) -> np.ndarray:
    """dy/dx = sigmoid(x)."""
    x, dx = saved, empty(dy.shape)
    by_rows(lambda dy, x, dx: call(_softplus_backward, dy, x, dx), dy, x, dx)
    return dx


def _softplus_backward(dy: np.ndarray, x: np.ndarray, dx: np.ndarray) -> None:
    dx[...] = reference.softplus_backward(dy, x)


@operation
def expm1(x: np.ndarray) -> tuple[np.ndarray, Any]:
    """y = exp(x) - 1, small values with all their digits."""
    y = empty(x.shape)
    np.expm1(x, out=y)
    return y, y


@operation
def expm1_backward(dy: np.ndarray, saved: Any) -> np.ndarray:
    """dy/dx = y + 1."""
    y, dx = saved, empty(dy.shape)
    np.add(y, np.float32(1), out=dx)
    dx *= dy
    return dx


def times_slope(dy: np.ndarray, u: np.ndarray, t: np.ndarray, out: np.ndarray) -> None:
    """out = dy (1 + t) (1 + u (1 - t)): twice the gradient of silu at 2 u, t = tanh(u), which is overwritten."""
    np.subtract(np.float32(1), t, out=out)
    out *= u
    out += np.float32(1)
    t += np.float32(1)
    out *= t
    out *= dy
