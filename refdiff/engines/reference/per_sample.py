"""What an objective does with one number a sample: its coefficients are looked up by t, combine arrays and weigh a loss.

None of these but `squared_error` has a gradient: what they make is data, drawn before the networks are asked.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["affine", "columns", "gather", "less", "squared_error", "squared_error_backward", "stop", "where"]


def squared_error(x: np.ndarray, target: np.ndarray, weight: np.ndarray | None = None) -> tuple[np.ndarray, Any]:
    """loss_n = w_n mean((x_n - target_n)^2) over the elements of each sample.   [DDPM] eq. 14

    x and target of one shape (N, ...), weight (N,), cast to x's real dtype, or None for 1 -> (N,).
    """
    assert x.shape == target.shape, f"squared_error: {x.shape} against {target.shape}"
    assert weight is None or weight.shape == (len(x),), f"squared_error: {weight.shape} for {len(x)} samples"
    difference = x - target
    loss = (difference**2).reshape(len(x), -1).mean(axis=1)
    if weight is not None:
        weight = stop(weight).astype(x.real.dtype)
        loss = weight * loss
    return loss, (difference, weight)


def squared_error_backward(dloss: Any, saved: Any) -> np.ndarray:
    """dx_n = dloss_n w_n 2 (x_n - target_n) / count.   dloss (N,) or a number. Target and weight are data: no gradient."""
    difference, weight = saved
    factor = np.asarray(dloss, difference.dtype) * (2 * len(difference) / difference.size)
    if weight is not None:
        factor = factor * weight
    return factor.reshape(-1, *[1] * (difference.ndim - 1)) * difference


def columns(table: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, ...]:
    """The rows `index` of a table, as its columns: coefficients of t, looked up.

    table (rows, K), float64 and read-only, so that an engine may keep a copy of it; index (N,) integers from 0 to
    rows - 1 -> K arrays (N,).
    """
    assert table.ndim == 2 and table.dtype == np.float64 and not table.flags.writeable, (
        "columns: expected a read-only float64 table (rows, K)"
    )
    assert np.all((index >= 0) & (index < len(table))), f"columns: expected rows from 0 to {len(table) - 1}"
    return tuple(column.copy() for column in table[index].T)


def gather(values: np.ndarray, index: np.ndarray) -> np.ndarray:
    """values[index], such as the probability of each sample's t.

    values (K,) floats, index (N,) integers from 0 to K - 1 -> (N,).
    """
    assert values.ndim == index.ndim == 1, (
        f"gather: expected values (K,) and index (N,), got {values.shape}, {index.shape}"
    )
    assert np.all((index >= 0) & (index < len(values))), f"gather: expected places from 0 to {len(values) - 1}"
    return values[index]


def affine(a: np.ndarray, x: np.ndarray, b: np.ndarray, y: np.ndarray) -> np.ndarray:
    """a_n x_n + b_n y_n, such as x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps.   [DDPM] eq. 4

    a and b (N,), cast to x's dtype first; x and y of one shape (N, ...) -> their shape.
    """
    assert x.shape == y.shape and a.shape == b.shape == x.shape[:1], f"affine: {a.shape} {x.shape} {b.shape} {y.shape}"
    a, b = (c.astype(x.dtype).reshape(-1, *[1] * (x.ndim - 1)) for c in (a, b))
    return a * x + b * y


def less(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """1 where a < b, else 0: with a uniform on (0, 1), a bit that is 1 with probability b.

    a, b of one shape and dtype of floats -> like them.
    """
    assert a.shape == b.shape, f"less: {a.shape} and {b.shape}"
    return (a.real < b.real).astype(b.real.dtype)


def where(condition: np.ndarray, a: Any, b: np.ndarray) -> np.ndarray:
    """a_n of the samples where the condition holds, b_n of the others.

    condition (N,) of 0 and 1 or booleans, b (N, ...) of floats or integers, a an array like b or a number, which takes
    b's dtype -> like b.
    """
    assert condition.shape == b.shape[:1], f"where: a condition {condition.shape} for {b.shape}"
    assert np.shape(a) in ((), b.shape), f"where: {np.shape(a)} and {b.shape}"
    assert np.can_cast(np.result_type(a), b.dtype, "same_kind"), f"where: {np.result_type(a)} among {b.dtype}"
    return np.where(condition.reshape(-1, *[1] * (b.ndim - 1)) != 0, np.asarray(a, b.dtype), b)


def stop(x: np.ndarray) -> np.ndarray:
    """The value of x without its gradient: the real part, through which no complex step passes."""
    return x.real
