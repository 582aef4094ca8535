"""Rows of a table, sinusoids of the time and the loss: little work, done as the reference does it."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import reference
from ..reference.structure import Gradients
from .division import halves
from .profile import operation

__all__ = [
    "embedding", "embedding_backward", "mean_squared_error", "mean_squared_error_backward", "time_embedding",
]  # fmt: skip

embedding = operation(reference.embedding)
time_embedding = reference.time_embedding


@operation
def embedding_backward(dy: np.ndarray, saved: Any) -> Gradients:
    """dweight adds each dy to the row it was read from. An index has no gradient."""
    index, shape = saved
    first, *more = (reference.embedding_backward(dy[half], (index[half], shape)) for half in halves(len(dy)))
    for part in more:
        first["weight"] += part["weight"]
    return first


@operation
def mean_squared_error(x: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, Any]:
    """loss = mean((x - target)^2) over every element.   x and target of one shape -> a scalar."""
    assert x.shape == target.shape, f"mean_squared_error: {x.shape} against {target.shape}"
    difference = x - target
    loss = sum(len(d) / len(x) * float((d**2).mean()) for d in (difference[half] for half in halves(len(x))))
    return np.asarray(loss), difference


@operation
def mean_squared_error_backward(dloss: Any, saved: Any) -> np.ndarray:
    """dx = 2 (x - target) / n, n the number of elements. The target is data and gets no gradient."""
    difference = saved
    dx = np.empty_like(difference)
    for half in halves(len(dx)):
        share = len(dx[half]) / len(dx)
        np.multiply(difference[half], np.float32(float(dloss) * share * (2 / dx[half].size)), out=dx[half])
    return dx
