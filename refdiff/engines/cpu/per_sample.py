"""What an objective does with one number a sample: lookups by t, sums of two arrays, choices, and the loss.

Each sample is worked out by itself, so the bits do not depend on what else is in the batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import reference
from .runtime.memory import empty, scratch
from .runtime.profiler import operation
from .runtime.traced_array import call, graph_input

__all__ = ["affine", "columns", "gather", "less", "squared_error", "squared_error_backward", "stop", "where"]


@operation
def squared_error(x: np.ndarray, target: np.ndarray, weight: np.ndarray | None = None) -> tuple[np.ndarray, Any]:
    """loss_n = w_n mean((x_n - target_n)^2) over the elements of each sample.   x, target (N, ...), weight (N,) -> (N,)."""
    assert x.shape == target.shape, f"squared_error: {x.shape} against {target.shape}"
    assert weight is None or weight.shape == (len(x),), f"squared_error: {weight.shape} for {len(x)} samples"
    difference, loss = empty(x.shape), empty((len(x),))
    np.subtract(x, target, out=difference)
    rows = difference.reshape(len(x), -1)
    square = np.multiply(rows, rows, out=scratch("u", *rows.shape))
    np.add.reduce(square, axis=1, out=loss)
    loss /= np.float32(rows.shape[1])
    if weight is not None:
        np.multiply(weight, loss, out=loss)
    return loss, (difference, weight)


@operation
def squared_error_backward(dloss: Any, saved: Any) -> np.ndarray:
    """dx_n = dloss_n w_n 2 (x_n - target_n) / count.   dloss (N,) or a number. Target and weight are data: no gradient."""
    difference, weight = saved
    n, two = len(difference), np.float32(2 * len(difference) / difference.size)
    factor, dx = empty((n,)), empty(difference.shape)
    np.multiply(dloss if isinstance(dloss, np.ndarray) else np.float32(dloss), two, out=factor)
    if weight is not None:
        factor *= weight
    np.multiply(_column(factor, difference), difference, out=dx)
    return dx


def columns(table: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, ...]:
    """The rows `index` of a table, as its columns, rounded once to float32.

    table (rows, K), float64 and read-only; index (N,) integers from 0 to rows - 1 -> K arrays (N,).
    """
    assert table.ndim == 2 and table.dtype == np.float64 and not table.flags.writeable, (
        "columns: expected a read-only float64 table (rows, K)"
    )
    out = empty((table.shape[1], len(index)))
    call(_look_up, table, index, out)
    return tuple(out[k] for k in range(len(out)))


def _look_up(table: np.ndarray, index: np.ndarray, out: np.ndarray) -> None:
    assert np.all((index >= 0) & (index < len(table))), f"columns: expected rows from 0 to {len(table) - 1}"
    out[...] = table[index].T


@operation
def gather(values: np.ndarray, index: np.ndarray) -> np.ndarray:
    """values[index].   values (K,) floats, index (N,) integers from 0 to K - 1 -> (N,)."""
    y = empty((len(index),))
    call(_gather, values, index, y)
    return y


def _gather(values: np.ndarray, index: np.ndarray, y: np.ndarray) -> None:
    y[...] = reference.gather(values, index)


@operation
def affine(a: np.ndarray, x: np.ndarray, b: np.ndarray, y: np.ndarray) -> np.ndarray:
    """a_n x_n + b_n y_n.   a, b (N,), x, y (N, ...) of float32 -> (N, ...), the bits of the reference in float32."""
    assert x.shape == y.shape and a.shape == b.shape == x.shape[:1], f"affine: {a.shape} {x.shape} {b.shape} {y.shape}"
    assert a.dtype == b.dtype == np.float32, f"affine: coefficients of {a.dtype} and {b.dtype}"
    out = empty(x.shape)
    np.multiply(_column(a, x), x, out=out)
    out += np.multiply(_column(b, y), y, out=scratch("u", *y.shape))
    return out


@operation
def less(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """1 where a < b, else 0: with a uniform on (0, 1), a bit that is 1 with probability b.

    a, b of one shape and dtype of floats -> like them.
    """
    assert a.shape == b.shape, f"less: {a.shape} and {b.shape}"
    y = empty(a.shape)
    call(_less, a, b, y)
    return y


def _less(a: np.ndarray, b: np.ndarray, y: np.ndarray) -> None:
    y[...] = a < b


def where(condition: np.ndarray, a: Any, b: np.ndarray) -> np.ndarray:
    """a_n of the samples where the condition holds, b_n of the others.

    condition (N,) of 0 and 1 or booleans, b (N, ...) of float32 or integers, a an array like b or a number, which takes
    b's dtype -> like b.
    """
    assert condition.shape == b.shape[:1], f"where: a condition {condition.shape} for {b.shape}"
    shape, kind = (a.shape, a.dtype) if isinstance(a, np.ndarray) else ((), np.result_type(a))
    assert shape in ((), b.shape), f"where: {shape} and {b.shape}"
    assert b.dtype == np.float32 or b.dtype.kind in "iu", f"where: expected float32 or integers, got {b.dtype}"
    assert np.can_cast(kind, b.dtype, "same_kind"), f"where: {kind} among {b.dtype}"
    out = empty(b.shape) if b.dtype == np.float32 else graph_input(np.empty(b.shape, b.dtype))
    call(_choose, condition, a, b, out)
    return out


def _choose(condition: np.ndarray, a: Any, b: np.ndarray, out: np.ndarray) -> None:
    np.copyto(out, b)
    np.copyto(out, a, where=_column(condition, b) != 0)


def stop(x: np.ndarray) -> np.ndarray:
    """The value of x without its gradient: x itself."""
    return x


def _column(a: np.ndarray, x: np.ndarray) -> np.ndarray:
    """One number a sample, to go with x.   (N,) -> (N, 1, ..., 1)"""
    return a.reshape(-1, *[1] * (x.ndim - 1))
