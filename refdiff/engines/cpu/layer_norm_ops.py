"""Layer norm [LN]: a group norm of each row alone. Sums over a row are products with ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..reference.tensor_ops import Gradients
from .direct import sum_rows
from .elementwise import over_samples
from .products import times_column
from .runtime.memory import empty, scratch
from .runtime.profiler import operation

__all__ = ["layer_norm", "layer_norm_backward"]


@operation
def layer_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, epsilon: float = 1e-5) -> tuple[np.ndarray, Any]:
    """y = weight * xhat + bias, normalised over the last axis.   [LN] eq. 3"""
    c = x.shape[-1]
    y, xhat = empty(x.shape), empty(x.shape)
    rows, out, kept = (a.reshape(-1, c) for a in (x, y, xhat))
    inverse, average = empty((len(rows), 1)), np.full((c, 1), 1 / c, np.float32)

    def task(own: slice) -> None:
        d = kept[own]
        np.subtract(rows[own], times_column(rows[own], average), out=d)
        square = np.multiply(d, d, out=scratch("u", *d.shape))
        inverse[own] = 1 / np.sqrt(times_column(square, average) + np.float32(epsilon))
        d *= inverse[own]
        np.multiply(d, weight, out=out[own])
        out[own] += bias

    over_samples(x.shape, task)
    return y, (xhat, inverse, weight)


@operation
def layer_norm_backward(dy: np.ndarray, saved: Any) -> tuple[np.ndarray, Gradients]:
    """dweight = sum dy xhat,  dbias = sum dy,  dx = (dxhat - mean(dxhat) - xhat mean(dxhat xhat)) / sd."""
    xhat, inverse, weight = saved
    c = dy.shape[-1]
    dx, product = empty(dy.shape), empty(dy.shape)
    rows, kept, out, products = (a.reshape(-1, c) for a in (dy, xhat, dx, product))
    average = np.full((c, 1), 1 / c, np.float32)

    def task(own: slice) -> None:
        d, hat, p = out[own], kept[own], products[own]
        np.multiply(rows[own], weight, out=d)
        np.multiply(d, hat, out=p)
        slope, flat = times_column(p, average), times_column(d, average)
        np.multiply(hat, slope, out=p)
        d -= p
        d -= flat
        d *= inverse[own]
        np.multiply(rows[own], hat, out=p)

    over_samples(dy.shape, task)
    return dx, {"weight": sum_rows(product), "bias": sum_rows(dy)}
