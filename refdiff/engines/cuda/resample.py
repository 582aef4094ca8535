"""Twice the size by repetition, half the size by averaging: kernels/resample.cu, one launch each way."""

from __future__ import annotations

from typing import Any

from .runtime.context import ITEMSIZE, THREADS, Array, blocks

__all__ = ["average_pool", "average_pool_backward", "upsample_nearest", "upsample_nearest_backward"]


def upsample_nearest(x: Array) -> tuple[Array, Any]:
    """Each pixel becomes a block of 2x2.   x (N, H, W, C) -> y (N, 2H, 2W, C)."""
    return _spread(x, 1.0), None


def upsample_nearest_backward(dy: Array, saved: Any) -> Array:
    """dx sums each block of 2x2."""
    return _gather(dy, 1.0)


def average_pool(x: Array) -> tuple[Array, Any]:
    """The mean of each block of 2x2.   x (N, H, W, C), H and W even -> y (N, H/2, W/2, C)."""
    return _gather(x, 0.25), None


def average_pool_backward(dy: Array, saved: Any) -> Array:
    """dx spreads a quarter of dy over each block."""
    return _spread(dy, 0.25)


def _spread(small: Array, factor: float) -> Array:
    """(N, H, W, C) -> (N, 2H, 2W, C), each element times factor at four places."""
    n, h, w, c = small.shape
    large = small.context.empty((n, 2 * h, 2 * w, c), small.dtype)
    _launch("spread_blocks", small, large, factor, small)
    return large


def _gather(large: Array, factor: float) -> Array:
    """(N, H, W, C) -> (N, H/2, W/2, C), the sum of each block times factor."""
    n, h, w, c = large.shape
    assert h % 2 == w % 2 == 0, f"resampling by two needs even sizes, got {h}x{w}"
    small = large.context.empty((n, h // 2, w // 2, c), large.dtype)
    _launch("gather_blocks", large, small, factor, small)
    return small


def _launch(name: str, x: Array, y: Array, factor: float, small: Array) -> None:
    assert x.dense, f"resampling: expected dense rows, got {x}"
    w, c, pack = small.shape[2], small.shape[3], 16 // ITEMSIZE[x.dtype]
    grid = blocks(small.size, THREADS * (pack if c % pack == 0 else 1))
    x.context.launch("resample.cu", name, grid, THREADS, x, y, factor, w, c, small.size, dtype=x.dtype)
