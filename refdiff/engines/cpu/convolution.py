"""Two-dimensional convolution, each by the form that is best for its shape.

winograd   3x3, stride 1, zeros around, by tiles of 2x2 or 4x4          `winograd.py`
taps       few pixels, a filter of at most 3x3          `taps.py`
columns    anything; best for few input channels          `direct.py`
planes     3x3, stride 1, few output channels          `direct.py`
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..reference.tensor_ops import Gradients
from . import direct, taps, winograd
from .division import halves
from .runtime.memory import empty, gradient_out
from .runtime.profiler import algorithm, operation

__all__ = ["conv2d", "conv2d_backward"]

_FEW = 8  # channels
_PIXELS = 128  # fewer than this in y: reading the weights is what takes time


class _Part(NamedTuple):
    """Samples that are convolved in one form: a half or, where both take the same, all; and the halves among them."""

    kind: str
    tiles: winograd.Form | None
    own: slice
    halves: list[slice]


def _kind(pixels: int, weight: tuple[int, ...], stride: int, padding: tuple[int, int]) -> str:
    """Which form a convolution takes to so many pixels. A function of the shapes of a half alone."""
    kh, kw, c_in, c_out = weight
    plain = (kh, kw, stride, padding) == (3, 3, 1, (1, 1))
    if c_in <= _FEW:
        return "columns"
    if plain and c_out <= _FEW:
        return "planes"
    if pixels < _PIXELS and kh * kw <= 9 and stride <= 2:
        return "taps"
    return "winograd" if plain else "columns"


def _parts(y: tuple[int, ...], weight: tuple[int, ...], stride: int, padding: tuple[int, int]) -> list[_Part]:
    """y: the shape of the output."""
    parts: list[_Part] = []
    for half in halves(y[0]):
        n = half.stop - half.start
        kind = _kind(n * y[1] * y[2], weight, stride, padding)
        tiles = winograd.choose(n, y[1], y[2]) if kind == "winograd" else None
        if parts and parts[0][:2] == (kind, tiles):
            parts[0] = _Part(kind, tiles, slice(0, half.stop), [*parts[0].halves, half])
        else:
            parts.append(_Part(kind, tiles, half, [slice(0, n)]))
    algorithm(" and ".join(f"winograd {tiles.m}x{tiles.m}" if tiles else kind for kind, tiles, _, _ in parts))
    return parts


@operation
def conv2d(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: int = 1, padding: tuple[int, int] | None = None
) -> tuple[np.ndarray, Any]:
    """y[n,h,w,o] = b[o] + sum_{i,j,c} x[n, h s + i - p, w s + j - p, c] W[i,j,c,o]. As in the reference engine."""
    kh, kw, c_in, _ = weight.shape
    assert x.shape[3] == c_in, f"conv2d: weight takes {c_in} channels, x has {x.shape[3]}"
    if padding is None:
        assert kh == kw == kh // 2 * 2 + 1, f"conv2d: padding must be given for a {kh}x{kw} filter"
        padding = (kh // 2, kh // 2)
    y = empty(direct.output(x.shape, weight.shape, stride, padding))
    for kind, tiles, own, those in _parts(y.shape, weight.shape, stride, padding):
        part, out = x[own], y[own]
        if tiles is not None:
            winograd.convolve(tiles, part, weight, bias, out, those)
        elif kind == "taps":
            taps.forward(part, weight, bias, stride, padding, out, those)
        else:
            for half in those:
                if kind == "planes":
                    direct.planes(part[half], weight, bias, out[half])
                else:
                    direct.columns_forward(part[half], weight, bias, stride, padding, out[half])
    return y, (x, weight, stride, padding)


@operation
def conv2d_backward(dy: np.ndarray, saved: Any, needs_dx: bool = True) -> tuple[np.ndarray | None, Gradients]:
    """dx: the convolution of dy with the filters flipped;  dW = windows^T dy;  db = sum dy.

    needs_dx: False where x is data, whose gradient nobody asks for: dx is then None and costs nothing.
    """
    x, weight, stride, padding = saved
    dx, dweight = empty(x.shape) if needs_dx else None, gradient_out(weight)
    for kind, tiles, own, those in _parts(dy.shape, weight.shape, stride, padding):
        part, above, out, add = x[own], dy[own], None if dx is None else dx[own], own.start > 0
        if tiles is not None:
            winograd.gradients(tiles, part, weight, above, out, dweight, those, add)
        elif kind == "taps":
            if out is not None:
                taps.gradient_x(above, weight, stride, padding, out, those)
            taps.gradient_weight(part, above, stride, padding, dweight, those, add)
        else:
            for half in those:
                dw = empty(weight.shape) if add else dweight
                dx_half = None if out is None else out[half]
                _direct(kind, part[half], weight, above[half], stride, padding, dx_half, dw)
                if add:
                    dweight += dw
                add = True
    return dx, {"weight": dweight, "bias": direct.sum_rows(dy)}


def _direct(
    kind: str,
    x: np.ndarray,
    weight: np.ndarray,
    dy: np.ndarray,
    stride: int,
    padding: tuple[int, int],
    dx: np.ndarray | None,
    dweight: np.ndarray,
) -> None:
    """Both gradients of a convolution by columns or planes, of a half; the weight's alone where dx is None."""
    kh, kw, c_in, c_out = weight.shape
    if kind == "planes":  # few channels in dy: its windows serve both gradients
        if dx is not None:
            direct.columns_forward(dy, direct.flip(weight), None, 1, (1, 1), dx)
        turned = empty((kh, kw, c_out, c_in))
        direct.columns_gradients_weight(dy, x, 1, (1, 1), turned)
        dweight[...] = direct.flip(turned)
        return
    if dx is None:
        pass
    elif (kh, kw, stride, padding) == (3, 3, 1, (1, 1)) and c_in <= _FEW:
        direct.planes(dy, direct.flip(weight), None, dx)
    else:
        direct.columns_gradient_x(dy, weight, stride, padding, dx)
    direct.columns_gradients_weight(x, dy, stride, padding, dweight)
