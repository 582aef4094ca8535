"""What is added at all positions or of each position, and sums over positions: kernels/positions.cu."""

from __future__ import annotations

from math import prod
from typing import Any

from .runtime.context import THREADS, Array, blocks
from .structs import constant
from .tensor_ops import Gradients, dense, one_type, pack_of

__all__ = [
    "add_positions", "add_positions_backward", "broadcast_add", "broadcast_add_backward", "spread_over_positions",
    "sum_over_positions",
]  # fmt: skip

SUM_THREADS = constant("positions.cu", "SUM_THREADS")


def broadcast_add(x: Array, e: Array) -> tuple[Array, Any]:
    """y[n, ..., c] = x[n, ..., c] + e[n, c].   x (N, ..., C), e (N, C) -> y (N, ..., C)."""
    n, c = x.shape[0], x.shape[-1]
    assert e.shape == (n, c), f"broadcast_add: {x} and {e}"
    x, e = one_type(x, e)
    x, e = dense(x), dense(e)
    y = x.context.empty(x.shape, x.dtype)
    grid = blocks(x.size, THREADS * pack_of(x, c))
    x.context.launch("positions.cu", "broadcast_add", grid, THREADS, x, e, y, x.size // n, c, x.size, dtype=x.dtype)
    return y, None


def broadcast_add_backward(dy: Array, saved: Any) -> tuple[Array, Array]:
    """dx = dy,  de = the sum of dy over all positions."""
    dy = dense(dy)
    return dy, sum_over_positions(dy)


def sum_over_positions(x: Array, factor: float = 1.0) -> Array:
    """factor times the sum over all positions, x itself in another shape where there is nothing to do.

    x (N, ..., C) -> (N, C).
    """
    n, c = x.shape[0], x.shape[-1]
    x, positions = dense(x), prod(x.shape[1:-1])
    if positions == factor == 1:
        return x.view((n, c))
    y, pack = x.context.empty((n, c), x.dtype), pack_of(x, c)
    grid = (blocks(c, 8 * pack if pack > 1 else 32), n)
    x.context.launch(
        "positions.cu", "sum_positions", grid, SUM_THREADS, x, y, float(factor), positions, c, dtype=x.dtype
    )
    return y


def spread_over_positions(x: Array, shape: tuple[int, ...], factor: float) -> Array:
    """factor x at all positions.   x (N, C), shape (N, ..., C) -> shape."""
    x, y, c = dense(x), x.context.empty(shape, x.dtype), shape[-1]
    grid = blocks(y.size, THREADS * pack_of(y, c))
    x.context.launch(
        "positions.cu",
        "spread_positions",
        grid,
        THREADS,
        x,
        y,
        float(factor),
        y.size // len(y),
        c,
        y.size,
        dtype=x.dtype,
    )
    return y


def add_positions(x: Array, weight: Array) -> tuple[Array, Any]:
    """y[n] = x[n] + weight, what is learned of each position.   x (N, ...), weight (...) -> y (N, ...)."""
    assert weight.shape == x.shape[1:], f"add_positions: {x} and {weight}"
    x, weight = one_type(x, weight)
    x, weight = dense(x), dense(weight)
    y = x.context.empty(x.shape, x.dtype)
    grid = blocks(x.size, THREADS * pack_of(x, weight.size))
    x.context.launch("positions.cu", "add_positions", grid, THREADS, x, weight, y, weight.size, x.size, dtype=x.dtype)
    return y, None


def add_positions_backward(dy: Array, saved: Any) -> tuple[Array, Gradients]:
    """dx = dy,  dweight = the sum of dy over the samples, in float32."""
    dy, n, threads = dense(dy), dy.shape[0], 128
    dweight = dy.context.empty(dy.shape[1:])
    grid = blocks(dweight.size, threads * pack_of(dy, dweight.size))
    dy.context.launch(
        "positions.cu", "add_positions_backward", grid, threads, dy, dweight, n, dweight.size, dtype=dy.dtype
    )
    return dy, {"weight": dweight}
