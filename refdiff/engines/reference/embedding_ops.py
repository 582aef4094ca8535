"""Rows of a table, and the sinusoids that tell a network the time [Attention] section 3.5."""

from __future__ import annotations

from typing import Any

import numpy as np

from .tensor_ops import Gradients

__all__ = ["embedding", "embedding_backward", "time_embedding", "time_embedding_backward"]


def embedding(index: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, Any]:
    """y = weight[index].   index any shape of integers from 0 to rows - 1, weight (rows, C) -> y (*index.shape, C)."""
    assert np.all((index >= 0) & (index < len(weight))), f"embedding: expected rows from 0 to {len(weight) - 1}"
    return weight[index], (index, weight.shape)


def embedding_backward(dy: np.ndarray, saved: Any) -> Gradients:
    """dweight adds each dy to the row it was read from. An index has no gradient."""
    index, shape = saved
    dweight = np.zeros(shape, dy.dtype)
    np.add.at(dweight, index, dy)
    return {"weight": dweight}


def time_embedding(
    t: np.ndarray, channels: int, convention: str = "ddpm", dtype: Any = np.float32
) -> tuple[np.ndarray, Any]:
    """Sinusoids of t at half = channels // 2 frequencies, from 1 down to about 1 / 10000.   t (N,) -> (N, channels).

    ddpm: [sin, cos], frequency_i = 10000^(-i / (half - 1))       the code of [DDPM]
    adm:  [cos, sin], frequency_i = 10000^(-i / half)             the code of [ADM]

    A zero fills the last place when channels is odd. t: integers or floats. Computed in float64. channels at least 4.
    """
    assert channels >= 4, f"time_embedding: expected at least 4 channels, got {channels}"
    assert convention in ("ddpm", "adm"), f"time_embedding: unknown convention {convention!r}"
    half, t = channels // 2, np.asarray(t)
    i = np.arange(half)
    frequency = 10000.0 ** (-i / (half - 1 if convention == "ddpm" else half))
    angle = t[:, None] * frequency
    sin, cos = np.sin(angle), np.cos(angle)
    y = np.zeros((len(angle), channels), np.result_type(dtype, 1j) if np.iscomplexobj(t) else dtype)
    y[:, : 2 * half] = np.concatenate([sin, cos] if convention == "ddpm" else [cos, sin], axis=1)
    return y, (sin, cos, frequency, convention)


def time_embedding_backward(dy: np.ndarray, saved: Any) -> np.ndarray:
    """dt = sum_i frequency_i (cos_i dsin_i - sin_i dcos_i), in float64, cast once to dy's dtype.   (N, channels) -> (N,)"""
    sin, cos, frequency, convention = saved
    half = len(frequency)
    dsin, dcos = dy[:, :half], dy[:, half : 2 * half]
    if convention == "adm":
        dsin, dcos = dcos, dsin
    return ((cos * dsin - sin * dcos) * frequency).sum(axis=1).astype(dy.dtype)
