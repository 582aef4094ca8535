"""Rows of a table, and the sinusoidal timestep embedding: kernels/embedding.cu and time.cu."""

from __future__ import annotations

from typing import Any

import numpy as np

from .runtime.context import ITEMSIZE, THREADS, Array, Context, blocks, current
from .structs import constant, struct
from .tensor_ops import Gradients, dense

__all__ = ["embedding", "embedding_backward", "time_embedding", "time_embedding_backward"]

TimeEmbedding = struct("time.cu", "TimeEmbedding")
WALKERS = constant("embedding.cu", "WALKERS")


def embedding(index: Any, weight: Array) -> tuple[Array, Any]:
    """y = weight[index].   index any shape of integers from 0 to rows - 1, weight (rows, C) -> y (*index.shape, C).

    An index on the device is int32, and nothing checks that it lies in the table.
    """
    rows, c = weight.shape
    context = index.context if isinstance(index, Array) else weight.context
    index = integers_of(index, context, 0, rows - 1)
    y = context.empty((*index.shape, c), weight.dtype)
    pack = 16 // ITEMSIZE[y.dtype]
    grid = blocks(y.size, THREADS * (pack if c % pack == 0 else 1))
    context.launch("embedding.cu", "embedding", grid, THREADS, index, weight, y, c, y.size, dtype=y.dtype)
    return y, (index, weight.shape)


def embedding_backward(dy: Array, saved: Any) -> Gradients:
    """dweight adds each dy to the row it was read from, in float32. An index has no gradient."""
    index, (rows, c) = saved
    dy, dweight = dense(dy), dy.context.empty((rows, c))
    width = min(1 << (c - 1).bit_length(), WALKERS)
    dy.context.launch(
        "embedding.cu", "embedding_backward", (rows, blocks(c, width)), WALKERS, dy, index, dweight, index.size, c, width,
        dtype=dy.dtype,
    )  # fmt: skip
    return {"weight": dweight}


def time_embedding(t: Any, channels: int, convention: str = "ddpm", dtype: Any = np.float32) -> tuple[Array, Any]:
    """Sinusoids of t at half = channels // 2 frequencies, from 1 down to about 1 / 10000.   t (N,) -> (N, channels).

    ddpm: [sin, cos], frequency_i = 10000^(-i / (half - 1));  adm: [cos, sin], frequency_i = 10000^(-i / half).
    A zero fills the last place when channels is odd. In float64. t: integers or floats, on the device int32 or float32.
    channels at least 4.
    """
    assert channels >= 4, f"time_embedding: expected at least 4 channels, got {channels}"
    assert convention in ("ddpm", "adm"), f"time_embedding: unknown convention {convention!r}"
    context, half = t.context if isinstance(t, Array) else current(), channels // 2
    if not isinstance(t, Array) and np.asarray(t).dtype.kind == "f":
        t = context.array(t)
    elif not isinstance(t, Array) or t.dtype != "float32":
        t = integers_of(t, context, -(1 << 31), (1 << 31) - 1)
    assert t.dense, f"time_embedding: {t} is part of a split"
    y = context.empty((t.shape[0], channels), dtype)
    last, sine, cosine = (half - 1, 0, half) if convention == "ddpm" else (half, half, 0)
    steps, times = (t, None) if t.dtype == "int32" else (None, t)
    given = TimeEmbedding(
        steps=steps, times=times, n=t.shape[0], channels=channels, last=last, sine=sine, cosine=cosine
    )
    grid = blocks(t.shape[0] * half, THREADS)
    context.launch("time.cu", "time_embedding", grid, THREADS, given, y, dtype=y.dtype)
    return y, (t, given)


def time_embedding_backward(dy: Array, saved: Any) -> Array:
    """dt = sum_i frequency_i (cos_i dsin_i - sin_i dcos_i), float32.   dy (N, channels) -> (N,)."""
    t, given = saved
    dy, dt = dense(dy), dy.context.empty(t.shape)
    grid = blocks(t.shape[0], THREADS // 32)
    dy.context.launch("time.cu", "time_embedding_backward", grid, THREADS, given, dy, dt, dtype=dy.dtype)
    return dt


def integers_of(x: Any, context: Context, low: int, high: int) -> Array:
    """x as an int32 array of the device; what comes from the host is checked."""
    if isinstance(x, Array):
        assert (x.dtype, x.dense) == ("int32", True), f"expected dense int32, got {x}"
        return x
    x = np.asarray(x)
    assert x.dtype.kind in "iu", f"expected integers, got {x.dtype}"
    assert np.all((x >= low) & (x <= high)), f"expected integers from {low} to {high}"
    return context.array(x, "int32")
