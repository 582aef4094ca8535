"""The reference engine, and operations that the engines lack as yet: forwards analytic, backwards by hand.

They come to all three engines with the systems that need them; a system that calls them here runs on the reference alone.
"""

import numpy as np

from refdiff.engines.reference import *  # noqa: F403
from refdiff.engines.reference import softmax, softmax_backward


def log_softmax(x):
    """y_i = x_i - log sum_j exp(x_j) over the last axis, shifted by the largest x."""
    z = x - x.real.max(axis=-1, keepdims=True)
    y = z - np.log(np.exp(z).sum(axis=-1, keepdims=True))
    return y, y


def log_softmax_backward(dy, saved):
    """dx = dy - exp(y) sum_j dy_j."""
    return dy - np.exp(saved) * dy.sum(axis=-1, keepdims=True)


def cross_entropy(logits, target):
    """-log softmax(logits)[target].   logits (..., K), target (...) integers -> (...)"""
    y, saved = log_softmax(logits)
    return -np.take_along_axis(y, target[..., None], -1)[..., 0], (saved, target)


def cross_entropy_backward(dy, saved):
    """dlogits = dy (softmax(logits) - 1 at the target)."""
    y, target = saved
    one = np.zeros(y.shape, y.dtype)
    np.put_along_axis(one, target[..., None], 1, -1)
    return dy[..., None] * (np.exp(y) - one)


def l2_normalise(x):
    """y = x / ||x|| over the last axis."""
    norm = np.sqrt((x * x).sum(axis=-1, keepdims=True))
    return x / norm, (x / norm, norm)


def l2_normalise_backward(dy, saved):
    """dx = (dy - y sum_j dy_j y_j) / ||x||."""
    y, norm = saved
    return (dy - y * (dy * y).sum(axis=-1, keepdims=True)) / norm


def masked_attention(q, k, v, mask):
    """softmax(q k^T / sqrt(d)) v where the mask (S, L) holds, one head.   q (N, S, d), k, v (N, L, d) -> (N, S, d)"""
    scale = q.shape[-1] ** -0.5
    p, _ = softmax(np.where(mask, scale * (q @ k.swapaxes(-1, -2)), -1e30))
    return p @ v, (q, k, v, p)


def masked_attention_backward(dy, saved):
    """dv = p^T dy,  dz = softmax_backward(dy v^T) / sqrt(d),  dq = dz k,  dk = dz^T q: p is 0 where the mask is not."""
    q, k, v, p = saved
    dz = q.shape[-1] ** -0.5 * softmax_backward(dy @ v.swapaxes(-1, -2), p)
    return dz @ k, dz.swapaxes(-1, -2) @ q, p.swapaxes(-1, -2) @ dy
