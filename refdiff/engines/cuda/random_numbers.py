"""Random numbers as operations: kernels/random.cu, the numbers of `refdiff.random`.

The step and the first sample of a sequence are integers, or int32 Arrays of shape () that are read when the kernel runs, so
that each replay of a captured step draws anew.
"""

from __future__ import annotations

import ctypes
from math import prod
from typing import Any

from ...random import Sequence, uniform_threshold
from .noise import sequence as sequence_argument
from .runtime.context import THREADS, Array, Context, blocks, current

__all__ = ["bernoulli", "integers", "normal", "uniform"]


def normal(sequence: Sequence, n: int, shape: tuple[int, ...]) -> Array:
    """Standard normal numbers [BoxMuller], computed in float64 and cast once.   -> (n, *shape) float32."""
    return _elements("normal", sequence, n, shape)


def uniform(sequence: Sequence, n: int, shape: tuple[int, ...] = ()) -> Array:
    """Uniform on (0, 1), cast once from float64; the largest numbers round to 1.   -> (n, *shape) float32."""
    return _elements("uniform", sequence, n, shape)


def integers(sequence: Sequence, n: int, low: int, high: int) -> Array:
    """Uniform integers from low to high, both included.   -> (n,) int32."""
    assert -(1 << 31) <= low <= high < 1 << 31, f"integers: expected low <= high in int32, got {low} and {high}"
    return _one_a_sample("integers", sequence, n, low, ctypes.c_ulonglong(high - low + 1))


def bernoulli(sequence: Sequence, n: int, rate: float) -> Array:
    """1 where a uniform number does not exceed rate in [0, 1], in exact arithmetic, else 0: where `dropout` drops.

    -> (n,) int32.
    """
    assert 0 <= rate <= 1, f"bernoulli: expected a rate in [0, 1], got {rate}"
    return _one_a_sample("bernoulli", sequence, n, ctypes.c_ulonglong(uniform_threshold(rate)))


def _elements(name: str, sequence: Sequence, n: int, shape: tuple[int, ...]) -> Array:
    y, count = _context(sequence).empty((n, *shape)), prod(shape)
    grid = blocks(n * blocks(count, 4), THREADS)
    y.context.launch("random.cu", name, grid, THREADS, y, n, count, sequence_argument(sequence))
    return y


def _one_a_sample(name: str, sequence: Sequence, n: int, *arguments: Any) -> Array:
    y = _context(sequence).empty((n,), "int32")
    y.context.launch("random.cu", name, blocks(n, THREADS), THREADS, y, n, *arguments, sequence_argument(sequence))
    return y


def _context(sequence: Sequence) -> Context:
    at: Any = (sequence.step, sequence.first)
    return next((a.context for a in at if isinstance(a, Array)), None) or current()
