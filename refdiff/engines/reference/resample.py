"""Images in other sizes: twice by repetition, half by averaging, which are each other's adjoints up to a factor of 4; any
size by bilinear interpolation; and one number a channel."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

__all__ = [
    "average_pool", "average_pool_backward", "global_average_pool", "global_average_pool_backward", "resize_bilinear",
    "resize_bilinear_backward", "upsample_nearest", "upsample_nearest_backward",
]  # fmt: skip


def upsample_nearest(x: np.ndarray) -> tuple[np.ndarray, Any]:
    """Each pixel becomes a block of 2x2.   x (N, H, W, C) -> y (N, 2H, 2W, C)."""
    return x.repeat(2, axis=1).repeat(2, axis=2), None


def upsample_nearest_backward(dy: np.ndarray, saved: Any) -> np.ndarray:
    """dx sums each block of 2x2."""
    return _blocks(dy).sum(axis=(2, 4))


def average_pool(x: np.ndarray) -> tuple[np.ndarray, Any]:
    """The mean of each block of 2x2.   x (N, H, W, C), H and W even -> y (N, H/2, W/2, C)."""
    return _blocks(x).mean(axis=(2, 4)), None


def average_pool_backward(dy: np.ndarray, saved: Any) -> np.ndarray:
    """dx spreads a quarter of dy over each block."""
    return 0.25 * dy.repeat(2, axis=1).repeat(2, axis=2)


def global_average_pool(x: np.ndarray) -> tuple[np.ndarray, Any]:
    """The mean over all positions.   x (N, ..., C) -> y (N, C)."""
    return x.reshape(len(x), -1, x.shape[-1]).mean(axis=1), x.shape


def global_average_pool_backward(dy: np.ndarray, saved: Any) -> np.ndarray:
    """dx = dy / positions at each of them."""
    n, *positions, c = saved
    return np.broadcast_to(dy.reshape(n, *[1] * len(positions), c) / math.prod(positions), saved).copy()


def resize_bilinear(x: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, Any]:
    """y = A x B^T, the columns by A, the rows by B, of `_interpolation`: pixels are squares whose centres are compared
    (align_corners=False).   x (N, H, W, C) -> y (N, *size, C)."""
    (_, h, w, _), (rows, columns) = x.shape, size
    a, b = _interpolation(h, rows).astype(x.real.dtype), _interpolation(w, columns).astype(x.real.dtype)
    return b @ (a @ x.swapaxes(1, 2)).swapaxes(1, 2), (a, b)


def resize_bilinear_backward(dy: np.ndarray, saved: Any) -> np.ndarray:
    """dx = A^T dy B."""
    a, b = saved
    return b.T @ (a.T @ dy.swapaxes(1, 2)).swapaxes(1, 2)


def _interpolation(small: int, large: int) -> np.ndarray:
    """Rows that interpolate linearly between neighbours: place i of `large` lies at (i + 1/2) small / large - 1/2, held
    within the first and the last.   -> (large, small) float64"""
    place = np.clip((np.arange(large) + 0.5) * small / large - 0.5, 0, small - 1)
    return np.maximum(0.0, 1 - np.abs(place[:, None] - np.arange(small)))


def _blocks(x: np.ndarray) -> np.ndarray:
    """(N, H, W, C) -> (N, H/2, 2, W/2, 2, C)."""
    n, h, w, c = x.shape
    assert h % 2 == w % 2 == 0, f"resampling by two needs even sizes, got {h}x{w}"
    return x.reshape(n, h // 2, 2, w // 2, 2, c)
