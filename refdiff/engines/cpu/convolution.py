"""Two-dimensional convolution, each by the algorithm that is fastest for its shape.

winograd   3x3, stride 1, zeros around, by variant of 2x2 or 4x4          `winograd.py`
taps       few pixels, a filter of at most 3x3          `taps.py`
columns    anything; best for few input channels          `direct.py`
planes     3x3, stride 1, few output channels          `direct.py`
"""

from __future__ import annotations

from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from ..reference import Gradients
from . import direct, taps, winograd
from .runtime.memory import empty, gradient_out
from .runtime.profiler import algorithm, operation
from .runtime.shards import destinations, shards, tree_sum

__all__ = ["conv2d", "conv2d_backward"]

_FEW_CHANNELS = 8  # channels
_FEW_PIXELS = 128  # fewer than this in y: reading the weights is what takes time


class _Part(NamedTuple):
    """Samples that one algorithm convolves: neighbouring shards that take the same; and the shards among them."""

    kind: str
    variant: winograd.WinogradVariant | None
    samples: slice
    shards: list[slice]


def _kind(pixels: int, weight: tuple[int, ...], stride: int, padding: tuple[int, int]) -> str:
    """The algorithm of a convolution to so many pixels. A function of the shapes of a shard alone."""
    kh, kw, c_in, c_out = weight
    plain = (kh, kw, stride, padding) == (3, 3, 1, (1, 1))
    if c_in <= _FEW_CHANNELS:
        return "columns"
    if plain and c_out <= _FEW_CHANNELS:
        return "planes"
    if pixels < _FEW_PIXELS and kh * kw <= 9 and stride <= 2:
        return "taps"
    return "winograd" if plain else "columns"


def _parts(y: tuple[int, ...], weight: tuple[int, ...], stride: int, padding: tuple[int, int]) -> list[_Part]:
    """y: the shape of the output."""
    parts: list[_Part] = []
    for shard in shards(y[0]):
        n = shard.stop - shard.start
        kind = _kind(n * y[1] * y[2], weight, stride, padding)
        variant = winograd.choose(n, y[1], y[2]) if kind == "winograd" else None
        if parts and parts[-1][:2] == (kind, variant):
            _, _, samples, part_shards = parts[-1]
            part_shards.append(slice(shard.start - samples.start, shard.stop - samples.start))
            parts[-1] = _Part(kind, variant, slice(samples.start, shard.stop), part_shards)
        else:
            parts.append(_Part(kind, variant, shard, [slice(0, n)]))
    kinds = [f"winograd {variant.m}x{variant.m}" if variant else kind for kind, variant, _, _ in parts]
    algorithm(" and ".join(dict.fromkeys(kinds)))
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
    for kind, variant, samples, part_shards in _parts(y.shape, weight.shape, stride, padding):
        x_part, y_part = x[samples], y[samples]
        if variant is not None:
            winograd.convolve(variant, x_part, weight, bias, y_part, part_shards)
        elif kind == "taps":
            taps.forward(x_part, weight, bias, stride, padding, y_part, part_shards)
        else:
            for shard in part_shards:
                if kind == "planes":
                    direct.planes(x_part[shard], weight, bias, y_part[shard])
                else:
                    direct.columns_forward(x_part[shard], weight, bias, stride, padding, y_part[shard])
    return y, (x, weight, stride, padding)


@operation
def conv2d_backward(dy: np.ndarray, saved: Any, needs_dx: bool = True) -> tuple[np.ndarray | None, Gradients]:
    """dx: the convolution of dy with the filters flipped;  dW = windows^T dy;  db = sum dy.

    needs_dx: False where x is data, whose gradient is not needed: dx is then None and costs nothing.
    """
    x, weight, stride, padding = saved
    dx, dweight = empty(x.shape) if needs_dx else None, gradient_out(weight)
    dweights = destinations(dweight, len(shards(len(dy))))
    remaining = iter(dweights)
    for kind, variant, samples, part_shards in _parts(dy.shape, weight.shape, stride, padding):
        x_part, dy_part, dx_part = x[samples], dy[samples], None if dx is None else dx[samples]
        into = list(islice(remaining, len(part_shards)))
        if variant is not None:
            winograd.gradients(variant, x_part, weight, dy_part, dx_part, part_shards, into)
        elif kind == "taps":
            if dx_part is not None:
                taps.gradient_x(dy_part, weight, stride, padding, dx_part, part_shards)
            taps.gradient_weight(x_part, dy_part, stride, padding, part_shards, into)
        else:
            for shard, (total, add) in zip(part_shards, into, strict=True):
                dw = empty(weight.shape) if add else total
                dx_shard = None if dx_part is None else dx_part[shard]
                _direct(kind, x_part[shard], weight, dy_part[shard], stride, padding, dx_shard, dw)
                if add:
                    total += dw
    tree_sum(total for total, add in dweights if not add)
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
    """Both gradients of a convolution by columns or planes, of a shard; the weight's alone where dx is None."""
    kh, kw, c_in, c_out = weight.shape
    if kind == "planes":  # few channels in dy: its windows serve both gradients
        if dx is not None:
            direct.columns_forward(dy, direct.flip(weight), None, 1, (1, 1), dx)
        dflipped = empty((kh, kw, c_out, c_in))
        direct.columns_gradients_weight(dy, x, 1, (1, 1), dflipped)
        dweight[...] = direct.flip(dflipped)
        return
    if dx is None:
        pass
    elif (kh, kw, stride, padding) == (3, 3, 1, (1, 1)) and c_in <= _FEW_CHANNELS:
        direct.planes(dy, direct.flip(weight), None, dx)
    else:
        direct.columns_gradient_x(dy, weight, stride, padding, dx)
    direct.columns_gradients_weight(x, dy, stride, padding, dweight)
