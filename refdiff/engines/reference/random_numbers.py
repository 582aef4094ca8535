"""Random numbers as operations: pure functions of a `refdiff.random.Sequence`, of its samples first .. first + n - 1.

The same sequence gives the same numbers on every engine: integers and 0 or 1 to the bit, float32 to its last digits.
"""

from __future__ import annotations

import numpy as np

from ... import random
from ...random import Sequence, uniform_threshold

__all__ = ["antithetic", "antithetic_steps", "bernoulli", "categorical", "integers", "normal", "uniform"]


def normal(sequence: Sequence, n: int, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal numbers [BoxMuller], computed in float64 and cast once.   -> (n, *shape) float32."""
    return random.normal(sequence, np.arange(n), shape)


def uniform(sequence: Sequence, n: int, shape: tuple[int, ...] = ()) -> np.ndarray:
    """Uniform on (0, 1), cast once from float64; the largest numbers round to 1.   -> (n, *shape) float32."""
    return random.uniform(sequence, np.arange(n), shape, np.float32)


def integers(sequence: Sequence, n: int, low: int, high: int) -> np.ndarray:
    """Uniform integers from low to high, both included.   -> (n,) integers."""
    return random.integers(sequence, np.arange(n), low, high)


def bernoulli(sequence: Sequence, n: int, rate: float) -> np.ndarray:
    """1 where a uniform number does not exceed rate in [0, 1], in exact arithmetic, else 0: where `dropout` drops.

    -> (n,) integers.
    """
    assert 0 <= rate <= 1, f"bernoulli: expected a rate in [0, 1], got {rate}"
    words = random.bits(sequence, np.arange(n), 1)[:, 0]
    return (words < np.uint64(uniform_threshold(rate))).astype(np.int64)


def categorical(sequence: Sequence, n: int, cumulative: np.ndarray) -> np.ndarray:
    """k with probability cumulative[k] - cumulative[k - 1]: how many of its entries a uniform number reaches, at most K - 1.

    cumulative (K,) floats that do not decrease, the last about 1, compared with numbers in float64 -> (n,) integers.
    """
    assert cumulative.ndim == 1 and len(cumulative), f"categorical: expected cumulative (K,), got {cumulative.shape}"
    u = random.uniform(sequence, np.arange(n))
    return np.minimum((cumulative <= u[:, None]).sum(axis=1), len(cumulative) - 1)


def antithetic(sequence: Sequence, n: int, total: int) -> np.ndarray:
    """t_i = (u + i / total) mod 1 of the samples i = first .. first + n - 1 of a step of `total`, u one uniform number for
    all of them: each t is uniform, and together they are evenly spread.   [VDM] appendix I.1   -> (n,) float32 in [0, 1]
    """
    return _antithetic(sequence, n, total).astype(np.float32)


def antithetic_steps(sequence: Sequence, n: int, total: int, T: int) -> np.ndarray:
    """1 + floor(T t_i), t_i those of `antithetic` in float64: steps from 1 to T.   -> (n,) integers"""
    assert T >= 1, f"antithetic_steps: expected at least one step, got {T}"
    return 1 + np.minimum(np.floor(T * _antithetic(sequence, n, total)).astype(np.int64), T - 1)


def _antithetic(sequence: Sequence, n: int, total: int) -> np.ndarray:
    assert total >= 1, f"antithetic: expected a step of at least one sample, got {total}"
    t = random.uniform(sequence._replace(first=0), np.arange(1)) + (sequence.first + np.arange(n)) / total
    return t - np.floor(t)
