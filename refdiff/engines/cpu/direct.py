"""Convolutions as one matrix product: of gathered windows (columns), or into planes that are then shifted and added.

Columns take any filter, stride and padding. Planes serve a 3x3 filter that leaves few channels: nothing is gathered, the
product x W has 9 small results for each pixel, and each is added where it belongs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .runtime.memory import contiguous, empty, scratch
from .runtime.shards import shard_rows, tree_sum
from .runtime.thread_pool import parallel_for

__all__ = ["columns_forward", "columns_gradient_x", "columns_gradients_weight", "flip", "output", "planes", "sum_rows"]

_CACHED = 1 << 21  # bytes of gathered windows at a time
_WORK = 1 << 24  # multiplications; fewer are not worth dividing
_ROWS = 4096  # of a sum at a time
_ONES = np.ones(1 << 12, np.float32)


def _bands(n: int, rows: int, size: int) -> list[tuple[int, int, int, int]]:
    """(first image, end, first row, end) of about _CACHED bytes each, size of them in a row: images, or rows of one."""
    most = max(1, _CACHED // size)
    if rows > most:
        return [(i, i + 1, r, min(r + most, rows)) for i in range(n) for r in range(0, rows, most)]
    images = max(1, min(most // rows, n))
    return [(i, min(i + images, n), 0, rows) for i in range(0, n, images)]


def output(shape: tuple[int, ...], weight: tuple[int, ...], stride: int, padding: tuple[int, int]) -> tuple[int, ...]:
    """The shape of y."""
    (n, *sides, _), (*filters, _, k) = shape, weight
    return n, *((side + sum(padding) - size) // stride + 1 for side, size in zip(sides, filters, strict=True)), k


def _windows(
    x: np.ndarray, band: tuple[int, int, int, int], width: int, kh: int, kw: int, stride: int, before: int
) -> np.ndarray:
    """The windows of a band of output rows.   -> (images * rows * width, kh * kw * C), working space."""
    n0, n1, r0, r1 = band
    _, h, w, c = x.shape
    rows, across = stride * (r1 - r0 - 1) + kh, stride * (width - 1) + kw
    top = stride * r0 - before
    first, last = max(top, 0), max(top, min(top + rows, h))
    right = min(across - before, w)
    padded = scratch("image", n1 - n0, rows, across, c)
    padded[:, : first - top] = 0
    padded[:, max(last - top, 0) :] = 0
    padded[:, :, :before] = 0
    padded[:, :, before + right :] = 0
    padded[:, first - top : last - top, before : before + right] = x[n0:n1, first:last, :right]
    out = scratch("windows", n1 - n0, r1 - r0, width, kh, kw * c)
    image, row, pixel, _ = padded.strides
    runs = n1 - n0, r1 - r0, width, kw * c  # kw pixels lie side by side, so a row of a window is one run
    for i in range(kh):
        out[:, :, :, i] = np.ndarray(runs, np.float32, padded, i * row, (image, stride * row, stride * pixel, 4))
    return out.reshape(-1, kh * kw * c)


def _by_columns(columns: int, work: int, task: Callable[[slice], Any]) -> None:
    """task(columns i .. j) over all of them, in 4 parts when there is work for several threads."""
    size = -(-columns // 4) if work >= _WORK else columns
    parallel_for(-(-columns // size), lambda i: task(slice(i * size, min((i + 1) * size, columns))))


def columns_forward(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, stride: int, padding: tuple[int, int], y: np.ndarray
) -> None:
    """y = windows W + b."""
    kh, kw, c, k = weight.shape
    _, height, width, _ = y.shape
    bands = _bands(len(x), height, 4 * width * kh * kw * c)
    rows = weight.reshape(-1, k)
    if len(bands) == 1:  # few pixels: what can be divided is the product, by its columns
        windows, flat = _windows(x, bands[0], width, kh, kw, stride, padding[0]), y.reshape(-1, k)

        def product(columns: slice) -> None:
            np.matmul(windows, rows[:, columns], out=flat[:, columns])
            if bias is not None:
                flat[:, columns] += bias[columns]

        _by_columns(k, len(windows) * rows.size, product)
        return

    def task(i: int) -> None:
        n0, n1, r0, r1 = bands[i]
        out = y[n0:n1, r0:r1].reshape(-1, k)
        np.matmul(_windows(x, bands[i], width, kh, kw, stride, padding[0]), rows, out=out)
        if bias is not None:
            out += bias

    parallel_for(len(bands), task)


def columns_gradients_weight(
    x: np.ndarray, dy: np.ndarray, stride: int, padding: tuple[int, int], dw: np.ndarray
) -> None:
    """dW = windows^T dy, band after band in order."""
    (kh, kw, c, k), (n, height, width, _) = dw.shape, dy.shape
    dweight = dw.reshape(kh * kw * c, k)
    bands = _bands(n, height, 4 * width * kh * kw * c)
    group = max(1, -(-len(bands) // 16))  # so many bands one after the other in a task: 16 partial sums
    groups = [bands[i : i + group] for i in range(0, len(bands), group)]
    if len(bands) == 1:
        windows, dy_rows = _windows(x, bands[0], width, kh, kw, stride, padding[0]), dy.reshape(-1, k)

        def product(columns: slice) -> None:
            np.matmul(windows[:, columns].T, dy_rows, out=dweight[columns])

        _by_columns(len(dweight), len(dy_rows) * dweight.size, product)
        return
    parts = empty((len(groups), kh * kw * c, k))

    def task(i: int) -> None:
        for j, (n0, n1, r0, r1) in enumerate(groups[i]):
            windows = _windows(x, (n0, n1, r0, r1), width, kh, kw, stride, padding[0])
            dy_rows = dy[n0:n1, r0:r1].reshape(-1, k)
            if j == 0:
                np.matmul(windows.T, dy_rows, out=parts[i])
            else:
                parts[i] += np.matmul(windows.T, dy_rows, out=scratch("product", *parts[i].shape))

    parallel_for(len(groups), task)
    np.add.reduce(parts, axis=0, out=dweight)


def columns_gradient_x(
    dy: np.ndarray, weight: np.ndarray, stride: int, padding: tuple[int, int], dx: np.ndarray
) -> None:
    """dx adds each window's gradient dy W^T back where the window was read."""
    (kh, kw, c, k), (_, height, width, _) = weight.shape, dy.shape
    n, h, w, _ = dx.shape
    before = padding[0]
    rows = weight.reshape(-1, k).T
    most = max(1, _CACHED // (4 * width * kh * kw * c))
    images = max(1, min(most // height, n))
    serial = images == n and most >= height  # few pixels: what can be divided is the product, by its columns

    def task(i: int) -> None:
        chunk = slice(i * images, min((i + 1) * images, n))
        count = chunk.stop - chunk.start
        whole = scratch("image", count, h + sum(padding), w + sum(padding), c)
        whole[...] = 0
        for r0 in range(0, height, most):
            r1 = min(r0 + most, height)
            dwindows = scratch("windows", count, r1 - r0, width, kh, kw, c)
            dy_rows, window_rows = dy[chunk, r0:r1].reshape(-1, k), dwindows.reshape(-1, kh * kw * c)
            if serial:
                _by_columns(
                    rows.shape[1],
                    len(dy_rows) * rows.size,
                    lambda part: np.matmul(dy_rows, rows[:, part], out=window_rows[:, part]),  # noqa: B023, done when it returns
                )
            else:
                np.matmul(dy_rows, rows, out=window_rows)
            for a in range(kh):
                for b in range(kw):
                    first, last = stride * r0 + a, stride * (r1 - 1) + a + 1
                    whole[:, first:last:stride, b : b + stride * (width - 1) + 1 : stride] += dwindows[:, :, :, a, b]
        dx[chunk] = whole[:, before : before + h, before : before + w]

    parallel_for(-(-n // images), task)


def flip(weight: np.ndarray) -> np.ndarray:
    """The filters of the convolution that is the gradient of x.   (3, 3, C, K) -> (3, 3, K, C), a copy."""
    view = weight[::-1, ::-1].swapaxes(2, 3)
    flipped = empty(view.shape)
    np.copyto(flipped, view)
    return flipped


def planes(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, y: np.ndarray) -> None:
    """3x3, stride 1, zeros around, K small: z = W^T x for all 9 places, and y[h, w] sums z_ij[h + i - 1, w + j - 1]."""
    c, k = weight.shape[2:]
    n, h, w, _ = x.shape
    rows = contiguous(weight.transpose(0, 1, 3, 2)).reshape(9 * k, c)
    images = max(1, min(n, _CACHED // (36 * h * w * k)))
    near = [(slice(max(0, 1 - i), h - max(0, i - 1)), slice(max(0, i - 1), h + min(0, i - 1))) for i in range(3)]
    side = [(slice(max(0, 1 - i), w - max(0, i - 1)), slice(max(0, i - 1), w + min(0, i - 1))) for i in range(3)]

    def task(i: int) -> None:
        chunk = slice(i * images, min((i + 1) * images, n))
        part = x[chunk].reshape(-1, c)
        z = scratch("windows", 9 * k, len(part))
        np.matmul(rows, part.T, out=z)
        z = z.reshape(3, 3, k, -1, h, w)
        total = scratch("image", *z.shape[2:])
        total[...] = z[1, 1]
        for a in range(3):
            for b in range(3):
                if (a, b) != (1, 1):
                    (to_h, from_h), (to_w, from_w) = near[a], side[b]
                    total[:, :, to_h, to_w] += z[a, b, :, :, from_h, from_w]
        y[chunk] = total.transpose(1, 2, 3, 0)
        if bias is not None:
            y[chunk] += bias

    parallel_for(-(-n // images), task)


def sum_rows(x: np.ndarray) -> np.ndarray:
    """The sum over all axes but the last, as products with ones, part after part.   (N, ..., C) -> (C,), fresh."""
    flat = x.reshape(-1, x.shape[-1])
    return tree_sum(_sum_rows(flat[shard]) for shard in shard_rows(x.shape))


def _sum_rows(x: np.ndarray) -> np.ndarray:
    count = -(-len(x) // _ROWS)
    parts = empty((count, x.shape[1]))

    def task(i: int) -> None:
        chunk = x[i * _ROWS : (i + 1) * _ROWS]
        np.matmul(_ONES[: len(chunk)], chunk, out=parts[i])

    if x.size < 1 << 19:
        for i in range(count):
            task(i)
    else:
        parallel_for(count, task)
    return np.add.reduce(parts, axis=0)
