"""Noise on the device: kernels/noise.cu and philox.cuh, the very numbers of `refdiff.random`."""

from __future__ import annotations

import ctypes
from math import prod
from typing import Any

import numpy as np

from ...random import Sequence, Stream
from .runtime.context import THREADS, Array, blocks, current
from .structs import Struct, struct

__all__ = ["advance", "diffuse_batch", "integers", "normal", "sequence"]

Draw = struct("philox.cuh", "Sequence")
DiffuseBatch = struct("noise.cu", "DiffuseBatch")


def sequence(key: Sequence) -> Struct:
    """What kernels take for a key.

    key.step, key.first: integers, or int32 Arrays of shape () which are read when the kernel runs, so that each replay of a
    captured step draws anew.
    """
    values: dict[str, Any] = {"low": key.seed & 0xFFFFFFFF, "high": key.seed >> 32, "stream": int(key.stream)}
    for name, x in (("step", key.step), ("first", key.first)):
        on_device = isinstance(x, Array)
        if isinstance(x, Array):
            assert (x.shape, x.dtype) == ((), "int32"), f"key.{name}: expected an int32 scalar, got {x}"
        values |= {name: 0 if on_device else x, f"{name}_at": x if on_device else None}
    return Draw(**values)


def normal(key: Sequence, n: int | Array, shape: tuple[int, ...] = (), dtype: Any = np.float32) -> Array:
    """`random.normal` of samples 0 .. n - 1, or of those whose ids (N,) int32 are given as n.   -> (N, *shape)."""
    sample_ids, samples, context = _sample_ids(n)
    y = context.empty((samples, *shape), dtype)
    count = prod(shape)
    context.launch(
        "noise.cu", "normal", blocks(samples * blocks(count, 4), THREADS), THREADS, sample_ids, y, samples, count,
        sequence(key), dtype=y.dtype,
    )  # fmt: skip
    return y


def integers(key: Sequence, n: int | Array, low: int, high: int) -> Array:
    """`random.integers`, low to high with both ends, of samples 0 .. n - 1 or of those ids.   -> (N,) int32."""
    assert -(1 << 31) <= low <= high < 1 << 31, f"integers: expected low <= high in int32, got {low} and {high}"
    sample_ids, samples, context = _sample_ids(n)
    y = context.empty((samples,), "int32")
    context.launch(
        "noise.cu", "integers", blocks(samples, THREADS), THREADS, sample_ids, y, samples, low,
        ctypes.c_ulonglong(high - low + 1), sequence(key),
    )  # fmt: skip
    return y


def diffuse_batch(
    x0: Array, table: Array, seed: int, step: int | Array, dtype: Any = np.float32, first: int | Array = 0
) -> tuple[Array, Array, Array]:
    """x_t, t and the target of training step `step` [DDPM] algorithm 1, in one launch; as in `training.train_step`.

    x0 (N, ...) float32, samples first .. first + N - 1 of the step; table (T + 1, 4) float32 with rows (a, b, c, d):
    x_t = a x_0 + b eps, target = c x_0 + d eps; step and first integers or int32 Arrays of shape ()
    -> x_t (N, ...) of dtype, t (N,) int32, target (N, ...) of dtype.
    """
    assert x0.dtype == table.dtype == "float32", f"diffuse_batch: {x0}, {table}"
    assert (x0.dense, table.shape[1:]) == (True, (4,)), f"diffuse_batch: {x0}, {table}"
    n, context = x0.shape[0], x0.context
    x_t, t, target = context.empty(x0.shape, dtype), context.empty((n,), "int32"), context.empty(x0.shape, dtype)
    time, noise = (
        sequence(Sequence(seed, stream, step, first))  # type: ignore[arg-type]
        for stream in (Stream.TIME, Stream.NOISE)
    )
    count = x0.size // n
    context.launch(
        "noise.cu", "diffuse_batch", blocks(n * blocks(count, 4), THREADS), THREADS,
        DiffuseBatch(x0=x0, table=table, t=t, x_t=x_t, target=target, samples=n, count=count, T=table.shape[0] - 1,
                     time=time, noise=noise),
        dtype=x_t.dtype,
    )  # fmt: skip
    return x_t, t, target


def advance(counter: Array) -> None:
    """counter += 1, in place, on the device: the number of the step that a captured graph is at. int32, shape ()."""
    assert (counter.shape, counter.dtype) == ((), "int32"), f"advance: expected an int32 scalar, got {counter}"
    counter.context.launch("noise.cu", "advance", 1, 32, counter)


def _sample_ids(n: int | Array) -> tuple[Array | None, int, Any]:
    if not isinstance(n, Array):
        return None, int(n), current()
    assert (n.dtype, n.ndim) == ("int32", 1), f"sample_ids: expected int32 (N,), got {n}"
    return n, n.shape[0], n.context
