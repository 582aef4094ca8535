"""How far a mean of samples may be from what it estimates."""

from __future__ import annotations

import numpy as np

__all__ = ["standard_error"]


def standard_error(values: np.ndarray) -> float:
    """The standard error of the mean of independent values, their deviation over sqrt(n); of a single one 0, for it tells
    nothing of its spread.   (n,)"""
    values = np.asarray(values, np.float64)
    return float(values.std() / max(len(values) - 1, 1) ** 0.5)
