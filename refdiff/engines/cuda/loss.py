"""The mean squared error: kernels/loss.cu."""

from __future__ import annotations

from typing import Any

from .rows import FILL_BLOCKS, expect
from .runtime.context import THREADS, Array, blocks

__all__ = ["mean_squared_error", "mean_squared_error_backward"]


def mean_squared_error(x: Array, target: Array) -> tuple[Array, Any]:
    """loss = mean((x - target)^2) over every element.   x and target of one shape -> a scalar, float32.

    x and target are kept as they are: their difference would have to be written.
    """
    assert x.shape == target.shape, f"mean_squared_error: {x.shape} against {target.shape}"
    expect("mean_squared_error", x.dtype, x, target)
    context, loss = x.context, x.context.empty(())
    grid = min(FILL_BLOCKS, blocks(x.nbytes, 16 * THREADS))
    partial = context.empty((grid,))
    context.launch("loss.cu", "squares", grid, THREADS, x, target, partial, x.size, dtype=x.dtype)
    context.launch("loss.cu", "mean", 1, THREADS, partial, loss, grid, x.size, dtype=x.dtype)
    return loss, (x, target)


def mean_squared_error_backward(dloss: Any, saved: Any) -> Array:
    """dx = 2 (x - target) / n, n the number of elements. The target is data and gets no gradient.

    dloss: a number, or a float32 scalar on the device.
    """
    x, target = saved
    known = not isinstance(dloss, Array)
    assert known or (dloss.dtype == "float32" and dloss.size == 1), f"mean_squared_error: dloss {dloss}"
    dx = x.context.empty(x.shape, x.dtype)
    factor = 2 / x.size * (float(dloss) if known else 1.0)
    x.context.map(
        "loss.cu", "squares_backward", x.size, None if known else dloss, x, target, dx, float(factor), dtype=x.dtype
    )
    return dx
