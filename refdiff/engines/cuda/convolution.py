"""Two-dimensional convolution as an implicit matrix product: kernels/conv2d.cu.

y[n,h,w,o] = b[o] + sum_{i,j,c} x[n, h s + i - p, w s + j - p, c] W[i,j,c,o], zeros outside, s the stride, p the padding
before.
"""

from __future__ import annotations

from typing import Any

from .product import choose_tile, packed, weight_gradient
from .runtime.context import Array
from .structs import Struct, struct
from .tensor_ops import cast, dense
from .tile_table import Problem

__all__ = ["conv2d", "conv2d_backward"]

Sizes = struct("conv2d.cu", "Convolution")


def conv2d(
    x: Array, weight: Array, bias: Array, stride: int = 1, padding: tuple[int, int] | None = None
) -> tuple[Array, Any]:
    """x (N, H, W, C_in), weight (kh, kw, C_in, C_out), bias (C_out,) -> y (N, H', W', C_out),

    H' = (H + p_before + p_after - kh) // s + 1, and W' likewise.

    padding (before, after), the same for both axes: (1, 1) is symmetric, (0, 1) one-sided as in DDPM's down-sampling.
    None keeps the size at stride 1: ((k - 1) / 2 on both sides, k odd). x is rounded to weight's type.
    """
    kh, kw, c_in, c_out = weight.shape
    x = cast(x, weight.dtype)
    assert x.shape[3] == c_in, f"conv2d: weight takes {c_in} channels, x has {x.shape[3]}"
    assert x.dense and weight.dense, f"conv2d: x {x}, weight {weight}"
    assert bias.shape == (c_out,) and bias.dtype == "float32", f"conv2d: bias {bias} for weight {weight}"
    if padding is None:
        assert kh == kw == kh // 2 * 2 + 1, f"conv2d: padding must be given for a {kh}x{kw} filter"
        padding = (kh // 2, kh // 2)
    n, h, w = (
        x.shape[0],
        *((size + sum(padding) - k) // stride + 1 for size, k in zip(x.shape[1:3], (kh, kw), strict=True)),
    )
    assert h > 0 and w > 0, f"conv2d: a {kh}x{kw} filter on {x.shape} with padding {padding}"
    y = x.context.empty((n, h, w, c_out), x.dtype)
    tile = choose_tile(x.context, "conv2d", x.dtype, Problem(n * h * w, c_out, kh * kw * c_in))
    x.context.launch(
        "conv2d.cu", "conv2d", tile.cover(n * h * w, c_out), tile.threads, x, weight, bias, y,
        _sizes(x.shape, y.shape, weight.shape, stride, padding),
        dtype=x.dtype, shared=tile.shared, IN_PACKS=packed(c_in, x), OUT_PACKS=packed(c_out, y), **tile.defines,
    )  # fmt: skip
    return y, (x, weight, stride, padding)


def conv2d_backward(dy: Array, saved: Any, needs_dx: bool = True) -> tuple[Array | None, dict[str, Array]]:
    """dx[n,h,w,c] = sum_{i,j,o} dy[n, (h + p - i) / s, (w + p - j) / s, o] W[i,j,c,o], over what s divides,

    dW[i,j,c,o] = sum_{n,h,w} x[n, h s + i - p, w s + j - p, c] dy[n,h,w,o],  db = sum dy.   dW and db in float32.

    needs_dx: False where x is data, whose gradient nobody asks for: dx is then None and costs nothing.
    """
    x, weight, stride, padding = saved
    dy = cast(dense(dy), x.dtype)
    sizes = _sizes(x.shape, dy.shape, weight.shape, stride, padding)
    dx, terms = conv2d_dx(dy, saved) if needs_dx else None, dy.size // dy.shape[3]
    dweight, dbias = weight_gradient(
        x.context, "conv2d.cu", "conv2d_dweight", x.dtype, (x, dy), sizes, weight.shape, terms, **_packs(x, dy)
    )  # fmt: skip
    return dx, {"weight": dweight, "bias": dbias}


def conv2d_dx(dy: Array, saved: Any) -> Array:
    """dx of `conv2d_backward`."""
    x, weight, stride, padding = saved
    (n, h, w, c_in), (kh, kw, _, c_out) = x.shape, weight.shape
    dx = dy.context.empty(x.shape, x.dtype)
    pixels = n * -(-h // stride) * -(-w // stride)  # of each pair of residues of h and w, at most
    tile = choose_tile(dy.context, "conv2d_dx", x.dtype, Problem(pixels, c_in, kh * kw * c_out, stride**2))
    dy.context.launch(
        "conv2d.cu", "conv2d_dx", (tile.cover(pixels, c_in), 1, stride**2), tile.threads, dy, weight, dx,
        _sizes(x.shape, dy.shape, weight.shape, stride, padding),
        dtype=x.dtype, shared=tile.shared, **_packs(x, dy), **tile.defines,
    )  # fmt: skip
    return dx


def _packs(x: Array, dy: Array) -> dict[str, int]:
    assert dy.dense and dy.dtype == x.dtype, f"conv2d_backward: dy {dy}"
    return {"IN_PACKS": packed(x.shape[3], x), "OUT_PACKS": packed(dy.shape[3], dy)}


def _sizes(
    x: tuple[int, ...], y: tuple[int, ...], weight: tuple[int, ...], stride: int, padding: tuple[int, int]
) -> Struct:
    """What the three kernels are told of shapes."""
    images, height, width, c_in = x
    _, out_height, out_width, c_out = y
    return Sizes(
        images=images, height=height, width=width, C_in=c_in, out_height=out_height, out_width=out_width, C_out=c_out,
        kh=weight[0], kw=weight[1], stride=stride, padding=padding[0],
    )  # fmt: skip
