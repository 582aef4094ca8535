"""Rows of a table, and sinusoids of the time: little work, done as the reference does it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from .. import reference
from ..reference import Gradients
from .runtime.memory import empty, gradient_out
from .runtime.profiler import operation
from .runtime.shards import shards, tree_sum
from .runtime.traced_array import call

__all__ = [
    "embedding", "embedding_backward", "time_embedding",
    "time_embedding_backward",
]  # fmt: skip


@lru_cache(maxsize=16)
def _frequencies(channels: int, convention: str) -> np.ndarray:
    """What a time of 1 is multiplied by, in float64, for each sine."""
    half = channels // 2
    return 10000.0 ** (-np.arange(half) / (half - 1 if convention == "ddpm" else half))


def time_embedding(
    t: np.ndarray, channels: int, convention: str = "ddpm", dtype: Any = np.float32
) -> tuple[np.ndarray, Any]:
    """Sinusoids of t, computed in float64. As in the reference engine."""
    assert channels >= 4, f"time_embedding: expected at least 4 channels, got {channels}"
    assert convention in ("ddpm", "adm"), f"time_embedding: unknown convention {convention!r}"
    half, t = channels // 2, t if isinstance(t, np.ndarray) else np.asarray(t)
    y, angle = empty((len(t), channels)), t[:, None] * _frequencies(channels, convention)
    first, second = (np.sin, np.cos) if convention == "ddpm" else (np.cos, np.sin)
    first(angle, out=y[:, :half])
    second(angle, out=y[:, half : 2 * half])
    y[:, 2 * half :] = 0
    return y, (t, channels, convention)


@operation
def time_embedding_backward(dy: np.ndarray, saved: Any) -> np.ndarray:
    """dt = sum_i frequency_i (cos_i dsin_i - sin_i dcos_i), in float64, cast once.   dy (N, channels) -> (N,)."""
    t, channels, convention = saved
    half, frequency = channels // 2, _frequencies(channels, convention)
    dsin, dcos = dy[:, :half], dy[:, half : 2 * half]
    if convention == "adm":
        dsin, dcos = dcos, dsin
    angle, dt = t[:, None] * frequency, empty((len(t),))
    np.copyto(dt, np.add.reduce((np.cos(angle) * dsin - np.sin(angle) * dcos) * frequency, axis=1))
    return dt


@operation
def embedding(index: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, Any]:
    """y = weight[index].   index any shape of integers from 0 to rows - 1, weight (rows, C) -> y (*index.shape, C)."""
    y = empty((*index.shape, weight.shape[1]))
    call(_read_rows, index, weight, y)
    return y, (index, weight)


def _read_rows(index: np.ndarray, weight: np.ndarray, y: np.ndarray) -> None:
    y[...] = reference.embedding(index, weight)[0]


@operation
def embedding_backward(dy: np.ndarray, saved: Any) -> Gradients:
    """dweight adds each dy to the row it was read from. An index has no gradient."""
    (index, weight), parts = saved, shards(len(dy))
    sums = [gradient_out(weight), *(empty(weight.shape) for _ in parts[1:])]
    for shard, out in zip(parts, sums, strict=True):
        call(_add_rows, index[shard], dy[shard], out)
    return {"weight": tree_sum(sums)}


def _add_rows(index: np.ndarray, dy: np.ndarray, dweight: np.ndarray) -> None:
    dweight[...] = 0
    np.add.at(dweight, index, dy)
