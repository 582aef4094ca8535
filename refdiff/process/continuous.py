"""Noise in continuous time, t from 0 to 1, and the terms of the bound on -log p(x) there, in nats of a sample.   [VDM]

A schedule is gamma(t) = -log SNR(t), which rises; alpha_bar = sigmoid(-gamma) is the paper's alpha^2, and what is left of 1
is its sigma^2 = sigmoid(gamma), so that no difference is taken [VDM] eqs. 3 to 5.

    L_0          -log p(x | z_0)                                 `reconstruction_loss`
    L_1          KL(q(z_1 | x) || N(0, I))                       `prior_loss`
    L_infinity   E 1/2 gamma'(t) |eps - eps_hat|^2               `diffusion_loss`, or `discrete_diffusion_loss` of T steps

t is one number, or one a sample (N,); x, z, eps, eps_hat are (N, ...). Wrong t or shapes: ValueError.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .arrays import Array, Time, floating, like, namespace, same_shape, sample_sum, steps
from .schedules import Schedule, from_alpha_and_beta, number_of_steps
from .variational_bound import kl_gaussian, nearest_level

__all__ = [
    "ContinuousSchedule", "antithetic_times", "beta_linear_gamma", "between_ends", "cosine_gamma", "diffusion_loss",
    "discrete_diffusion_loss", "linear_gamma", "prior_loss", "q_sample_at", "reconstruction_loss", "variational_step",
]  # fmt: skip

Function = Callable[[np.ndarray], Any]
_GRID = np.linspace(0, 1, 257)


@dataclass(frozen=True, eq=False)
class ContinuousSchedule:
    """gamma(t) and gamma'(t), and what follows from them. Make one with `linear_gamma`, `between_ends`, ...

    function, derivative: of arrays of t in [0, 1], float64, any shape -> the same shape.
    ValueError where gamma does not rise, looked for at 257 points, or is not finite. `discretised` looks where it steps.
    """

    function: Function
    derivative: Function

    def __post_init__(self) -> None:
        _rising(_GRID, self.gamma(_GRID))
        slope = self.slope(_GRID)
        if not np.all(slope >= 0):
            i = int(np.argmin(slope >= 0))
            raise ValueError(
                f"gamma: expected a derivative that is nowhere negative, got {slope[i]:g} at t = {_GRID[i]:g}; give that of "
                "gamma"
            )

    def gamma(self, t: Any) -> np.ndarray:
        """gamma(t) = -log SNR(t)."""
        return _evaluated("gamma", self.function, t)

    def slope(self, t: Any) -> np.ndarray:
        """gamma'(t)."""
        return _evaluated("the derivative of gamma", self.derivative, t)

    def alpha_bar(self, t: Any) -> np.ndarray:
        """sigmoid(-gamma), the alpha^2 of [VDM] eq. 4: the alpha_bar of a `Schedule`."""
        return _sigmoid(-self.gamma(t))

    def one_minus_alpha_bar(self, t: Any) -> np.ndarray:
        """sigmoid(gamma), the sigma^2 of [VDM] eq. 3, the variance of q(z_t | x)."""
        return _sigmoid(self.gamma(t))

    def alpha(self, t: Any) -> np.ndarray:
        """What multiplies x in z_t = alpha x + sigma eps.   [VDM] eq. 1"""
        return np.sqrt(self.alpha_bar(t))

    def sigma(self, t: Any) -> np.ndarray:
        """What multiplies eps in z_t = alpha x + sigma eps.   [VDM] eq. 1"""
        return np.sqrt(self.one_minus_alpha_bar(t))

    def snr(self, t: Any) -> np.ndarray:
        """exp(-gamma) = alpha^2 / sigma^2.   [VDM] eq. 5"""
        return np.exp(-self.gamma(t))

    def log_snr(self, t: Any) -> np.ndarray:
        """-gamma."""
        return -self.gamma(t)

    def discretised(self, T: int) -> Schedule:
        """The schedule of T + 1 steps whose step i + 1 is t = i / T: z_0 is its x_1, and x its x_0.

        beta = -sigma_t^2 expm1(gamma_s - gamma_t) of the step from s to t, that of the first sigma_0^2 [VDM] eq. 22.
        Every sampler of `process` works on it. ValueError where gamma does not rise from step to step.
        """
        t = np.arange(number_of_steps(T) + 1) / T
        gamma = self.gamma(t)
        _rising(t, gamma)
        after, before = gamma[1:], gamma[:-1]
        beta = np.concatenate([_sigmoid(gamma[:1]), -_sigmoid(after) * np.expm1(before - after)])
        alpha = np.concatenate([_sigmoid(-gamma[:1]), _sigmoid(-after) / _sigmoid(-before)])
        return from_alpha_and_beta(alpha, beta)


def between_ends(gamma_0: float, gamma_1: float, inside: Callable[[np.ndarray], tuple[Any, Any]]) -> ContinuousSchedule:
    """gamma(t) = gamma_0 + (gamma_1 - gamma_0) (m(t) - m(0)) / (m(1) - m(0)).   [VDM] eq. 59

    inside(t) -> m(t), which rises, and m'(t). ValueError unless gamma_0 < gamma_1 and m(0) < m(1).
    """
    span = _span(gamma_0, gamma_1)
    m_0, m_1 = np.asarray(inside(np.array([0.0, 1.0]))[0], np.float64)
    if not m_1 > m_0:
        raise ValueError(f"inside: expected a function that rises from t = 0 to 1, got {m_0:g} and {m_1:g} at the ends")
    scale = np.float64(span) / (m_1 - m_0)
    return ContinuousSchedule(
        lambda t: gamma_0 + scale * (inside(t)[0] - m_0),  # float64 numbers: what they meet becomes float64
        lambda t: scale * inside(t)[1],
    )


def linear_gamma(gamma_0: float = -13.3, gamma_1: float = 5.0) -> ContinuousSchedule:
    """gamma(t) = gamma_0 + (gamma_1 - gamma_0) t: the start of [VDM], with the ends of its code."""
    return between_ends(gamma_0, gamma_1, lambda t: (t, np.ones_like(t)))


def cosine_gamma(gamma_0: float = -13.3, gamma_1: float = 5.0) -> ContinuousSchedule:
    """alpha = cos a, sigma = sin a, the angle a(t) rising evenly from end to end: the limit of `cosine`, with ends that are
    not infinite.   gamma = 2 log tan a, gamma' = 2 a' / (sin a cos a)

    The cosine is the sine of pi/2 - a, itself an even mixture of its ends: nothing is subtracted where a is nearly pi/2.
    """
    _span(gamma_0, gamma_1)
    first, last = (math.atan(math.exp(g / 2)) for g in (gamma_0, gamma_1))
    other_first, other_last = (math.atan(math.exp(-g / 2)) for g in (gamma_0, gamma_1))

    def sines(t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.sin((1 - t) * first + t * last), np.sin((1 - t) * other_first + t * other_last)

    def gamma(t: np.ndarray) -> np.ndarray:
        sin, cos = sines(t)
        return 2 * np.log(sin / cos)

    def slope(t: np.ndarray) -> np.ndarray:
        sin, cos = sines(t)
        return 2 * (last - first) / (sin * cos)

    return ContinuousSchedule(gamma, slope)


def beta_linear_gamma(first: float = 1e-4, rest: float = 10.0) -> ContinuousSchedule:
    """gamma(t) = log expm1(b), b = first + rest t^2 = -log alpha_bar: what `linear` comes to for many steps, as [VDM]
    appendix H has it. gamma'(t) = 2 rest t / (1 - e^-b). The ends are -9.2 and 10.
    """
    if not (first > 0 and rest > 0):
        raise ValueError(f"first, rest: expected numbers above 0, got {first} and {rest}")

    def b(t: np.ndarray) -> np.ndarray:
        return first + rest * t * t

    return ContinuousSchedule(
        lambda t: b(t) + np.log(-np.expm1(-b(t))), lambda t: 2 * rest * t / -np.expm1(-b(t))
    )  # fmt: skip


def q_sample_at(schedule: ContinuousSchedule, x0: Array, t: Any, eps: Array) -> Array:
    """z_t = alpha x + sigma eps.   [VDM] eq. 1"""
    same_shape(x0=x0, eps=eps)
    return like(schedule.alpha(t), x0, "x0") * x0 + like(schedule.sigma(t), eps, "eps") * eps


def variational_step(schedule: ContinuousSchedule, z: Array, t: Any, s: Any, eps_hat: Array, eps: Array) -> Array:
    """z_s = alpha_s / alpha_t (z_t + sigma_t c eps_hat) + sigma_s sqrt(-c) eps, c = expm1(gamma_s - gamma_t).

    [VDM] eqs. 31 to 33   ValueError unless s <= t.
    """
    same_shape(z=z, eps_hat=eps_hat, eps=eps)
    gamma_s, gamma_t = schedule.gamma(s), schedule.gamma(t)
    if not np.all(gamma_s <= gamma_t):
        raise ValueError(f"s: expected a time no later than t, got s = {s} with t = {t}")
    less = np.expm1(gamma_s - gamma_t)
    ratio = np.sqrt(_sigmoid(-gamma_s) / _sigmoid(-gamma_t))
    of_eps_hat, of_eps = ratio * np.sqrt(_sigmoid(gamma_t)) * less, np.sqrt(-_sigmoid(gamma_s) * less)
    return like(ratio, z, "z") * z + like(of_eps_hat, z, "z") * eps_hat + like(of_eps, z, "z") * eps


def diffusion_loss(schedule: ContinuousSchedule, t: Any, eps: Array, eps_hat: Array) -> Array:
    """1/2 gamma'(t) |eps - eps_hat|^2, whose mean over t and eps is the limit of infinitely many steps.   [VDM] eq. 17

    -> (N,), which is the same for every gamma with these ends [VDM] eq. 18.
    """
    return _weighted_error(0.5 * schedule.slope(t), eps, eps_hat)


def discrete_diffusion_loss(schedule: ContinuousSchedule, i: Time, T: int, eps: Array, eps_hat: Array) -> Array:
    """T/2 expm1(gamma_t - gamma_s) |eps - eps_hat|^2, t = i / T, s = (i - 1) / T: T times the divergence of the step from t
    to s.   [VDM] eq. 14   i integer or (N,), from 1 to T -> (N,)
    """
    i = steps(i, number_of_steps(T), 1, "i")
    rise = schedule.gamma(i / T) - schedule.gamma((i - 1) / T)
    return _weighted_error(0.5 * T * np.expm1(rise), eps, eps_hat)


def prior_loss(schedule: ContinuousSchedule, x0: Array) -> Array:
    """KL(q(z_1 | x) || N(0, I)) = 1/2 sum(alpha_1^2 (x^2 - 1) - log sigma_1^2).   [VDM] eq. 11   (N, ...) -> (N,)"""
    floating("x0", x0)
    zero, gamma_1 = namespace(x0).zeros_like(x0), schedule.gamma(1.0)
    mean = like(schedule.alpha(1.0), x0, "x0") * x0
    return sample_sum(kl_gaussian(mean, zero - float(np.logaddexp(0, -gamma_1)), zero, zero)[0])


def reconstruction_loss(schedule: ContinuousSchedule, x0: Array, eps: Array, bins: int) -> Array:
    """-log p(x | z_0), z_0 = alpha_0 x + sigma_0 eps, each element one of the `bins` levels v_k = -1, ..., 1, with
    probabilities in proportion to N(z_0; alpha_0 v_k, sigma_0^2).   [VDM] eq. 8   (N, ...) -> (N,)

    = log sum_k exp(-d_k (d_k + 2 eps) / 2), d_k = (x - v_k) / e^(gamma_0 / 2): that of x itself is 0.
    ValueError for data that are not on the levels.
    """
    same_shape(x0=x0, eps=eps)
    xp, level = namespace(x0), nearest_level(x0, bins)
    width = 2 / (bins - 1) * math.exp(-0.5 * float(schedule.gamma(0.0)))
    d = [width * (level - k) for k in range(bins)]
    exponents = [-0.5 * dk * (dk + 2 * eps) for dk in d]
    most = exponents[0]
    for e in exponents[1:]:
        most = xp.where(e > most, e, most)
    return sample_sum(most + xp.log(sum(xp.exp(e - most) for e in exponents)))


def antithetic_times(u: float, n: int) -> np.ndarray:
    """t_i = (u + i / n) mod 1, i = 0 .. n - 1: each uniform on [0, 1) if u is, and all of them evenly spread.

    [VDM] appendix I.1   -> (n,) float64
    """
    number_of_steps(n)
    if not 0 <= u <= 1:
        raise ValueError(f"u: expected a number from 0 to 1, got {u}")
    return (u + np.arange(n) / n) % 1.0


def _weighted_error(weight: np.ndarray, eps: Array, eps_hat: Array) -> Array:
    """weight |eps - eps_hat|^2.   weight () or (N,) -> (N,)"""
    same_shape(eps=eps, eps_hat=eps_hat)
    floating("eps", eps)
    floating("eps_hat", eps_hat)
    error = sample_sum((eps - eps_hat) ** 2)
    return like(weight, error, "eps") * error


def _sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + e^-x), with all its digits on both sides."""
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1.0) / (1 + e)


def _span(gamma_0: float, gamma_1: float) -> float:
    if not -np.inf < gamma_0 < gamma_1 < np.inf:
        raise ValueError(f"gamma_0, gamma_1: expected finite ends with gamma_0 < gamma_1, got {gamma_0} and {gamma_1}")
    return gamma_1 - gamma_0


def _evaluated(name: str, f: Function, t: Any) -> np.ndarray:
    """f(t) in float64, checked."""
    t = np.asarray(t, np.float64)
    inside = (t >= 0) & (t <= 1)
    if not np.all(inside):
        raise ValueError(f"t: expected times from 0 to 1, got {_first(t, ~inside):g}")
    y = np.asarray(f(t), np.float64)
    if y.shape != t.shape:
        raise ValueError(f"{name}: expected a function that keeps the shape of t, {t.shape}, got {y.shape}")
    wrong = ~np.isfinite(y)
    if np.any(wrong):
        raise ValueError(f"{name}: expected finite numbers, got {_first(y, wrong)} at t = {_first(t, wrong):g}")
    return y


def _first(x: np.ndarray, where: np.ndarray) -> Any:
    """The first element of x where it is true."""
    return np.ravel(x)[np.argmax(np.ravel(where))]


def _rising(t: np.ndarray, gamma: np.ndarray) -> None:
    """ValueError, which says where, unless gamma rises from each of these t to the next."""
    rises = np.diff(gamma) > 0
    if not rises.all():
        i = int(np.argmin(rises))
        raise ValueError(
            f"gamma: expected a schedule that rises from t = 0 to 1, got gamma({t[i]:g}) = {gamma[i]:g} and "
            f"gamma({t[i + 1]:g}) = {gamma[i + 1]:g}; give one that is monotone, or fewer steps where it is flat"
        )
