"""Twice the size by repetition, half the size by averaging, any size by two products, and the mean of all positions."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from .. import reference
from .elementwise import over_rows
from .runtime.memory import contiguous, empty, scratch
from .runtime.profiler import operation

__all__ = [
    "average_pool", "average_pool_backward", "global_average_pool", "global_average_pool_backward", "resize_bilinear",
    "resize_bilinear_backward", "upsample_nearest", "upsample_nearest_backward",
]  # fmt: skip


def _blocks(x: np.ndarray) -> np.ndarray:
    """(N, H, W, C) -> (N H/2, 2, W/2, 2, C)."""
    n, h, w, c = x.shape
    assert h % 2 == w % 2 == 0, f"resampling by two needs even sizes, got {h}x{w}"
    return x.reshape(n * h // 2, 2, w // 2, 2, c)


def _repeat(x: np.ndarray, scale: float) -> np.ndarray:
    n, h, w, c = x.shape
    y = empty((n, 2 * h, 2 * w, c))
    rows, out = x.reshape(n * h, w, 1, c), _blocks(y)

    def task(chunk: slice) -> None:
        if scale == 1:
            out[chunk, 0] = rows[chunk]
        else:
            np.multiply(rows[chunk], np.float32(scale), out=out[chunk, 0])
        out[chunk, 1] = out[chunk, 0]

    over_rows(n * h, 4 * w * c, task)
    return y


def _sum(y: np.ndarray, scale: float) -> np.ndarray:
    blocks = _blocks(y)
    n, h, w, c = y.shape
    x = empty((n, h // 2, w // 2, c))
    out = x.reshape(-1, w // 2, c)

    def task(chunk: slice) -> None:
        part, pairs = blocks[chunk], scratch("u", *out[chunk].shape[:2], 2, c)
        np.add(part[:, 0], part[:, 1], out=pairs)
        np.add(pairs[:, :, 0], pairs[:, :, 1], out=out[chunk])
        if scale != 1:
            out[chunk] *= np.float32(scale)

    over_rows(len(out), 2 * w * c, task)
    return x


@operation
def upsample_nearest(x: np.ndarray) -> tuple[np.ndarray, Any]:
    """Each pixel becomes a block of 2x2.   x (N, H, W, C) -> y (N, 2H, 2W, C)."""
    return _repeat(x, 1), None


@operation
def upsample_nearest_backward(dy: np.ndarray, saved: Any) -> np.ndarray:
    """dx sums each block of 2x2."""
    return _sum(dy, 1)


@operation
def average_pool(x: np.ndarray) -> tuple[np.ndarray, Any]:
    """The mean of each block of 2x2.   x (N, H, W, C), H and W even -> y (N, H/2, W/2, C)."""
    return _sum(x, 0.25), None


@operation
def average_pool_backward(dy: np.ndarray, saved: Any) -> np.ndarray:
    """dx spreads a quarter of dy over each block."""
    return _repeat(dy, 0.25)


@operation
def global_average_pool(x: np.ndarray) -> tuple[np.ndarray, Any]:
    """The mean over all positions, a product with 1 / positions.   x (N, ..., C) -> y (N, C)."""
    rows, y = x.reshape(len(x), -1, x.shape[-1]), empty((len(x), x.shape[-1]))
    np.matmul(_average(rows.shape[1]), rows, out=y[:, None])
    return y, x.shape


@operation
def global_average_pool_backward(dy: np.ndarray, saved: Any) -> np.ndarray:
    """dx = dy / positions at each of them."""
    dx = empty(saved)
    rows = dx.reshape(len(dy), -1, dy.shape[-1])
    np.multiply(dy[:, None], np.float32(1 / rows.shape[1]), out=rows)
    return dx


@operation
def resize_bilinear(x: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, Any]:
    """y = A x B^T, the matrices those of the reference: x's rows first, each a product, then all columns of an image in one.

    x (N, H, W, C) -> y (N, *size, C).
    """
    (n, h, w, c), (rows, columns) = x.shape, size
    a, b = _interpolation((h, w), (rows, columns))
    wide, y = empty((n, h, columns, c)), empty((n, rows, columns, c))
    np.matmul(b, x, out=wide)
    np.matmul(a, wide.reshape(n, h, columns * c), out=y.reshape(n, rows, columns * c))
    return y, (a, b)


@operation
def resize_bilinear_backward(dy: np.ndarray, saved: Any) -> np.ndarray:
    """dx = A^T dy B."""
    (a, b), (n, rows, columns, c), dy = saved, dy.shape, contiguous(dy)
    h, w = a.shape[1], b.shape[1]
    wide, dx = empty((n, h, columns, c)), empty((n, h, w, c))
    np.matmul(a.T, dy.reshape(n, rows, columns * c), out=wide.reshape(n, h, columns * c))
    np.matmul(b.T, wide, out=dx)
    return dx


@lru_cache(maxsize=64)
def _average(count: int) -> np.ndarray:
    return np.full((1, count), 1 / count, np.float32)


@lru_cache(maxsize=64)
def _interpolation(before: tuple[int, int], after: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A and B: what the reference keeps of an image of this size."""
    _, (a, b) = reference.resize_bilinear(np.zeros((1, *before, 1), np.float32), after)
    return a, b
