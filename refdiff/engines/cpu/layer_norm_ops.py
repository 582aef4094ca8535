"""Layer norm [LN]: a group norm of each row alone. Sums over a row are products with ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..reference import Gradients
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
    x_rows, y_rows, xhat_rows = (a.reshape(-1, c) for a in (x, y, xhat))
    inverse, average = empty((len(x_rows), 1)), np.full((c, 1), 1 / c, np.float32)

    def task(rows: slice) -> None:
        d = xhat_rows[rows]
        np.subtract(x_rows[rows], times_column(x_rows[rows], average), out=d)
        square = np.multiply(d, d, out=scratch("u", *d.shape))
        inverse[rows] = 1 / np.sqrt(times_column(square, average) + np.float32(epsilon))
        d *= inverse[rows]
        np.multiply(d, weight, out=y_rows[rows])
        y_rows[rows] += bias

    over_samples(x.shape, task)
    return y, (xhat, inverse, weight)


@operation
def layer_norm_backward(dy: np.ndarray, saved: Any) -> tuple[np.ndarray, Gradients]:
    """dweight = sum dy xhat,  dbias = sum dy,  dx = (dxhat - mean(dxhat) - xhat mean(dxhat xhat)) / sd."""
    xhat, inverse, weight = saved
    c = dy.shape[-1]
    dx, product = empty(dy.shape), empty(dy.shape)
    dy_rows, xhat_rows, dx_rows, product_rows = (a.reshape(-1, c) for a in (dy, xhat, dx, product))
    average = np.full((c, 1), 1 / c, np.float32)

    def task(rows: slice) -> None:
        d, hat, p = dx_rows[rows], xhat_rows[rows], product_rows[rows]
        np.multiply(dy_rows[rows], weight, out=d)
        np.multiply(d, hat, out=p)
        slope, flat = times_column(p, average), times_column(d, average)
        np.multiply(hat, slope, out=p)
        d -= p
        d -= flat
        d *= inverse[rows]
        np.multiply(dy_rows[rows], hat, out=p)

    over_samples(dy.shape, task)
    return dx, {"weight": sum_rows(product), "bias": sum_rows(dy)}
