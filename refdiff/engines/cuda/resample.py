"""Twice the size by repetition, half the size by averaging, any size by bilinear interpolation: kernels/resample.cu, one
launch each way. And the mean of all positions."""

from __future__ import annotations

from math import prod
from typing import Any

from .position_ops import spread_over_positions, sum_over_positions
from .runtime.context import ITEMSIZE, THREADS, Array, blocks
from .structs import struct
from .tensor_ops import dense

__all__ = [
    "average_pool", "average_pool_backward", "global_average_pool", "global_average_pool_backward", "resize_bilinear",
    "resize_bilinear_backward", "upsample_nearest", "upsample_nearest_backward",
]  # fmt: skip

Resize = struct("resample.cu", "Resize")


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


def global_average_pool(x: Array) -> tuple[Array, Any]:
    """The mean over all positions.   x (N, ..., C) -> y (N, C)."""
    return sum_over_positions(x, 1 / prod(x.shape[1:-1])), x.shape


def global_average_pool_backward(dy: Array, saved: Any) -> Array:
    """dx = dy / positions at each of them."""
    return spread_over_positions(dy, saved, 1 / prod(saved[1:-1]))


def resize_bilinear(x: Array, size: tuple[int, int]) -> tuple[Array, Any]:
    """Pixels are squares whose centres are compared, linear between neighbours, held within the first and the last.

    x (N, H, W, C) -> y (N, *size, C).
    """
    y = x.context.empty((len(x), *size, x.shape[-1]), x.dtype)
    _resize("resize_bilinear", x, y, x, y)
    return y, x.shape


def resize_bilinear_backward(dy: Array, saved: Any) -> Array:
    """dx gathers each dy from where it was read, with the same weights."""
    dx = dy.context.empty(saved, dy.dtype)
    _resize("resize_bilinear_backward", dy, dx, dx, dy)
    return dx


def _resize(name: str, given: Array, out: Array, x: Array, y: Array) -> None:
    (_, h, w, c), (_, rows, columns, _), pack = x.shape, y.shape, 16 // ITEMSIZE[x.dtype]
    sizes = max(h, w), max(rows, columns)
    assert 4 * sizes[0] * sizes[1] < 1 << 31, f"resize_bilinear: {h}x{w} to {rows}x{columns} does not fit 32 bits"
    of = Resize(H=h, W=w, rows=rows, columns=columns, C=c, n=out.size)
    grid = blocks(out.size, THREADS * (pack if c % pack == 0 else 1))
    out.context.launch("resample.cu", name, grid, THREADS, dense(given), out, of, dtype=out.dtype)


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
