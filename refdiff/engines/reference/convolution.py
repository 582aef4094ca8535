"""Two-dimensional convolution, as deep learning calls it: the filter is not flipped.

y[n,h,w,o] = b[o] + sum_{i,j,c} x[n, h s + i - p, w s + j - p, c] W[i,j,c,o], zeros outside, s the stride, p the padding
before. Gathering the windows x[n, h s + i - p, w s + j - p, :] as rows makes it one matrix product.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from .tensor_ops import Gradients

__all__ = ["conv2d", "conv2d_backward"]


def conv2d(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: int = 1, padding: tuple[int, int] | None = None
) -> tuple[np.ndarray, Any]:
    """x (N, H, W, C_in), weight (kh, kw, C_in, C_out), bias (C_out,) -> y (N, H', W', C_out),

    H' = (H + p_before + p_after - kh) // s + 1, and W' likewise.

    padding (before, after), the same for both axes: (1, 1) is symmetric, (0, 1) one-sided as in DDPM's down-sampling.
    None keeps the size at stride 1: ((k - 1) / 2 on both sides, k odd).
    """
    kh, kw, c_in, c_out = weight.shape
    assert x.shape[3] == c_in, f"conv2d: weight takes {c_in} channels, x has {x.shape[3]}"
    if padding is None:
        assert kh == kw == kh // 2 * 2 + 1, f"conv2d: padding must be given for a {kh}x{kw} filter"
        padding = (kh // 2, kh // 2)
    rows = _windows(x, kh, kw, stride, padding)
    y = rows.reshape(-1, kh * kw * c_in) @ weight.reshape(-1, c_out) + bias
    return y.reshape(*rows.shape[:3], c_out), (x, weight, stride, padding)


def conv2d_backward(dy: np.ndarray, saved: Any, needs_dx: bool = True) -> tuple[np.ndarray | None, Gradients]:
    """dW = windows^T dy,  db = sum dy,  and dx adds each window's gradient dy W^T back where the window was read.

    needs_dx: False where x is data, whose gradient nobody asks for: dx is then None and costs nothing.
    """
    x, weight, stride, padding = saved
    kh, kw, c_in, c_out = weight.shape
    (_, h, w, _), (n, out_h, out_w, _) = x.shape, dy.shape
    dy_rows = dy.reshape(-1, c_out)
    dweight = _windows(x, kh, kw, stride, padding).reshape(-1, kh * kw * c_in).T @ dy_rows
    g = {"weight": dweight.reshape(weight.shape), "bias": dy_rows.sum(axis=0)}
    if not needs_dx:
        return None, g
    dwindows = (dy_rows @ weight.reshape(-1, c_out).T).reshape(n, out_h, out_w, kh, kw, c_in)
    before = padding[0]
    dx = np.zeros((n, h + sum(padding), w + sum(padding), c_in), dy.dtype)
    for i in range(kh):
        for j in range(kw):
            dx[:, i : i + stride * out_h : stride, j : j + stride * out_w : stride] += dwindows[:, :, :, i, j]
    return dx[:, before : before + h, before : before + w].copy(), g


def _windows(x: np.ndarray, kh: int, kw: int, stride: int, padding: tuple[int, int]) -> np.ndarray:
    """What each output pixel sees.   (N, H, W, C) -> (N, H', W', kh, kw, C), contiguous."""
    padded = np.pad(x, ((0, 0), padding, padding, (0, 0)))
    windows = sliding_window_view(padded, (kh, kw), axis=(1, 2))[:, ::stride, ::stride]
    return np.ascontiguousarray(windows.transpose(0, 1, 2, 4, 5, 3))
