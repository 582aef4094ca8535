"""Convolution of few pixels, where reading the weights is what takes time: a product for each tap of the filter.

The weights are read once, where they lie, for all shards of a batch. A tap takes the pixels (M, C) that it sees, M pixels
that come out, to (M, K); y is the sum over taps. The other way a tap gives (C, M), for its weights stay the left factor,
and what all taps give is added up where they saw it by one product with a matrix of zeros and ones.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from .products import product
from .runtime.memory import scratch
from .runtime.thread_pool import parallel_for

__all__ = ["forward", "gradient_weight", "gradient_x"]


def _seen(x: np.ndarray, y: tuple[int, ...], kh: int, kw: int, stride: int, padding: tuple[int, int]) -> np.ndarray:
    """The pixels that each tap sees.   x (N, H, W, C), y the shape (N, h, w, K) -> (kh kw, N h w, C), working space."""
    n, h, w, c = x.shape
    before, around = padding[0], sum(padding)
    image = scratch("image", n, h + around, w + around, c)
    image[...] = 0
    image[:, before : before + h, before : before + w] = x
    of_image, row, pixel, _ = image.strides
    shape, steps = (kh, kw, *y[:3], c), (row, pixel, of_image, stride * row, stride * pixel, 4)
    seen = scratch("windows", *shape)
    np.copyto(seen, np.ndarray(shape, np.float32, image, 0, steps))
    return seen.reshape(kh * kw, -1, c)


def forward(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray,
    stride: int,
    padding: tuple[int, int],
    y: np.ndarray,
    shards: list[slice],
) -> None:
    """y = sum over taps of seen_t W_t + b.   x (N, H, W, C) -> into y (N, h, w, K)."""
    kh, kw, c, k = weight.shape
    w, seen = weight.reshape(-1, c, k), _seen(x, y.shape, kh, kw, stride, padding)
    products, pixels = scratch("products0", len(w), y.size // k, k), y.shape[1] * y.shape[2]

    def task(i: int) -> None:
        taps = slice(i * kw, (i + 1) * kw)
        for shard in shards:
            rows = slice(shard.start * pixels, shard.stop * pixels)
            product(seen[taps, rows], w[taps], products[taps, rows])

    parallel_for(kh, task)
    np.add.reduce(products, axis=0, out=y.reshape(-1, k))
    y += bias


@lru_cache(maxsize=64)
def _back(
    x: tuple[int, ...], y: tuple[int, ...], kh: int, kw: int, stride: int, padding: tuple[int, int]
) -> np.ndarray:
    """1 where a pixel of an image x is the one that a tap saw for a pixel of y.   shapes (H, W), (h, w)
    -> (H W, kh kw h w)"""
    row, column = (
        stride * np.arange(size) + np.arange(taps)[:, None] - padding[0] == np.arange(whole)[:, None, None]
        for size, taps, whole in zip(y, (kh, kw), x, strict=True)
    )
    seen = np.einsum("HiO,WjP->HWijOP", row.astype(np.float32), column.astype(np.float32))
    return seen.reshape(x[0] * x[1], -1)


def gradient_x(
    dy: np.ndarray, weight: np.ndarray, stride: int, padding: tuple[int, int], dx: np.ndarray, shards: list[slice]
) -> None:
    """Each tap's gradient W_t dy' is added where the tap saw it.   dy (N, h, w, K) -> into dx (N, H, W, C)."""
    kh, kw, c, k = weight.shape
    w, each_tap = weight.reshape(-1, c, k), []
    for i, shard in enumerate(shards):
        dy_rows = dy[shard].reshape(-1, k)
        dy_columns = scratch(f"dy_columns{i}", k, len(dy_rows))
        np.copyto(dy_columns, dy_rows.T)
        each_tap.append(
            (np.broadcast_to(dy_columns, (kw, *dy_columns.shape)), scratch(f"products{i}", c, kh * kw, len(dy_rows)))
        )

    def task(i: int) -> None:
        taps = slice(i * kw, (i + 1) * kw)
        for dy_columns, products in each_tap:
            product(w[taps], dy_columns, products.swapaxes(0, 1)[taps])

    parallel_for(kh, task)
    back = _back(dx.shape[1:3], dy.shape[1:3], kh, kw, stride, padding)
    for shard, (_, products) in zip(shards, each_tap, strict=True):
        images = dx[shard].reshape(shard.stop - shard.start, -1, c)
        by_image = products.reshape(c, kh * kw, len(images), -1)
        image_taps = scratch("windows", c, kh * kw, by_image.shape[3])
        for i, image in enumerate(images):
            np.copyto(image_taps, by_image[:, :, i])
            np.matmul(back, image_taps.reshape(c, -1).T, out=image)


def gradient_weight(
    x: np.ndarray,
    dy: np.ndarray,
    stride: int,
    padding: tuple[int, int],
    shards: list[slice],
    into: list[tuple[np.ndarray, bool]],
) -> None:
    """dW_t = seen_t' dy of each shard.   x (N, H, W, C), dy (N, h, w, K) -> into[shard]: an array (kh, kw, C, K), and
    whether dW is added to it."""
    kh, kw, c, k = into[0][0].shape
    seen, dy_rows = _seen(x, dy.shape, kh, kw, stride, padding).swapaxes(1, 2), dy.reshape(-1, k)
    pixels = dy.shape[1] * dy.shape[2]

    def task(i: int) -> None:
        taps = slice(i * kw, (i + 1) * kw)
        for shard, (dweight, add) in zip(shards, into, strict=True):
            rows, dw = slice(shard.start * pixels, shard.stop * pixels), dweight.reshape(-1, c, k)
            out = scratch("product", kw, c, k) if add else dw[taps]
            np.matmul(seen[taps, :, rows], dy_rows[rows], out=out)
            if add:
                dw[taps] += out

    parallel_for(kh, task)
