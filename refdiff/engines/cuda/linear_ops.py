"""The linear layer, over the last axis: kernels/linear.cu. On an image (N, H, W, C) it is the 1x1 convolution."""

from __future__ import annotations

from typing import Any

from .product import choose_tile, packed, weight_gradient
from .runtime.context import Array
from .structs import Struct, pitched, struct
from .tensor_ops import cast
from .tile_table import Problem

__all__ = ["linear", "linear_backward"]

Sizes = struct("linear.cu", "Linear")


def linear(x: Array, weight: Array, bias: Array) -> tuple[Array, Any]:
    """y = x W + b.   x (..., in), weight (in, out), bias (out,) -> y (..., out).   x may be a part of a split.

    x is rounded to weight's type.
    """
    x = cast(x, weight.dtype)
    sizes = _sizes(x, weight)
    rows, (inputs, outputs) = x.size // x.shape[-1], weight.shape
    assert bias.shape == (outputs,) and bias.dtype == "float32", f"linear: bias {bias} for weight {weight}"
    y = x.context.empty((*x.shape[:-1], outputs), x.dtype)
    tile = choose_tile(x.context, "linear", x.dtype, Problem(rows, outputs, inputs))
    x.context.launch(
        "linear.cu", "linear", tile.cover(rows, outputs), tile.threads, pitched(x), weight, bias, y, sizes,
        dtype=x.dtype, shared=tile.shared, IN_PACKS=packed(inputs, x), OUT_PACKS=packed(outputs, weight), **tile.defines,
    )  # fmt: skip
    return y, (x, weight)


def linear_backward(dy: Array, saved: Any, needs_dx: bool = True) -> tuple[Array | None, dict[str, Array]]:
    """dx = dy W^T,  dW = x^T dy,  db = sum dy.   dW and db in float32; dy may be a part of a split.

    dy is rounded to x's type. needs_dx: as of conv2d_backward.
    """
    x, weight = saved
    dy, sizes = cast(dy, x.dtype), _sizes(x, weight)
    rows, (inputs, outputs) = x.size // x.shape[-1], weight.shape
    dx = linear_dx(dy, saved) if needs_dx else None
    dweight, dbias = weight_gradient(
        x.context, "linear.cu", "linear_dweight", x.dtype, (pitched(x), pitched(dy)), sizes, weight.shape, rows,
        IN_PACKS=packed(inputs, x), OUT_PACKS=packed(outputs, dy, weight),
    )  # fmt: skip
    return dx, {"weight": dweight, "bias": dbias}


def linear_dx(dy: Array, saved: Any) -> Array:
    """dx of `linear_backward`."""
    x, weight = saved
    dy, sizes = cast(dy, x.dtype), _sizes(x, weight)
    rows, (inputs, outputs) = x.size // x.shape[-1], weight.shape
    dx = dy.context.empty(x.shape, x.dtype)
    tile = choose_tile(dy.context, "linear_dx", x.dtype, Problem(rows, inputs, outputs))
    dy.context.launch(
        "linear.cu", "linear_dx", tile.cover(rows, inputs), tile.threads, pitched(dy), weight, dx, sizes,
        dtype=x.dtype, shared=tile.shared, IN_PACKS=packed(inputs, dx), OUT_PACKS=packed(outputs, dy, weight),
        **tile.defines,
    )  # fmt: skip
    return dx


def _sizes(x: Array, weight: Array) -> Struct:
    inputs, outputs = weight.shape
    assert x.shape[-1] == inputs, f"linear: weight takes {inputs} channels, x has {x.shape[-1]}"
    assert x.dtype == weight.dtype and weight.dense, f"linear: x {x}, weight {weight}"
    return Sizes(rows=x.size // inputs, C_in=inputs, C_out=outputs)
