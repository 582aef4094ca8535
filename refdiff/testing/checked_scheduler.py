"""How a claim asks a scheduler: every answer is validated, and what it must leave alone is watched."""

from __future__ import annotations

import copy
import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from unittest import mock

import numpy as np

from .differences import DOUBLE, ROUNDINGS, SINGLE

__all__ = ["CheckedScheduler", "collected", "unchanged"]


@contextmanager
def unchanged(name: str, **arrays: np.ndarray) -> Iterator[None]:
    """AssertionError if one of the arrays, given by its name, has been written to."""
    before = {key: array.copy() for key, array in arrays.items()}
    yield
    for key, array in arrays.items():
        n = int((array != before[key]).sum())
        assert not n, f"{name}: expected {key} to stay as it was given, got {n} of {array.size} elements changed"


@contextmanager
def collected(warned: Counter[str]) -> Iterator[None]:
    """While it lasts, warnings and logged ones are counted in `warned` by what they say, and none is printed."""

    def logged(logger: logging.Logger, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            warned[f"{record.name}: {' '.join(record.getMessage().split())}"] += 1

    quiet = mock.patch.object(logging.Logger, "callHandlers", logged)
    with quiet, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield
        finally:
            warned.update(f"{w.category.__name__}: {' '.join(str(w.message).split())}" for w in caught)


class CheckedScheduler:
    """A scheduler whose every answer is validated: an AssertionError says, in a sentence, which is no use and why.

    at(t), kind and output serve the claims: what they need of a scheduler beside its own methods.
    """

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        self._alpha_bar: np.ndarray | None = None

    @property
    def alpha_bar(self) -> np.ndarray:
        """alpha_bar_0 .. alpha_bar_T in float64, asked once."""
        if self._alpha_bar is None:
            actual = _validated("alpha_bar()", self.scheduler.alpha_bar())
            assert actual.size > actual.ndim == 1, f"alpha_bar(): expected shape (T+1,), got {actual.shape}"
            self._alpha_bar = actual.astype(np.float64)
        return self._alpha_bar

    @property
    def T(self) -> int:
        return len(self.alpha_bar) - 1

    def fresh(self) -> CheckedScheduler:
        """A copy of the scheduler as it is now, to be asked in its place; itself where it cannot be copied."""
        with suppress(Exception):
            return CheckedScheduler(copy.deepcopy(self.scheduler))
        return self

    def steps_of(self, n: int) -> int:
        """How many steps a run has that is asked for n: no more than T, and T where there are no other runs."""
        return self.T if getattr(self.scheduler, "all_steps", False) else min(n, self.T)

    @property
    def variance(self) -> str:
        """The variance of a step's noise, as declared: "posterior" (or less) or "beta"."""
        return str(getattr(self.scheduler, "variance", None) or "posterior")

    def found(self, name: str) -> bool:
        """Whether the audit found this by itself, so that nobody declared it."""
        return name in getattr(self.scheduler, "found", ())

    @property
    def rounding(self) -> float:
        """How exact alpha_bar() is, relative to 1: 2^-23 if all of it are float32 numbers, else float64's 2^-52."""
        with np.errstate(all="ignore"):
            single = np.array_equal(self.alpha_bar.astype(np.float32).astype(np.float64), self.alpha_bar)
        return SINGLE if single else DOUBLE

    def unsure(self, t: Any, rounding: float | None = None) -> tuple[Any, Any]:
        """By how much `at(t)` may be off, because alpha_bar() is rounded: 1 - alpha_bar is its difference from 1."""
        (a, s), precision = self.at(t), rounding or self.rounding
        r = precision * a**2
        return precision * a, np.maximum(np.sqrt(s**2 + r) - s, s - np.sqrt(np.maximum(s**2 - r, 0)))

    def at(self, t: Any) -> tuple[Any, Any]:
        """sqrt(alpha_bar_t) and sqrt(1 - alpha_bar_t); between integers log alpha_bar / (1 - alpha_bar) is linear."""
        t = np.asarray(t, np.float64)
        low, high = np.floor(t).astype(int), np.ceil(t).astype(int)
        at_low, at_high = self.alpha_bar[low], self.alpha_bar[high]
        if np.array_equal(low, high):
            return np.sqrt(at_low), np.sqrt(1 - at_low)
        with np.errstate(divide="ignore", invalid="ignore"):
            below, above = (np.log(v) - np.log1p(-v) for v in (at_low, at_high))
            between = 1 / (1 + np.exp(-(below + (t - low) * (above - below))))
        at_t = np.where(low == high, at_low, between)
        return np.sqrt(at_t), np.sqrt(1 - at_t)

    def add_noise(self, x0: np.ndarray, eps: np.ndarray, t: Any) -> np.ndarray:
        return _validated("add_noise", self.scheduler.add_noise(x0, eps, t), x0.shape)

    def target(self, x0: np.ndarray, eps: np.ndarray, t: Any) -> np.ndarray:
        return _validated("target", self.scheduler.target(x0, eps, t), x0.shape)

    def timesteps(self, n: int) -> list[float]:
        """The steps of a run of n, which begins here."""
        actual = _validated(f"timesteps({n})", self.scheduler.timesteps(n))
        assert actual.size >= actual.ndim == 1, f"timesteps({n}): expected {n} steps, got shape {actual.shape}"
        low, high = float(actual.min()), float(actual.max())
        assert 1 <= low <= high <= self.T, (
            f"timesteps({n}): expected steps within 1 .. {self.T}, got {low:g} .. {high:g}"
        )
        return [int(t) if t == int(t) else float(t) for t in actual]

    def step(self, x_t: np.ndarray, t: float, t_prev: float, output: np.ndarray, noise: np.ndarray) -> np.ndarray:
        actual = self.scheduler.step(x_t, t, t_prev, output, noise)
        return _validated(f"step from t = {t:g} to {t_prev:g}", actual, x_t.shape)

    def sample(
        self,
        model: Callable[[np.ndarray, float], np.ndarray],
        x: np.ndarray,
        n: int,
        noise: Callable[[float], np.ndarray],
    ) -> np.ndarray:
        def validating(x_t: np.ndarray, t: float) -> np.ndarray:
            assert 1 <= t <= self.T, (
                f"sample with n = {n}: expected the network to be asked within 1 .. {self.T}, got t = {t:g}"
            )
            return model(_validated(f"what sample with n = {n} shows the network at t = {t:g}", x_t, x.shape), t)

        return _validated(f"sample with n = {n}", self.scheduler.sample(validating, x, n, noise), x.shape)

    def divides(self) -> bool:
        """Whether what the network predicts gives x0_hat only by a division by sqrt(alpha_bar_t)."""
        return self.kind() in ("eps", "score")

    def lost(self, t: float, t_prev: float, rounding: float = SINGLE) -> float:
        """What roundings of numbers of size 1 make of the step to t_prev, more where x0_hat is divided by
        sqrt(alpha_bar_t): x_t does not carry the data below its last digit, whoever computes."""
        a, b = (float(self.at(v)[0]) for v in (t, t_prev))
        return ROUNDINGS * rounding * (b / max(a, 1e-300) if self.divides() else 1.0)

    def carried(self, dtype: str, t: float) -> str:
        """The dtype, or the next wider one in which what is divided by sqrt(alpha_bar_t), or a score, does not overflow."""
        a, s = map(float, self.at(t))
        size = 8 / max(min(a, s) if self.kind() == "score" else a, 1e-300) if self.divides() else 0.0
        widths = ("float16", "float32", "float64")
        return next((w for w in widths[widths.index(dtype) :] if size <= np.finfo(w).max), "float64")

    def kind(self) -> str:
        """What the network predicts: eps, x0, v or score, whichever `target` is nearest to where alpha_bar is about 1/2."""
        t = 1 + int(np.argmin(np.abs(self.alpha_bar[1:] - 0.5)))
        one, none = np.ones((1, 1)), np.zeros((1, 1))
        parts = float(self.target(one, none, t)[0, 0]), float(self.target(none, one, t)[0, 0])
        known = _targets(*self.at(t))
        off = {name: float(np.hypot(*np.subtract(known[name], parts))) for name in known}
        nearest = min(off, key=lambda name: off[name])
        # Far off is left to the claim about the target; further than this it is another kind, such as the posterior's mean.
        assert off[nearest] < 0.73, (
            f"target at t = {t}: expected that of {', '.join(known)}, got {parts[0]:.3g} x0 + {parts[1]:.3g} eps"
        )
        return nearest

    def parts(self, kind: str, t: Any) -> tuple[Any, Any]:
        """The factors of x0 and of eps in a kind of prediction at t."""
        return _targets(*self.at(t))[kind]

    def output(self, kind: str, x0: np.ndarray, eps: np.ndarray, t: float) -> np.ndarray:
        """What a perfect network of this kind says at t, between integers too, in the dtype of x0."""
        of_x0, of_eps = self.parts(kind, t)
        return (of_x0 * x0 + of_eps * eps).astype(x0.dtype)


def _targets(a: Any, s: Any) -> dict[str, tuple[Any, Any]]:
    """The parts of x0 and of eps in each kind of prediction."""
    zero, one = np.zeros_like(a), np.ones_like(a)
    with np.errstate(divide="ignore"):  # data without noise have no score
        return {"eps": (zero, one), "x0": (one, zero), "v": (-s, a), "score": (zero, -1 / np.asarray(s))}


def _validated(name: str, actual: Any, shape: tuple[int, ...] | None = None) -> np.ndarray:
    array = np.asarray(actual)
    assert array.dtype.kind in "fiu", f"{name}: expected an array of real numbers, got {type(actual).__name__}"
    assert shape is None or array.shape == shape, f"{name}: expected shape {shape}, got {array.shape}"
    wrong = int(array.size - np.count_nonzero(np.isfinite(array)))
    assert not wrong, f"{name}: expected finite numbers, got NaN or infinity in {wrong} of {array.size}"
    return array
