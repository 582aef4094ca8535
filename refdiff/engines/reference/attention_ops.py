"""Softmax and scaled dot-product attention with many heads [Attention], self and cross."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["attention", "attention_backward", "softmax", "softmax_backward"]


def softmax(x: np.ndarray) -> tuple[np.ndarray, Any]:
    """y_i = exp(x_i) / sum_j exp(x_j) over the last axis, shifted by the largest x so that nothing overflows."""
    e = np.exp(x - x.real.max(axis=-1, keepdims=True))
    y = e / e.sum(axis=-1, keepdims=True)
    return y, y


def softmax_backward(dy: np.ndarray, saved: Any) -> np.ndarray:
    """dx = y (dy - sum_j dy_j y_j)."""
    y = saved
    return y * (dy - (dy * y).sum(axis=-1, keepdims=True))


def attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, heads: int = 1) -> tuple[np.ndarray, Any]:
    """y = softmax(q k^T / sqrt(d)) v in each head of d = C / heads channels.   [Attention] eq. 1

    q (N, S, C); k and v (N, L, C), from the same sequence (self) or another (cross) -> y (N, S, C).
    """
    assert q.shape[-1] % heads == 0, f"attention: {q.shape[-1]} channels do not divide into {heads} heads"
    q, k, v = (_split_heads(a, heads) for a in (q, k, v))
    scale = q.shape[-1] ** -0.5
    p, _ = softmax(scale * (q @ k.swapaxes(-1, -2)))
    return _join_heads(p @ v), (q, k, v, p)


def attention_backward(dy: np.ndarray, saved: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """With y = p v, p = softmax(z), z = q k^T / sqrt(d):

    dv = p^T dy,  dp = dy v^T,  dz = softmax_backward(dp),  dq = dz k / sqrt(d),  dk = dz^T q / sqrt(d).
    """
    q, k, v, p = saved
    scale = q.shape[-1] ** -0.5
    dy = _split_heads(dy, q.shape[1])
    dv = p.swapaxes(-1, -2) @ dy
    dz = scale * softmax_backward(dy @ v.swapaxes(-1, -2), p)
    return _join_heads(dz @ k), _join_heads(dz.swapaxes(-1, -2) @ q), _join_heads(dv)


def _split_heads(x: np.ndarray, heads: int) -> np.ndarray:
    """(N, S, C) -> (N, heads, S, C / heads)."""
    return x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)


def _join_heads(x: np.ndarray) -> np.ndarray:
    """(N, heads, S, d) -> (N, S, heads d)."""
    return x.swapaxes(1, 2).reshape(x.shape[0], x.shape[2], -1)
