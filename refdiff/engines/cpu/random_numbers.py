"""Random numbers as operations: those of the reference. Drawn outside captures, in which they would be constants."""

from __future__ import annotations

import numpy as np

from ...random import Sequence
from .. import reference
from .runtime.traced_array import is_capturing

__all__ = ["antithetic", "antithetic_steps", "bernoulli", "categorical", "integers", "normal", "uniform"]


def normal(sequence: Sequence, n: int, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal numbers.   -> (n, *shape) float32. TypeError inside a capture."""
    _outside("normal")
    return reference.normal(sequence, n, shape)


def uniform(sequence: Sequence, n: int, shape: tuple[int, ...] = ()) -> np.ndarray:
    """Uniform on (0, 1).   -> (n, *shape) float32. TypeError inside a capture."""
    _outside("uniform")
    return reference.uniform(sequence, n, shape)


def integers(sequence: Sequence, n: int, low: int, high: int) -> np.ndarray:
    """Uniform integers from low to high, both included.   -> (n,) integers. TypeError inside a capture."""
    _outside("integers")
    return reference.integers(sequence, n, low, high)


def bernoulli(sequence: Sequence, n: int, rate: float) -> np.ndarray:
    """1 where a uniform number does not exceed rate in [0, 1], else 0.   -> (n,) integers. TypeError inside a capture."""
    _outside("bernoulli")
    return reference.bernoulli(sequence, n, rate)


def categorical(sequence: Sequence, n: int, cumulative: np.ndarray) -> np.ndarray:
    """How many entries of cumulative (K,) a uniform number reaches, at most K - 1.   -> (n,) integers. TypeError inside a
    capture."""
    _outside("categorical")
    return reference.categorical(sequence, n, cumulative)


def antithetic(sequence: Sequence, n: int, total: int) -> np.ndarray:
    """(u + place / total) mod 1, u one uniform number for the whole step.   -> (n,) float32. TypeError inside a capture."""
    _outside("antithetic")
    return reference.antithetic(sequence, n, total)


def antithetic_steps(sequence: Sequence, n: int, total: int, T: int) -> np.ndarray:
    """1 + floor(T times those of `antithetic`).   -> (n,) integers. TypeError inside a capture."""
    _outside("antithetic_steps")
    return reference.antithetic_steps(sequence, n, total, T)


def _outside(name: str) -> None:
    if is_capturing():
        raise TypeError(
            f"{name}: expected a call outside of a capture, got one inside; draw first, and pass the numbers"
        )
