"""The linear layer, over the last axis, as products without copies."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..reference import Gradients
from .direct import sum_rows
from .products import product
from .runtime.memory import contiguous, empty, gradient_out
from .runtime.profiler import operation
from .runtime.shards import shard_rows, tree_sum
from .runtime.thread_pool import parallel_for

__all__ = ["linear", "linear_backward"]

PARALLEL_WORK = 1 << 25  # multiplications; fewer are not worth dividing
_SMALL_WEIGHT = 1 << 14  # elements of a weight
_MIN_ROWS = 512  # of a task, least


def _parts(shard: slice, weight: np.ndarray) -> list[slice]:
    """Rows of a task: all or half of them, for as often the matrix library packs the weight."""
    count = shard.stop - shard.start
    size = count if count * weight.size < PARALLEL_WORK else max(_MIN_ROWS, -(-count // 2))
    return [slice(i, min(i + size, shard.stop)) for i in range(shard.start, shard.stop, max(size, 1))]


def _product(x: np.ndarray, weight: np.ndarray, y: np.ndarray) -> None:
    """y = x W. A large W is better left to the matrix library."""
    if weight.size <= _SMALL_WEIGHT:
        product(x[None], weight[None], y[None])
    else:
        np.matmul(x, weight, out=y)


@operation
def linear(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, Any]:
    """y = x W + b.   x (..., in), weight (in, out), bias (out,) -> y (..., out)."""
    y = empty((*x.shape[:-1], weight.shape[1]))
    x_rows, y_rows = x.reshape(-1, x.shape[-1]), y.reshape(-1, weight.shape[1])
    parts = [part for shard in shard_rows(x.shape) for part in _parts(shard, weight)]

    def task(i: int) -> None:
        _product(x_rows[parts[i]], weight, y_rows[parts[i]])
        y_rows[parts[i]] += bias

    parallel_for(len(parts), task, serial=x.size * weight.shape[1] < PARALLEL_WORK)
    return y, (x, weight)


@operation
def linear_backward(dy: np.ndarray, saved: Any, needs_dx: bool = True) -> tuple[np.ndarray | None, Gradients]:
    """dx = dy W^T,  dW = x^T dy,  db = sum dy.   needs_dx: as of conv2d_backward."""
    x, weight = saved
    dx, dweight = empty(x.shape) if needs_dx else None, gradient_out(weight)
    x_rows, dy_rows = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
    if dx is not None:
        dx_rows = dx.reshape(-1, x.shape[-1])
        weight_t = contiguous(weight.T) if weight.size <= _SMALL_WEIGHT else weight.T
    tasks: list[tuple[slice, np.ndarray | None]] = []  # rows, and where they give the weight its gradient, or else x
    for shard in shard_rows(x.shape):
        tasks.append((shard, dweight if shard.start == 0 else empty(weight.shape)))
        if needs_dx:
            tasks += [(part, None) for part in _parts(shard, weight)]

    def task(i: int) -> None:
        rows, dw = tasks[i]
        if dw is None:
            _product(dy_rows[rows], weight_t, dx_rows[rows])
        else:
            np.matmul(x_rows[rows].T, dy_rows[rows], out=dw)

    parallel_for(len(tasks), task, serial=x.size * weight.shape[1] < PARALLEL_WORK)
    tree_sum(dw for _, dw in tasks if dw is not None)
    return dx, {"weight": dweight, "bias": sum_rows(dy)}
