"""How a claim asks a scheduler: what comes back is looked at, and an error can say what was expected and what came."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

__all__ = ["Asked", "Difference", "difference", "naming", "same_dtype", "unchanged"]


class Difference(float):
    """An error that can say what it is: `text` tells what was expected and what came."""

    text: str

    def __new__(cls, error: float, text: str) -> Difference:
        self = super().__new__(cls, error)
        self.text = text
        return self


def difference(what: str | Callable[[int], str], came: Any, expected: Any, scale: Any) -> Difference:
    """The largest |came - expected| / scale over elements; 0 / 0 is 0.   what: its name, or one for each sample i."""
    came, expected, scale = np.broadcast_arrays(*(np.asarray(v, np.float64) for v in (came, expected, scale)))
    off = np.abs(came - expected)
    error = np.divide(off, scale, out=np.where(off == 0, 0.0, np.inf), where=scale != 0)
    worst = np.unravel_index(int(np.argmax(error)), error.shape)
    name = what if isinstance(what, str) else what(int(worst[0]))
    return Difference(float(error[worst]), f"{name}: expected {expected[worst]:.6g}, got {came[worst]:.6g}")


def naming(text: str, values: Sequence[Any] | np.ndarray) -> Callable[[int], str]:
    """The name of what belongs to sample i: `text` with values[i] in place of {}."""
    return lambda i: text.format(values[i])


def same_dtype(name: str, came: np.ndarray, given: np.ndarray) -> Difference:
    """1 if what came has another dtype than what was given, else 0."""
    return Difference(float(came.dtype != given.dtype), f"{name}: expected dtype {given.dtype}, got {came.dtype}")


@contextmanager
def unchanged(name: str, **arrays: np.ndarray) -> Iterator[None]:
    """AssertionError if one of the arrays, given by its name, has been written to."""
    before = {key: array.copy() for key, array in arrays.items()}
    yield
    for key, array in arrays.items():
        n = int((array != before[key]).sum())
        assert not n, f"{name}: expected {key} to stay as it was given, got {n} of {array.size} elements changed"


class Asked:
    """A scheduler whose every answer is looked at: an AssertionError says, in a sentence, which is no use and why.

    at(t), kind and output serve the claims: what they need of a scheduler beside its own methods.
    """

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        self._alpha_bar: np.ndarray | None = None

    @property
    def alpha_bar(self) -> np.ndarray:
        """alpha_bar_0 .. alpha_bar_T in float64, asked once."""
        if self._alpha_bar is None:
            came = _looked_at("alpha_bar()", self.scheduler.alpha_bar())
            assert came.size > came.ndim == 1, f"alpha_bar(): expected shape (T+1,), got {came.shape}"
            self._alpha_bar = came.astype(np.float64)
        return self._alpha_bar

    @property
    def T(self) -> int:
        return len(self.alpha_bar) - 1

    def at(self, t: Any) -> tuple[Any, Any]:
        """sqrt(alpha_bar_t) and sqrt(1 - alpha_bar_t); between integers log alpha_bar / (1 - alpha_bar) is linear."""
        t, alpha_bar = np.asarray(t, np.float64), self.alpha_bar
        low, high = np.floor(t).astype(int), np.ceil(t).astype(int)
        with np.errstate(divide="ignore", invalid="ignore"):
            log_snr = np.log(alpha_bar) - np.log1p(-alpha_bar)
            between = 1 / (1 + np.exp(-(log_snr[low] + (t - low) * (log_snr[high] - log_snr[low]))))
        at_t = np.where(low == high, alpha_bar[low], between)
        return np.sqrt(at_t), np.sqrt(1 - at_t)

    def add_noise(self, x0: np.ndarray, eps: np.ndarray, t: Any) -> np.ndarray:
        return _looked_at("add_noise", self.scheduler.add_noise(x0, eps, t), x0.shape)

    def target(self, x0: np.ndarray, eps: np.ndarray, t: Any) -> np.ndarray:
        return _looked_at("target", self.scheduler.target(x0, eps, t), x0.shape)

    def timesteps(self, n: int) -> list[float]:
        """The steps of a run of n, which begins here."""
        came = _looked_at(f"timesteps({n})", self.scheduler.timesteps(n))
        assert came.size >= came.ndim == 1, f"timesteps({n}): expected {n} steps, got shape {came.shape}"
        low, high = float(came.min()), float(came.max())
        assert 1 <= low <= high <= self.T, (
            f"timesteps({n}): expected steps within 1 .. {self.T}, got {low:g} .. {high:g}"
        )
        return [int(t) if t == int(t) else float(t) for t in came]

    def step(self, x_t: np.ndarray, t: float, t_prev: float, output: np.ndarray, noise: np.ndarray) -> np.ndarray:
        came = self.scheduler.step(x_t, t, t_prev, output, noise)
        return _looked_at(f"step from t = {t:g} to {t_prev:g}", came, x_t.shape)

    def sample(
        self,
        model: Callable[[np.ndarray, float], np.ndarray],
        x: np.ndarray,
        n: int,
        noise: Callable[[float], np.ndarray],
    ) -> np.ndarray:
        def looked_at(x_t: np.ndarray, t: float) -> np.ndarray:
            assert 1 <= t <= self.T, (
                f"sample with n = {n}: expected the network to be asked within 1 .. {self.T}, got t = {t:g}"
            )
            return model(_looked_at(f"what sample with n = {n} shows the network at t = {t:g}", x_t, x.shape), t)

        return _looked_at(f"sample with n = {n}", self.scheduler.sample(looked_at, x, n, noise), x.shape)

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
    return {"eps": (zero, one), "x0": (one, zero), "v": (-s, a), "score": (zero, -1 / s)}


def _looked_at(name: str, came: Any, shape: tuple[int, ...] | None = None) -> np.ndarray:
    array = np.asarray(came)
    assert array.dtype.kind in "fiu", f"{name}: expected an array of real numbers, got {type(came).__name__}"
    assert shape is None or array.shape == shape, f"{name}: expected shape {shape}, got {array.shape}"
    wrong = int(array.size - np.count_nonzero(np.isfinite(array)))
    assert not wrong, f"{name}: expected finite numbers, got NaN or infinity in {wrong} of {array.size}"
    return array
