"""Errors that say what they are: what was expected and what it got, in units of a scale."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

__all__ = ["DOUBLE", "ROUNDINGS", "SINGLE", "Difference", "difference", "gravest", "label", "same_dtype"]

SINGLE, DOUBLE = 2.0**-23, 2.0**-52  # a rounding of float32, of float64
ROUNDINGS = 8  # that a step's arithmetic may add up to


class Difference(float):
    """An error that can say what it is: `text` tells what was expected and what it got, `kind` what sort of failure it is
    (one of `claim.FAILURES`), where that is not what its claim says."""

    text: str
    kind: str

    def __new__(cls, error: float, text: str, kind: str = "") -> Difference:
        self = super().__new__(cls, error)
        self.text, self.kind = text, kind
        return self


def difference(
    what: str | Callable[[int], str], actual: Any, expected: Any, scale: Any, slack: Any = 0.0, kind: str = ""
) -> Difference:
    """The largest (|actual - expected| - slack) / scale over elements; 0 / 0 is 0.

    what: its name, or one for each sample i. slack: a difference that does not count, as the rounding of `expected` itself.
    """
    actual, expected, scale, slack = np.broadcast_arrays(
        *(np.asarray(v, np.float64) for v in (actual, expected, scale, slack))
    )
    off = np.maximum(np.abs(actual - expected) - slack, 0)
    error = np.divide(off, scale, out=np.where(off == 0, 0.0, np.inf), where=scale != 0)
    worst = np.unravel_index(int(np.argmax(error)), error.shape)
    name = what if isinstance(what, str) else what(int(worst[0]))
    pair = float(expected[worst]), float(actual[worst])
    digits = next(n for n in (6, 9, 12, 17) if n == 17 or len({f"{v:.{n}g}" for v in pair}) == len(set(pair)))
    text = f"{name}: expected {pair[0]:.{digits}g}, got {pair[1]:.{digits}g}"
    return Difference(float(error[worst]), text, kind)


def gravest(bound: float, found: Sequence[Difference]) -> Difference:
    """The largest; where it is beyond the bound, the largest of those without a kind of their own, if that is too."""
    usual = max((d for d in found if not d.kind), default=Difference(0.0, ""))
    return usual if usual > bound else max(found)


def label(text: str, values: Sequence[Any] | np.ndarray) -> Callable[[int], str]:
    """The name of what belongs to sample i: `text` with values[i] in place of {}."""
    return lambda i: text.format(values[i])


def same_dtype(name: str, actual: np.ndarray, given: np.ndarray) -> Difference:
    """1 if the result has another dtype than what was given, else 0."""
    return Difference(float(actual.dtype != given.dtype), f"{name}: expected dtype {given.dtype}, got {actual.dtype}")
