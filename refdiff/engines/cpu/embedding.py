"""Rows of a table, sinusoids of the time and the loss: little work, done as the reference does it."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import reference
from .profile import operation

__all__ = [
    "embedding", "embedding_backward", "mean_squared_error", "mean_squared_error_backward", "time_embedding",
]  # fmt: skip

embedding, embedding_backward = operation(reference.embedding), operation(reference.embedding_backward)
mean_squared_error = operation(reference.mean_squared_error)
time_embedding = reference.time_embedding


@operation
def mean_squared_error_backward(dloss: Any, saved: Any) -> np.ndarray:
    """dx = 2 (x - target) / n, n the number of elements. The target is data and gets no gradient."""
    difference = saved
    return difference * np.float32(2 * float(dloss) / difference.size)
