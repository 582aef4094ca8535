"""Rows of a table, and the sinusoids that tell a network the time [Attention] section 3.5."""

from __future__ import annotations

from typing import Any

import numpy as np

from .tensor_ops import Gradients

__all__ = ["embedding", "embedding_backward", "time_embedding"]


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


def time_embedding(t: np.ndarray, channels: int, convention: str = "ddpm", dtype: Any = np.float32) -> np.ndarray:
    """Sinusoids of t at half = channels // 2 frequencies, from 1 down to about 1 / 10000.   t (N,) -> (N, channels).

    ddpm: [sin, cos], frequency_i = 10000^(-i / (half - 1))       the code of [DDPM]
    adm:  [cos, sin], frequency_i = 10000^(-i / half)             the code of [ADM]

    A zero fills the last place when channels is odd. Computed in float64. t gets no gradient. channels at least 4.
    """
    assert channels >= 4, f"time_embedding: expected at least 4 channels, got {channels}"
    assert convention in ("ddpm", "adm"), f"time_embedding: unknown convention {convention!r}"
    half = channels // 2
    i = np.arange(half)
    frequency = 10000.0 ** (-i / (half - 1 if convention == "ddpm" else half))
    angle = np.asarray(t, np.float64)[:, None] * frequency
    waves = [np.sin(angle), np.cos(angle)] if convention == "ddpm" else [np.cos(angle), np.sin(angle)]
    y = np.zeros((len(angle), channels), dtype)
    y[:, : 2 * half] = np.concatenate(waves, axis=1)
    return y
