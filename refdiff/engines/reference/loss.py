"""The mean squared error, [DDPM] eq. 14."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["mean_squared_error", "mean_squared_error_backward"]


def mean_squared_error(x: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, Any]:
    """loss = mean((x - target)^2) over every element.   x and target of one shape -> a scalar."""
    assert x.shape == target.shape, f"mean_squared_error: {x.shape} against {target.shape}"
    difference = x - target
    return (difference**2).mean(), difference


def mean_squared_error_backward(dloss: Any, saved: Any) -> np.ndarray:
    """dx = 2 (x - target) / n, n the number of elements. The target is data and gets no gradient."""
    difference = saved
    return dloss * (2 / difference.size) * difference
