"""Two-dimensional convolution, each by the form that is best for its shape.

winograd   3x3, stride 1, zeros around, by tiles of 2x2 or 4x4          `winograd.py`
columns    anything; best for few input channels and for few pixels          `direct.py`
planes     3x3, stride 1, few output channels          `direct.py`
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..reference.structure import Gradients
from . import direct, winograd
from .division import halves
from .memory import empty
from .placing import gradient
from .profile import form, operation

__all__ = ["conv2d", "conv2d_backward"]

_FEW = 8  # channels
_PIXELS = 128  # fewer than this: a filter's transform costs more than it saves


def _form(pixels: int, weight: tuple[int, ...], c_in: int, c_out: int, stride: int, padding: tuple[int, int]) -> str:
    """Which form a convolution takes from so many channels to so many. A function of shapes alone."""
    if weight[:2] != (3, 3) or stride != 1 or padding != (1, 1) or c_in <= _FEW:
        return "columns"
    if c_out <= _FEW:
        return "planes"
    return "columns" if pixels < _PIXELS else "winograd"


@operation
def conv2d(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: int = 1, padding: tuple[int, int] | None = None
) -> tuple[np.ndarray, Any]:
    """y[n,h,w,o] = b[o] + sum_{i,j,c} x[n, h s + i - p, w s + j - p, c] W[i,j,c,o]. As in the reference engine."""
    kh, kw, c_in, c_out = weight.shape
    assert x.shape[3] == c_in, f"conv2d: weight takes {c_in} channels, x has {x.shape[3]}"
    if padding is None:
        assert kh == kw == kh // 2 * 2 + 1, f"conv2d: padding must be given for a {kh}x{kw} filter"
        padding = (kh // 2, kh // 2)
    y = empty(direct.output(x.shape, weight.shape, stride, padding))
    parts = halves(len(x))
    filters = winograd.Filters(weight)
    for own in parts:
        part, out = x[own], y[own]
        kind = _form(part.size // max(c_in, 1), weight.shape, c_in, c_out, stride, padding)
        form(kind)
        if kind == "winograd":
            tiles = winograd.choose(*part.shape[:3])
            form(f"winograd {tiles.m}x{tiles.m}")
            winograd.convolve(tiles, part, filters, bias, out)
        elif kind == "planes":
            direct.planes(part, weight, bias, out)
        else:
            direct.columns_forward(part, weight, bias, stride, padding, out)
    return y, (x, weight, stride, padding)


@operation
def conv2d_backward(dy: np.ndarray, saved: Any) -> tuple[np.ndarray, Gradients]:
    """dx: the convolution of dy with the filters flipped;  dW = windows^T dy;  db = sum dy."""
    x, weight, stride, padding = saved
    kh, kw, c_in, c_out = weight.shape
    dx, dweight, parts = empty(x.shape), gradient(weight), halves(len(x))
    filters = winograd.Filters(weight)
    flipped = direct.flip(weight) if c_in <= _FEW or c_out <= _FEW else weight
    for own in parts:
        part, above, out = x[own], dy[own], dx[own]
        kind = _form(part.size // max(c_in, 1), weight.shape, c_in, c_out, stride, padding)
        form(kind)
        if kind == "winograd":
            tiles = winograd.choose(*part.shape[:3])
            form(f"winograd {tiles.m}x{tiles.m}")
            winograd.gradients(tiles, part, filters, above, out, dweight, add=own.start > 0)
            continue
        dw = dweight if own.start == 0 else empty(weight.shape)
        if kind == "planes":  # few channels in dy: its windows serve both gradients
            direct.columns_forward(above, flipped, None, 1, (1, 1), out)
            turned = empty(flipped.shape)
            direct.columns_gradients_weight(above, part, 1, (1, 1), turned)
            dw[...] = direct.flip(turned)
        else:
            if (kh, kw, stride, padding) == (3, 3, 1, (1, 1)) and c_in <= _FEW:
                direct.planes(above, flipped, None, out)
            else:
                direct.columns_gradient_x(above, weight, stride, padding, out)
            direct.columns_gradients_weight(part, above, stride, padding, dw)
        if own.start:
            dweight += dw
    return dx, {"weight": dweight, "bias": direct.sum_rows(dy)}
