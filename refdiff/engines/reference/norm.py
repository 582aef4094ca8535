"""Group norm [GN] and layer norm [LN]: mean 0 and variance 1 within a set of values, then a scale and a shift a channel.

The group norm of a residual block goes into a SiLU, and may be told the time in between; a fast engine does that at once.
All share one derivative. With xhat = (x - mean) / sd over a set, sd^2 = variance + epsilon, and dxhat = dy * weight,

    dx = (dxhat - mean(dxhat) - xhat mean(dxhat xhat)) / sd.

The variance is two passes, mean((x - mean)^2): mean(x^2) - mean(x)^2 loses everything when the mean is large.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .activation import silu, silu_backward
from .tensor_ops import Gradients

__all__ = [
    "adaptive_group_norm_silu", "adaptive_group_norm_silu_backward", "group_norm", "group_norm_backward",
    "group_norm_silu", "group_norm_silu_backward", "layer_norm", "layer_norm_backward",
]  # fmt: skip


def group_norm(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, groups: int, epsilon: float = 1e-6
) -> tuple[np.ndarray, Any]:
    """y = weight * xhat + bias, normalised over positions and the C / groups channels of each group.   [GN] eq. 1

    x (N, ..., C), weight and bias (C,), groups a divisor of C -> y (N, ..., C).
    """
    assert x.shape[-1] % groups == 0, f"group_norm: {x.shape[-1]} channels do not divide into {groups} groups"
    split = x.reshape(len(x), -1, groups, x.shape[-1] // groups)
    xhat, sd = _normalised(split, (1, 3), epsilon)
    xhat = xhat.reshape(x.shape)
    return weight * xhat + bias, (xhat, sd, weight)


def group_norm_backward(dy: np.ndarray, saved: Any) -> tuple[np.ndarray, Gradients]:
    """dweight = sum dy xhat,  dbias = sum dy,  dx as above over each group."""
    xhat, sd, weight = saved
    split = (len(dy), -1, sd.shape[2], dy.shape[-1] // sd.shape[2])
    dx = _normalised_backward((dy * weight).reshape(split), xhat.reshape(split), sd, (1, 3))
    return dx.reshape(dy.shape), _affine_backward(dy, xhat)


def group_norm_silu(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, groups: int, epsilon: float = 1e-6
) -> tuple[np.ndarray, Any]:
    """y = silu(group_norm(x)).   Shapes as for `group_norm`."""
    h, saved_norm = group_norm(x, weight, bias, groups, epsilon)
    y, saved_silu = silu(h)
    return y, (saved_norm, saved_silu)


def group_norm_silu_backward(dy: np.ndarray, saved: Any) -> tuple[np.ndarray, Gradients]:
    """The two backwards, the last first."""
    saved_norm, saved_silu = saved
    return group_norm_backward(silu_backward(dy, saved_silu), saved_norm)


def adaptive_group_norm_silu(
    x: np.ndarray,
    scale: np.ndarray,
    shift: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray,
    groups: int,
    epsilon: float = 1e-6,
) -> tuple[np.ndarray, Any]:
    """y = silu((1 + scale) group_norm(x) + shift), a scale and a shift for each sample and channel.   [ADM] section 3.1

    x (N, ..., C), scale and shift (N, C), weight and bias (C,) -> y (N, ..., C).
    """
    assert scale.shape == shift.shape == (len(x), x.shape[-1]), (
        f"adaptive_group_norm_silu: x {x.shape}, scale {scale.shape}, shift {shift.shape}"
    )
    h, saved_norm = group_norm(x, weight, bias, groups, epsilon)
    rows = (len(x), *[1] * (x.ndim - 2), x.shape[-1])
    y, saved_silu = silu((1 + scale).reshape(rows) * h + shift.reshape(rows))
    return y, (saved_norm, saved_silu, h, scale)


def adaptive_group_norm_silu_backward(
    dy: np.ndarray, saved: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray, Gradients]:
    """With z = (1 + scale) h + shift:  dscale = sum dz h,  dshift = sum dz over positions,  dh = dz (1 + scale).

    -> dx, dscale, dshift, gradients of weight and bias.
    """
    saved_norm, saved_silu, h, scale = saved
    dz = silu_backward(dy, saved_silu)
    positions = tuple(range(1, dy.ndim - 1))
    dscale, dshift = (dz * h).sum(axis=positions), dz.sum(axis=positions)
    dx, g = group_norm_backward(dz * (1 + scale).reshape(len(dy), *[1] * (dy.ndim - 2), -1), saved_norm)
    return dx, dscale, dshift, g


def layer_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, epsilon: float = 1e-5) -> tuple[np.ndarray, Any]:
    """y = weight * xhat + bias, normalised over the last axis.   [LN] eq. 3

    x (..., C), weight and bias (C,) -> y (..., C).
    """
    xhat, sd = _normalised(x, (-1,), epsilon)
    return weight * xhat + bias, (xhat, sd, weight)


def layer_norm_backward(dy: np.ndarray, saved: Any) -> tuple[np.ndarray, Gradients]:
    """dweight = sum dy xhat,  dbias = sum dy,  dx as above over the last axis."""
    xhat, sd, weight = saved
    return _normalised_backward(dy * weight, xhat, sd, (-1,)), _affine_backward(dy, xhat)


def _normalised(x: np.ndarray, axes: tuple[int, ...], epsilon: float) -> tuple[np.ndarray, np.ndarray]:
    """xhat and sd, each mean over `axes`."""
    centred = x - _mean(x, axes)
    sd = np.sqrt(_mean(centred**2, axes) + epsilon)
    return centred / sd, sd


def _normalised_backward(dxhat: np.ndarray, xhat: np.ndarray, sd: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    return (dxhat - _mean(dxhat, axes) - xhat * _mean(dxhat * xhat, axes)) / sd


def _mean(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """The mean over `axes`, one after the other: whole rows are added at a time, eight times faster than both at once."""
    for axis in axes:
        x = x.mean(axis=axis, keepdims=True)
    return x


def _affine_backward(dy: np.ndarray, xhat: np.ndarray) -> Gradients:
    axes = tuple(range(dy.ndim - 1))
    return {"weight": (dy * xhat).sum(axis=axes), "bias": dy.sum(axis=axes)}
