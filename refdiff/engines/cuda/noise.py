"""Noise on the device: kernels/noise.cu and philox.cuh, the very numbers of `refdiff.random`."""

from __future__ import annotations

import ctypes
from math import prod
from typing import Any

import numpy as np

from ...random import Sequence, Stream
from .runtime.context import THREADS, Array, blocks, current

__all__ = ["advance", "integers", "key_arguments", "noised", "normal"]


def key_arguments(key: Sequence) -> tuple[Any, ...]:
    """What kernels take for a key: seed low and high, stream, the address of the step or null, the step.

    key.step: an integer, or an int32 Array of shape () which is read when the kernel runs, so that each replay of a
    captured step draws anew.
    """
    assert not key.first, f"key.first: expected 0, got {key.first}: give the samples' numbers instead"
    step: Any = key.step
    at = step if isinstance(step, Array) else None
    assert at is None or (at.shape == () and at.dtype == "int32"), f"key.step: expected an int32 scalar, got {at}"
    given = ctypes.c_uint(0 if at is not None else int(step))
    return (
        ctypes.c_uint(key.seed & 0xFFFFFFFF),
        ctypes.c_uint(key.seed >> 32),
        ctypes.c_uint(int(key.stream)),
        at,
        given,
    )


def normal(key: Sequence, n: int | Array, shape: tuple[int, ...] = (), dtype: Any = np.float32) -> Array:
    """`random.normal` of samples 0 .. n - 1, or of those whose numbers (N,) int32 are given as n.   -> (N, *shape)."""
    index, samples, context = _index(n)
    y = context.empty((samples, *shape), dtype)
    count = prod(shape)
    context.launch(
        "noise.cu", "normal", blocks(samples * blocks(count, 4), THREADS), THREADS, index, y, samples, count,
        *key_arguments(key), dtype=y.dtype,
    )  # fmt: skip
    return y


def integers(key: Sequence, n: int | Array, low: int, high: int) -> Array:
    """`random.integers`, low to high with both ends, of samples 0 .. n - 1 or of those numbers.   -> (N,) int32."""
    assert -(1 << 31) <= low <= high < 1 << 31, f"integers: expected low <= high in int32, got {low} and {high}"
    index, samples, context = _index(n)
    y = context.empty((samples,), "int32")
    context.launch(
        "noise.cu", "integers", blocks(samples, THREADS), THREADS, index, y, samples, low,
        ctypes.c_ulonglong(high - low + 1), *key_arguments(key),
    )  # fmt: skip
    return y


def noised(
    x0: Array, table: Array, seed: int, step: int | Array, dtype: Any = np.float32
) -> tuple[Array, Array, Array]:
    """x_t, t and the target of training step `step` [DDPM] algorithm 1, in one launch; as in `training.train_step`.

    x0 (N, ...) float32, table (T + 1, 4) float32 with rows (a, b, c, d): x_t = a x_0 + b eps, target = c x_0 + d eps; step
    an integer or an int32 Array of shape ()
    -> x_t (N, ...) of dtype, t (N,) int32, target (N, ...) of dtype.
    """
    assert x0.dtype == table.dtype == "float32", f"noised: {x0}, {table}"
    assert (x0.dense, table.shape[1:]) == (True, (4,)), f"noised: {x0}, {table}"
    n, context = x0.shape[0], x0.context
    x_t, t, wanted = context.empty(x0.shape, dtype), context.empty((n,), "int32"), context.empty(x0.shape, dtype)
    low, high, stream, step_at, given = key_arguments(Sequence(seed, Stream.TIME, step))  # type: ignore[arg-type]
    count = x0.size // n
    context.launch(
        "noise.cu", "noised", blocks(n * blocks(count, 4), THREADS), THREADS, x0, table, t, x_t, wanted, n, count,
        table.shape[0] - 1, low, high, stream, ctypes.c_uint(Stream.NOISE), step_at, given, dtype=x_t.dtype,
    )  # fmt: skip
    return x_t, t, wanted


def advance(counter: Array) -> None:
    """counter += 1, in place, on the device: the number of the step that a captured graph is at. int32, shape ()."""
    assert (counter.shape, counter.dtype) == ((), "int32"), f"advance: expected an int32 scalar, got {counter}"
    counter.context.launch("noise.cu", "advance", 1, 32, counter)


def _index(n: int | Array) -> tuple[Array | None, int, Any]:
    if not isinstance(n, Array):
        return None, int(n), current()
    assert (n.dtype, n.ndim) == ("int32", 1), f"index: expected int32 (N,), got {n}"
    return n, n.shape[0], n.context
