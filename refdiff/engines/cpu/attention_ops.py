"""Softmax and scaled dot-product attention: some samples at a time, products of the arrays as they lie."""

from __future__ import annotations

from typing import Any

import numpy as np

from .elementwise import over_samples
from .products import times_column
from .runtime.memory import empty, scratch
from .runtime.profiler import operation
from .runtime.thread_pool import parallel_for

__all__ = ["attention", "attention_backward", "softmax", "softmax_backward"]

_PART = 1 << 17  # scores of a task, about


def _softmax(x: np.ndarray, y: np.ndarray) -> None:
    """Rows of x (..., C) into y; the two may be the same."""
    np.subtract(x, x.max(axis=-1, keepdims=True), out=y)
    np.exp(y, out=y)
    y /= times_column(y, np.ones((y.shape[-1], 1), np.float32))


def _softmax_backward(dy: np.ndarray, y: np.ndarray, dx: np.ndarray) -> None:
    """dx = y (dy - sum_j dy_j y_j), rows of (..., C); dx may be dy."""
    product = np.multiply(dy, y, out=scratch("softmax", *y.shape))
    np.subtract(dy, times_column(product, np.ones((y.shape[-1], 1), np.float32)), out=dx)
    dx *= y


@operation
def softmax(x: np.ndarray) -> tuple[np.ndarray, Any]:
    """y_i = exp(x_i) / sum_j exp(x_j) over the last axis, shifted by the largest x so that nothing overflows."""
    y = empty(x.shape)
    x_rows, y_rows = x.reshape(-1, x.shape[-1]), y.reshape(-1, x.shape[-1])
    over_samples(x.shape, lambda rows: _softmax(x_rows[rows], y_rows[rows]))
    return y, y


@operation
def softmax_backward(dy: np.ndarray, saved: Any) -> np.ndarray:
    """dx = y (dy - sum_j dy_j y_j)."""
    y = saved
    dx = empty(y.shape)
    dy_rows, y_rows, dx_rows = (a.reshape(-1, y.shape[-1]) for a in (dy, y, dx))
    over_samples(y.shape, lambda rows: _softmax_backward(dy_rows[rows], y_rows[rows], dx_rows[rows]))
    return dx


def _heads(x: np.ndarray, heads: int) -> np.ndarray:
    """(N, S, C) -> (N, heads, S, C / heads), the same memory."""
    return x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)


def _by_samples(n: int, size: int, task: Any) -> None:
    """task(samples i .. j) over all of them, as many in a task as make some 512 kB of scores."""
    together = max(1, min(n, _PART // max(1, size)))
    parallel_for(-(-n // together), lambda i: task(slice(i * together, min((i + 1) * together, n))))


@operation
def attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, heads: int = 1) -> tuple[np.ndarray, Any]:
    """y = softmax(q k^T / sqrt(d)) v in each head of d = C / heads channels.   [Attention] eq. 1"""
    assert q.shape[-1] % heads == 0, f"attention: {q.shape[-1]} channels do not divide into {heads} heads"
    (n, s, c), length = q.shape, k.shape[1]
    y, p = empty(q.shape), empty((n, heads, s, length))
    qs, ks, vs, ys = (_heads(a, heads) for a in (q, k, v, y))
    scale = np.float32((c // heads) ** -0.5)

    def task(samples: slice) -> None:
        z = p[samples]
        np.matmul(qs[samples], ks[samples].swapaxes(2, 3), out=z)
        z *= scale
        _softmax(z, z)
        np.matmul(z, vs[samples], out=ys[samples])

    _by_samples(n, heads * s * length, task)
    return y, (q, k, v, p)


@operation
def attention_backward(dy: np.ndarray, saved: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """dv = p^T dy,  dz = softmax_backward(dy v^T),  dq = dz k / sqrt(d),  dk = dz^T q / sqrt(d).

    The three lie side by side in one array (self-attention), so that joining them again copies nothing.
    """
    q, k, v, p = saved
    (n, s, c), heads, length = q.shape, p.shape[1], k.shape[1]
    if s == length:
        joined = empty((n, s, 3 * c))
        dq, dk, dv = joined[..., :c], joined[..., c : 2 * c], joined[..., 2 * c :]
    else:
        dq, dk, dv = empty(q.shape), empty(k.shape), empty(v.shape)
    qs, ks, vs, dys, dqs, dks, dvs = (_heads(a, heads) for a in (q, k, v, dy, dq, dk, dv))
    scale = np.float32((c // heads) ** -0.5)

    def task(samples: slice) -> None:
        z = p[samples]
        np.matmul(z.swapaxes(2, 3), dys[samples], out=dvs[samples])
        dz = np.matmul(dys[samples], vs[samples].swapaxes(2, 3), out=scratch("dz", *z.shape))
        _softmax_backward(dz, z, dz)
        dz *= scale
        np.matmul(dz, ks[samples], out=dqs[samples])
        np.matmul(dz.swapaxes(2, 3), qs[samples], out=dks[samples])

    _by_samples(n, heads * s * length, task)
    return dq, dk, dv
