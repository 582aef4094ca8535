"""Rows of a table, sinusoids of the time and the loss: little work, done as the reference does it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from .. import reference
from ..reference.structure import Gradients
from .division import halves
from .memory import empty, scratch
from .profile import operation

__all__ = [
    "embedding", "embedding_backward", "mean_squared_error", "mean_squared_error_backward", "time_embedding",
    "time_embedding_backward",
]  # fmt: skip

embedding = operation(reference.embedding)


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
    difference, parts = empty(x.shape), halves(len(x))
    np.subtract(x, target, out=difference)
    means, shares = empty((len(parts),)), np.empty(len(parts))
    for i, half in enumerate(parts):
        d = difference[half]
        square = np.multiply(d, d, out=scratch("u", *d.shape))
        np.add.reduce(square, axis=None, out=means[i : i + 1].reshape(()))
        means[i : i + 1] /= np.float32(d.size)
        shares[i] = len(d) / len(x)
    return np.add.reduce(means * shares, keepdims=True).reshape(()), difference


@operation
def mean_squared_error_backward(dloss: Any, saved: Any) -> np.ndarray:
    """dx = 2 (x - target) / n, n the number of elements. The target is data and gets no gradient."""
    difference = saved
    dx = empty(difference.shape)
    for half in halves(len(dx)):
        share = len(dx[half]) / len(dx)
        np.multiply(difference[half], np.float32(float(dloss) * share * (2 / dx[half].size)), out=dx[half])
    return dx
