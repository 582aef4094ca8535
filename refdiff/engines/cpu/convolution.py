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
    kind = _form(x.shape[0] * x.shape[1] * x.shape[2], weight.shape, c_in, c_out, stride, padding)
    form(kind)
    if kind == "winograd":
        tiles = winograd.choose(*x.shape[:3])
        form(f"winograd {tiles.m}x{tiles.m}")
        y = winograd.convolve(tiles, x, weight, bias)
    elif kind == "planes":
        y = direct.planes(x, weight, bias)
    else:
        y = direct.columns_forward(x, weight, bias, stride, padding)
    return y, (x, weight, stride, padding)


@operation
def conv2d_backward(dy: np.ndarray, saved: Any) -> tuple[np.ndarray, Gradients]:
    """dx: the convolution of dy with the filters flipped;  dW = windows^T dy;  db = sum dy."""
    x, weight, stride, padding = saved
    kh, kw, c_in, c_out = weight.shape
    kind = _form(x.shape[0] * x.shape[1] * x.shape[2], weight.shape, c_in, c_out, stride, padding)
    form(kind)
    if kind == "winograd":
        tiles = winograd.choose(*x.shape[:3])
        form(f"winograd {tiles.m}x{tiles.m}")
        dx, dweight = winograd.gradients(tiles, x, weight, dy)
    elif kind == "planes":  # few channels in dy: its windows serve both gradients
        flipped = direct.flip(weight)
        dx = direct.columns_forward(dy, flipped, None, 1, (1, 1))
        dweight = direct.flip(direct.columns_gradients_weight(dy, x, flipped, 1, (1, 1)))
    else:
        if (kh, kw, stride, padding) == (3, 3, 1, (1, 1)) and c_in <= _FEW:
            dx = direct.planes(dy, direct.flip(weight), None)
        else:
            dx = direct.columns_gradient_x(dy, weight, x.shape, stride, padding)
        dweight = direct.columns_gradients_weight(x, dy, weight, stride, padding)
    return dx, {"weight": dweight, "bias": direct.sum_rows(dy)}
