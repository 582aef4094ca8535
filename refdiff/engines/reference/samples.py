"""One number a sample: how it goes with arrays (N, ...), and how gradients come back to it."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["column", "sum_like", "sums"]


def column(a: Any, x: np.ndarray) -> np.ndarray:
    """A number, or one a sample (N,), as (N, 1, ..., 1), to go with x (N, ...); an array of x's shape as it is."""
    a = np.asarray(a)
    assert a.shape in ((), x.shape, x.shape[:1]), (
        f"one number a sample: expected {x.shape[:1]} or {x.shape}, got {a.shape}"
    )
    return a if a.shape == x.shape else a.reshape(-1, *[1] * (x.ndim - 1))


def sums(x: np.ndarray) -> np.ndarray:
    """The sum over the elements of each sample.   (N, ...) -> (N,)"""
    y: np.ndarray = x.reshape(len(x), -1).sum(axis=1)
    return y


def sum_like(d: np.ndarray, a: np.ndarray) -> np.ndarray:
    """d (N, ...), the gradient of what `column` made of a: itself, or where a is one number a sample, its sums."""
    return d if d.shape == a.shape else sums(d)
