"""The linear layer, over the last axis, as products without copies."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..reference.structure import Gradients
from .direct import sum_rows
from .memory import empty
from .placing import gradient
from .profile import operation
from .workers import each

__all__ = ["linear", "linear_backward"]

_WORK = 1 << 25  # multiplications; fewer are not worth dividing
_ROWS, _CHANNELS = 512, 64  # of a task, least


def _parts(rows: int, least: int, work: int) -> list[slice]:
    """`rows` rows in up to 4 parts."""
    size = rows if work < _WORK else max(least, -(-rows // 4))
    return [slice(i, min(i + size, rows)) for i in range(0, rows, size)]


@operation
def linear(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, Any]:
    """y = x W + b.   x (..., in), weight (in, out), bias (out,) -> y (..., out)."""
    y = empty((*x.shape[:-1], weight.shape[1]))
    rows, out = x.reshape(-1, x.shape[-1]), y.reshape(-1, weight.shape[1])
    parts = _parts(len(rows), _ROWS, len(rows) * weight.size)

    def task(i: int) -> None:
        np.matmul(rows[parts[i]], weight, out=out[parts[i]])
        out[parts[i]] += bias

    each(len(parts), task)
    return y, (x, weight)


@operation
def linear_backward(dy: np.ndarray, saved: Any) -> tuple[np.ndarray, Gradients]:
    """dx = dy W^T,  dW = x^T dy,  db = sum dy."""
    x, weight = saved
    rows, drows = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
    dx, dweight = empty(x.shape), gradient(weight)
    out = dx.reshape(rows.shape)
    work = len(rows) * weight.size
    parts, channels = _parts(len(rows), _ROWS, work), _parts(len(weight), _CHANNELS, work)

    def task(i: int) -> None:
        if i < len(channels):
            np.matmul(rows[:, channels[i]].T, drows, out=dweight[channels[i]])
        else:
            own = parts[i - len(channels)]
            np.matmul(drows[own], weight.T, out=out[own])

    each(len(channels) + len(parts), task)
    return dx, {"weight": dweight, "bias": sum_rows(dy)}
