"""Softmax: kernels/softmax.cu. Attention has kernels of its own."""

from __future__ import annotations

from typing import Any

from .rows import MAX_THREADS, expect, tiling
from .runtime.context import Array, blocks

__all__ = ["softmax", "softmax_backward"]


def softmax(x: Array) -> tuple[Array, Any]:
    """y_i = exp(x_i) / sum_j exp(x_j) over the last axis, shifted by the largest x so that nothing overflows."""
    y = _launch("softmax", x)
    return y, y


def softmax_backward(dy: Array, saved: Any) -> Array:
    """dx = y (dy - sum_j dy_j y_j)."""
    return _launch("softmax_backward", dy, saved)


def _launch(name: str, *given: Array) -> Array:
    x = given[0]
    expect(name, x.dtype, *given)
    out = x.context.empty(x.shape, x.dtype)
    rows, packed = x.size // x.shape[-1], tiling(*given).packed
    x.context.launch(
        "softmax.cu", name, blocks(rows, MAX_THREADS // 32), MAX_THREADS, *given, out, rows, x.shape[-1],
        dtype=x.dtype, PACKED=packed,
    )  # fmt: skip
    return out
