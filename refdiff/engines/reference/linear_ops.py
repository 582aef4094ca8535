"""The linear layer, over the last axis: on an image (N, H, W, C) it is the 1x1 convolution."""

from __future__ import annotations

from typing import Any

import numpy as np

from .tensor_ops import Gradients

__all__ = ["linear", "linear_backward"]


def linear(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, Any]:
    """y = x W + b.   x (..., in), weight (in, out), bias (out,) -> y (..., out)."""
    return x @ weight + bias, (x, weight)


def linear_backward(dy: np.ndarray, saved: Any, needs_dx: bool = True) -> tuple[np.ndarray | None, Gradients]:
    """dx = dy W^T,  dW = x^T dy,  db = sum dy.   needs_dx: as of conv2d_backward."""
    x, weight = saved
    rows, drows = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
    return dy @ weight.T if needs_dx else None, {"weight": rows.T @ drows, "bias": drows.sum(axis=0)}
