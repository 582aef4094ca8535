"""Twice the size by repetition, half the size by averaging. Each is, up to a factor of 4, the other's adjoint."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["average_pool", "average_pool_backward", "upsample_nearest", "upsample_nearest_backward"]


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


def _blocks(x: np.ndarray) -> np.ndarray:
    """(N, H, W, C) -> (N, H/2, 2, W/2, 2, C)."""
    n, h, w, c = x.shape
    assert h % 2 == w % 2 == 0, f"resampling by two needs even sizes, got {h}x{w}"
    return x.reshape(n, h // 2, 2, w // 2, 2, c)
