"""Twice the size by repetition, half the size by averaging."""

from __future__ import annotations

from typing import Any

import numpy as np

from .elementwise import over_rows
from .runtime.memory import empty, scratch
from .runtime.profiler import operation

__all__ = ["average_pool", "average_pool_backward", "upsample_nearest", "upsample_nearest_backward"]


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
