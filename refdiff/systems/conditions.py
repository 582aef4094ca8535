"""What the systems of 2015 may be told of their samples [DPM] section 2.5, as r at all t alike: elements that are known, or
a noisy observation of all. Each is made of the conditions once, and then held or multiplied with at every step, and before
the first.

{"known", "mask"}            samples, and 1 where they are known, 0 where they are to be filled in
{"observed", "deviation"}    of numbers: y = x + s eps and s
{"observed", "flipped"}      of bits: y and the probability with which a bit of it is not that of x
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..models import Batch
from ..process import conditioned, observed_bits, observed_gaussian
from .bits import check_bits

__all__ = ["GivenBits", "GivenNumbers", "bits_given", "check_noise", "numbers_given"]


class GivenNumbers(NamedTuple):
    """hold(x): x with what is known in its place; multiply(mean, log variance) -> those of the step times r."""

    hold: Callable[[np.ndarray], np.ndarray]
    multiply: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


class GivenBits(NamedTuple):
    """Of bits 0 and 1: hold(x), with what is known in its place; multiply(logits) -> those of the step times r."""

    hold: Callable[[np.ndarray], np.ndarray]
    multiply: Callable[[np.ndarray], np.ndarray]


def numbers_given(conditions: Batch, shape: tuple[int, ...]) -> GivenNumbers:
    """Of samples of `shape`, (N, ...). ValueError for other conditions, and for shapes and values that are none of these."""
    known, mask, y, s = _read(conditions, "deviation", shape)
    if s is None:
        return GivenNumbers(lambda x: conditioned(x, known, mask), lambda mean, log_variance: (mean, log_variance))
    _finite("observed", y)
    check_noise("deviation", s)
    return GivenNumbers(lambda x: x, lambda mean, log_variance: observed_gaussian(mean, log_variance, y, s))


def bits_given(conditions: Batch, shape: tuple[int, ...]) -> GivenBits:
    """The same of bits, which are -1 and 1 in conditions."""
    known, mask, y, p = _read(conditions, "flipped", shape)
    if p is None:
        check_bits("known", known[mask == 1])
        return GivenBits(lambda x: conditioned(x, (known + 1) / 2, mask), lambda logits: logits)
    check_bits("observed", y)
    check_noise("flipped", p)
    return GivenBits(lambda x: x, lambda logits: observed_bits(logits, (y + 1) / 2, p))


def check_noise(name: str, value: float, called: str = "") -> None:
    """ValueError for a deviation that is not positive, and for a probability of flipped bits that is not between 0 and 1/2;
    called: what the error names it, if not by its name."""
    if name == "deviation" and not 0 < value < np.inf:
        raise ValueError(
            f"{called or name}: expected a positive number, got {value:g}; what is seen without noise is known, with mask"
        )
    if name == "flipped" and not 0 < value < 0.5:
        raise ValueError(
            f"{called or name}: expected a probability between 0 and 1/2, both left out, got {value:g}; bits that are seen "
            "without error are known, with mask"
        )


def _read(
    conditions: Batch, noise: str, shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float | None]:
    """known, mask, observed and the number of this name; None in its place where nothing was seen in noise, and a mask of 0
    where nothing is known."""
    if conditions and set(conditions) not in ({"known", "mask"}, {"observed", noise}):
        raise ValueError(
            f"conditions: expected known and mask, observed and {noise}, or none, got {', '.join(sorted(conditions))}; give "
            "both of one kind"
        )
    arrays: dict[str, np.ndarray] = {"known": np.zeros(shape), "mask": np.zeros(shape), "observed": np.zeros(shape)}
    for name in set(conditions) - {noise}:
        arrays[name] = np.asarray(conditions[name], np.float64)
        if arrays[name].shape != shape:
            raise ValueError(f"{name}: expected one a sample, {shape}, got {arrays[name].shape}")
    known, mask, observed = arrays.values()
    if wrong := int(np.count_nonzero((mask != 0) & (mask != 1))):
        raise ValueError(
            f"mask: expected 1 where elements are known, 0 where they are to be filled in, got {wrong} of {mask.size} "
            "values that are neither"
        )
    _finite("known", known[mask == 1])
    if noise not in conditions:
        return known, mask, observed, None
    if np.ndim(conditions[noise]):
        raise ValueError(f"{noise}: expected one number for all samples, got an array of {np.shape(conditions[noise])}")
    return known, mask, observed, float(conditions[noise])


def _finite(name: str, x: np.ndarray) -> None:
    if wrong := int(np.count_nonzero(~np.isfinite(x))):
        raise ValueError(f"{name}: expected finite numbers, got {wrong} of {x.size} that are not")
