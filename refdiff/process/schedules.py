"""The noise schedules: beta_t, and alpha_t = 1 - beta_t and alpha_bar_t = alpha_1 ... alpha_t made from it [DDPM] section 2.

t runs from 1 to T as in the papers. Arrays have length T + 1, and index 0 is the data: beta_0 = 0, alpha_bar_0 = 1.
Everything is float64, and a small quantity is computed as itself, never as a difference of large ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from .arrays import Time, not_later, steps

__all__ = [
    "SCHEDULES", "Schedule", "constant", "cosine", "from_alpha_bar", "from_beta", "linear", "quadratic",
    "reciprocal", "rescale_zero_terminal_snr", "rescaled_linear", "scaled_linear", "sigmoid",
]  # fmt: skip


@dataclass(frozen=True, eq=False)
class Schedule:
    """beta_1 ... beta_T and what follows from them. Make one with `linear`, `cosine`, ..., `from_beta`.

    beta, alpha: (T+1,) float64, beta[0] = 0, each other beta in (0, 1], 1 at most at T; alpha = 1 - beta.
    log_alpha_bar: (2, T+1), log alpha_bar_t as the unevaluated sum of two float64, see `_running_sum`.
    timestep: (T+1,) integers: the t of the schedule that this one was respaced from, else 0 .. T.

    alpha and its logarithm are kept beside beta, since where beta is nearly 1 they have digits that beta has not.
    """

    beta: np.ndarray
    alpha: np.ndarray
    log_alpha_bar: np.ndarray
    timestep: np.ndarray

    def __post_init__(self) -> None:
        for array in (self.beta, self.alpha, self.log_alpha_bar, self.timestep):
            array.flags.writeable = False

    @property
    def T(self) -> int:
        """The number of steps."""
        return len(self.beta) - 1

    @cached_property
    def alpha_bar(self) -> np.ndarray:
        """alpha_bar_t = prod_{s<=t} alpha_s, in (0, 1].   (T+1,)"""
        return _frozen(np.exp(self.log_alpha_bar[0]))

    @cached_property
    def one_minus_alpha_bar(self) -> np.ndarray:
        """1 - alpha_bar_t = -expm1(sum_{s<=t} log(1 - beta_s)), the variance of q(x_t|x_0).   (T+1,)"""
        return _frozen(_one_minus_exp(self.log_alpha_bar[0]))

    @cached_property
    def snr(self) -> np.ndarray:
        """alpha_bar_t / (1 - alpha_bar_t), the signal-to-noise ratio [VDM] eq. 2; infinite at 0.   (T+1,)"""
        with np.errstate(divide="ignore"):
            return _frozen(self.alpha_bar / self.one_minus_alpha_bar)

    def between(self, k: Time, t: Time) -> tuple[np.ndarray, np.ndarray]:
        """alpha_{t|k} = alpha_bar_t / alpha_bar_k and beta_{t|k} = 1 - alpha_{t|k}, for k <= t: steps k+1 .. t as one.

        k, t integers or (N,) -> two float64 arrays of shape () or (N,). ValueError for k > t, or two N that differ.
        """
        k, t = steps(k, self.T, 0, "k"), steps(t, self.T, 0)
        not_later("k", k, t)
        (high, low), same = self.log_alpha_bar, k == t
        with np.errstate(invalid="ignore"):  # alpha_bar_T may be 0, and is 1 times itself all the same
            log_alpha = np.where(same, 0.0, (high[t] - high[k]) + (low[t] - low[k]))
        return np.exp(log_alpha), _one_minus_exp(log_alpha)

    def respaced(self, timesteps: Sequence[int]) -> Schedule:
        """The same process seen only at these steps [IDDPM] section 4: beta'_i = 1 - alpha_bar_{t_i} / alpha_bar_{t_{i-1}}.

        timesteps: integers from 1 to T, increasing. ValueError if they are not.
        """
        chosen = steps(np.asarray(timesteps), self.T, name="timesteps")
        if chosen.ndim != 1 or not len(chosen) or np.any(np.diff(chosen) <= 0):
            raise ValueError(f"timesteps: expected at least one, each larger than the last, got {timesteps}")
        with_zero = np.concatenate([[0], chosen])
        alpha, beta = self.between(np.concatenate([[0], with_zero[:-1]]), with_zero)
        return Schedule(beta, alpha, self.log_alpha_bar[:, with_zero], self.timestep[with_zero])


def from_beta(beta: Any) -> Schedule:
    """The schedule of these variances.   beta (T,): beta_1 .. beta_T, each in (0, 1), the last may be 1.

    ValueError if one lies outside, is NaN, or there is none.
    """
    beta = np.array(beta, dtype=np.float64)
    if beta.ndim != 1 or not beta.size:
        raise ValueError(f"beta: expected a list of T >= 1 variances, got shape {beta.shape}")
    good = (beta > 0) & (beta < 1)
    good[-1] |= beta[-1] == 1
    if not good.all():
        t = int(np.argmin(good)) + 1
        raise ValueError(f"beta: expected values in (0, 1), 1 at the last step at most, got {beta[t - 1]} at t = {t}")
    beta = np.concatenate([[0.0], beta])
    with np.errstate(divide="ignore"):
        return Schedule(beta, 1 - beta, _running_sum(np.log1p(-beta)), np.arange(len(beta)))


def from_alpha_and_beta(alpha: np.ndarray, beta: np.ndarray, timestep: np.ndarray | None = None) -> Schedule:
    """The schedule of beta_1 .. beta_T and of alpha = 1 - beta. Each has digits that the other has not: beta counts where it
    is below 1/2, alpha elsewhere.   two (T,); timestep (T+1,): 0 .. T unless given.
    """
    small = beta < 0.5
    with np.errstate(divide="ignore"):
        log_alpha = np.where(small, np.log1p(-np.where(small, beta, 0.0)), np.log(alpha))
    beta, alpha, log_alpha = (
        np.concatenate([[first], a])
        for first, a in ((0.0, beta), (1.0, np.where(small, 1 - beta, alpha)), (0.0, log_alpha))
    )
    return Schedule(beta, alpha, _running_sum(log_alpha), np.arange(len(beta)) if timestep is None else timestep)


def from_alpha_bar(alpha_bar: Any, beta_max: float = 1.0) -> Schedule:
    """beta_t = 1 - alpha_bar_t / alpha_bar_{t-1}, no larger than beta_max [IDDPM] section 3.2.

    alpha_bar (T+1,): from alpha_bar_0 = 1 downwards, each smaller than the last, none negative. ValueError if not.
    beta is as exact as the differences of the numbers given.
    """
    alpha_bar = np.array(alpha_bar, dtype=np.float64)
    if alpha_bar.ndim != 1 or len(alpha_bar) < 2 or alpha_bar[0] != 1 or not np.all(np.diff(alpha_bar) < 0):
        raise ValueError(
            "alpha_bar: expected T + 1 >= 2 values falling from alpha_bar_0 = 1; put the 1 in front if missing"
        )
    if alpha_bar[-1] < 0:
        raise ValueError(f"alpha_bar: expected no negative value, got {alpha_bar[-1]} at T")
    return from_beta(np.minimum(-np.diff(alpha_bar) / alpha_bar[:-1], beta_max))


def linear(T: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> Schedule:
    """beta_t rises evenly from beta_start to beta_end [DDPM] section 4."""
    return from_beta(np.linspace(beta_start, beta_end, number_of_steps(T)))


def rescaled_linear(
    T: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02, beta_max: float = 0.999
) -> Schedule:
    """The linear schedule with both ends times 1000 / T, so that alpha_bar_T hardly depends on T; beta_t <= beta_max.

    "linear" in the codes of [IDDPM] and [ADM], which refuse T below 20, whose last beta would be above 1.
    """
    scale = 1000 / number_of_steps(T)
    return from_beta(np.minimum(np.linspace(scale * beta_start, scale * beta_end, T), beta_max))


def quadratic(T: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> Schedule:
    """sqrt(beta_t) rises evenly from sqrt(beta_start) to sqrt(beta_end) "quad" in the code of [DDPM]."""
    if not (beta_start > 0 and beta_end > 0):
        raise ValueError(f"beta_start, beta_end: expected values in (0, 1), got {beta_start} and {beta_end}")
    return from_beta(np.linspace(beta_start**0.5, beta_end**0.5, number_of_steps(T)) ** 2)


def scaled_linear(T: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012) -> Schedule:
    """The quadratic schedule between the ends that latent diffusion uses, under the name it has there [LDM]."""
    return quadratic(T, beta_start, beta_end)


def constant(T: int = 1000, beta: float = 0.02) -> Schedule:
    """beta_t = beta, so that alpha_bar_t = (1 - beta)^t."""
    return from_beta(np.full(number_of_steps(T), beta))


def reciprocal(T: int) -> Schedule:
    """beta_t = 1 / (T - t + 1), so that alpha_bar_t = (T - t) / T: each step takes the same share of the signal, the last
    all that is left [DPM].

    No kind of `SCHEDULES`: since alpha_bar_T = 0, eps says nothing of x_0 at T.
    """
    return from_beta(1 / np.arange(number_of_steps(T), 0, -1))


def cosine(T: int = 1000, s: float = 0.008, beta_max: float = 0.999) -> Schedule:
    """alpha_bar_t = f(t) / f(0), f(t) = cos^2(a_t), a_t = pi/2 (t/T + s) / (1 + s); beta_t <= beta_max [IDDPM] eq. 17.

    beta_t = 1 - f(t) / f(t-1) = sin(a_t - a_{t-1}) sin(a_t + a_{t-1}) / cos^2(a_{t-1}): nothing is subtracted, and each
    angle is measured from the nearer zero of its sine or cosine.
    """
    if not s > 0:
        raise ValueError(f"s: expected an offset above 0, got {s}")
    t = np.arange(1, number_of_steps(T) + 1)
    step = np.pi / 2 / (T * (1 + s))  # a_t - a_{t-1}; and pi/2 - a_{t-1} = step (T - t + 1)
    both = step * np.minimum(2 * (t + s * T) - 1, 2 * (T - t) + 1)  # a_t + a_{t-1}, or pi less it
    beta = np.sin(step) * np.sin(both) / np.sin(step * (T - t + 1)) ** 2
    return from_beta(np.minimum(beta, beta_max))


def sigmoid(
    T: int = 1000, start: float = -3.0, end: float = 3.0, tau: float = 1.0, beta_max: float = 0.999
) -> Schedule:
    """alpha_bar_t = (S(b) - S(a_t)) / (S(b) - S(a_0)), S the logistic function, a_t = (start + (end - start) t/T) / tau,
    b = end / tau; beta_t <= beta_max [Chen23] algorithm 1.

    beta_t = (S(a_t) - S(a_{t-1})) / (S(b) - S(a_{t-1})), and S(p) - S(q) = S(p) S(-q) (1 - exp(q - p)).
    """
    if not end > start or not tau > 0:
        raise ValueError(f"sigmoid: expected start < end and tau > 0, got start = {start}, end = {end}, tau = {tau}")
    t = np.arange(1, number_of_steps(T) + 1)
    step, left = (end - start) / tau / T, (end - start) / tau / T * (T - t + 1)  # a_t - a_{t-1} and b - a_{t-1}
    now, last = (end - start) / tau * t / T + start / tau, end / tau
    beta = _logistic(now) / _logistic(last) * np.expm1(-step) / np.expm1(-left)
    return from_beta(np.minimum(beta, beta_max))


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "linear": linear, "quadratic": quadratic, "scaled_linear": scaled_linear, "constant": constant, "cosine": cosine,
    "sigmoid": sigmoid, "rescaled_linear": rescaled_linear,
}  # fmt: skip


def rescale_zero_terminal_snr(schedule: Schedule) -> Schedule:
    """The schedule shifted and scaled so that alpha_bar_T = 0 and alpha_bar_1 stays [Lin24] algorithm 1.

    sqrt(alpha_bar'_t) = sqrt(alpha_bar_1) d_t / d_1, where d_t = sqrt(alpha_bar_t) - sqrt(alpha_bar_T), so that for t > 1
    beta'_t = (1 - r)(1 + r) with r = d_t / d_{t-1}. Differences of roots are computed as
    sqrt(alpha_bar_s) - sqrt(alpha_bar_t) = sqrt(alpha_bar_s) beta_{t|s} / (1 + sqrt(alpha_{t|s})).
    ValueError for T = 1, where alpha_bar_1 cannot both stay and be 0.
    """
    T = schedule.T
    if T < 2:
        raise ValueError(f"schedule: expected at least two steps, one to stay and one to become noise, got T = {T}")

    def fall(s: np.ndarray, t: np.ndarray) -> np.ndarray:
        alpha, beta = schedule.between(s, t)
        return np.sqrt(schedule.alpha_bar[s]) * beta / (1 + np.sqrt(alpha))

    t = np.arange(2, T)
    above = fall(t - 1, np.full_like(t, T))  # d_{t-1}
    one_minus_r, r = fall(t - 1, t) / above, fall(t, np.full_like(t, T)) / above
    beta = np.concatenate([schedule.beta[1:2], one_minus_r * (1 + r), [1.0]])
    alpha = np.concatenate([schedule.alpha[1:2], r**2, [0.0]])
    return from_alpha_and_beta(alpha, beta, schedule.timestep)


def _running_sum(x: np.ndarray) -> np.ndarray:
    """Partial sums of x, each as the unevaluated sum of two float64 [Knuth] section 4.2.2.   (n,) -> (2, n).

    The second number holds what rounding took from the first, so a difference of two partial sums far along is
    still right to the last bits.
    """
    high, low = np.empty_like(x), np.empty_like(x)
    total = lost = 0.0
    for i, term in enumerate(x.tolist()):
        new = total + term
        part = new - total
        lost += (total - (new - part)) + (term - part) if np.isfinite(new) else 0.0
        total = new
        high[i] = total + lost
        low[i] = (total - high[i]) + lost if np.isfinite(new) else 0.0
    return np.stack([high, low])


def _one_minus_exp(x: Any) -> Any:
    """1 - exp(x) without cancellation, and +0 at x = 0, so that 1 / 0 is plus infinity."""
    return 0 - np.expm1(x)


def _logistic(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def number_of_steps(T: int) -> int:
    """T; ValueError unless it is an integer of at least 1."""
    if not isinstance(T, int | np.integer) or T < 1:
        raise ValueError(f"T: expected a number of steps, an integer of at least 1, got {T!r}")
    return int(T)


def _frozen(x: np.ndarray) -> np.ndarray:
    x.flags.writeable = False
    return x
