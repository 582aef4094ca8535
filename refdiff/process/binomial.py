"""Diffusion of bits: the binomial kernel [DPM], its posterior, its bound and its samples.

    q(x_t | x_{t-1}) = B(x_{t-1} (1 - beta_t) + beta_t / 2)          one step: kept, or with beta_t thrown anew
    q(x_t | x_0)     = B(x_0 alpha_bar_t + (1 - alpha_bar_t) / 2)    the closed form

B(p) is 1 with probability p, each element for itself. Bits are the floats 0 and 1, (N, ...) or any shape when t is one
integer; probabilities and logits are of their shape. Values that are no bits, wrong t, shapes: ValueError.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from .arrays import (
    Array,
    Time,
    floating,
    full_precision,
    like,
    namespace,
    one_a_sample,
    only_bits,
    same_shape,
    sample_sum,
    steps,
)
from .schedules import Schedule
from .variational_bound import unit_scale

__all__ = [
    "binomial_ancestral", "binomial_bound_terms", "binomial_log_odds", "binomial_marginal", "binomial_posterior",
    "binomial_posterior_coefficients", "binomial_posterior_entropy", "binomial_prior_matching", "binomial_step",
    "binomial_term", "draw_bits", "kl_binomial",
]  # fmt: skip


def binomial_step(schedule: Schedule, x_prev: Array, t: Time) -> Array:
    """q(x_t = 1 | x_{t-1}) = x_{t-1} (1 - beta_t) + beta_t / 2.   [DPM]"""
    t = steps(t, schedule.T)
    return _towards_half("x_prev", x_prev, schedule.alpha[t], schedule.beta[t])


def binomial_marginal(schedule: Schedule, x0: Array, t: Time) -> Array:
    """q(x_t = 1 | x_0) = x_0 alpha_bar_t + (1 - alpha_bar_t) / 2, t from 0.   [DPM]"""
    t = steps(t, schedule.T, first=0)
    return _towards_half("x0", x0, schedule.alpha_bar[t], schedule.one_minus_alpha_bar[t])


def draw_bits(p: Array, uniform: Array) -> Array:
    """1 where uniform < p, else 0: with uniform on (0, 1), a draw of B(p).   two of one shape -> that shape, in p's dtype"""
    same_shape(p=p, uniform=uniform)
    floating("p", p)
    return _as_bits(uniform < p, p)


def binomial_posterior_coefficients(schedule: Schedule, t: Time) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """c, c_0, c_t of q(x_{t-1} = 1 | x_t, x_0) = c + c_0 x_0 + c_t x_t, by Bayes' rule on two states.   [DPM]

    With a = alpha_bar_{t-1} and A = alpha_bar_t:
        c_0 = beta_t (a + A) / (1 - A^2),   c_t = (1 - a)(alpha_t + A) / (1 - A^2),   c = beta_t (1 - a) / (2 (1 + A))
    The product x_0 x_t has no coefficient, for q does not care which of the two values is called 1, so that both bits
    turned over turn over the posterior.   t () or (N,) -> three float64 () or (N,).
    """
    t = steps(t, schedule.T)
    beta, alpha, a, A = schedule.beta[t], schedule.alpha[t], schedule.alpha_bar[t - 1], schedule.alpha_bar[t]
    rest, one = schedule.one_minus_alpha_bar[t - 1], schedule.one_minus_alpha_bar[t] * (1 + A)
    of_xt = rest * (alpha + A) / one
    return beta * rest / (2 * (1 + A)), np.minimum(beta * (a + A) / one, 1 - of_xt), of_xt


def binomial_posterior(schedule: Schedule, x_t: Array, x0: Array, t: Time) -> Array:
    """q(x_{t-1} = 1 | x_t, x_0); at t = 1 it is x_0.   [DPM]   x_t, x0 of one shape -> the same shape"""
    same_shape(x_t=x_t, x0=x0)
    _check_bits("x_t", x_t)
    _check_bits("x0", x0)
    c, of_x0, of_xt = binomial_posterior_coefficients(schedule, t)
    return like(c, x_t, "x_t") + like(of_x0, x0, "x0") * x0 + like(of_xt, x_t, "x_t") * x_t


def binomial_posterior_entropy(schedule: Schedule, t: Time) -> tuple[np.ndarray, np.ndarray]:
    """The entropy of q(x_{t-1} | x_t, x_0) where x_t = x_0, and where x_t is not x_0, in nats; 0 at t = 1.

    By the symmetry of the two values it depends on nothing else.   [DPM]   t () or (N,) -> two float64 () or (N,)
    """
    c, of_x0, of_xt = binomial_posterior_coefficients(schedule, t)
    rarer = np.minimum(c + of_x0, c + of_xt)  # of the two values where the bits differ
    return _entropy(c), _entropy(rarer)


def binomial_log_odds(schedule: Schedule, t: Time) -> np.ndarray:
    """log((1 - beta_t / 2) / (beta_t / 2)): the log odds that x_{t-1} = x_t, for data that are throws of a coin.

    For those the reverse step is the forward step [DPM]. 0 where beta_t = 1.   t () or (N,) -> float64 () or (N,)
    """
    beta, alpha = schedule.beta[steps(t, schedule.T)], schedule.alpha[steps(t, schedule.T)]
    large = alpha > 0.5
    return np.where(large, np.log1p(alpha) - np.log(beta), 2 * np.arctanh(np.where(large, 0.0, alpha)))[()]


def kl_binomial(p: Array, logits: Array) -> Array:
    """KL(B(p) || B(1 / (1 + e^-l))) = p log p + (1 - p) log(1 - p) - p l + log(1 + e^l), of each element, in nats.

    p in [0, 1], the ends too, where it is minus a log likelihood. p, logits of one shape -> that shape
    """
    same_shape(p=p, logits=logits)
    full_precision("logits", logits)
    xp = namespace(logits)
    far = xp.log1p(xp.exp(-xp.abs(logits)))
    away = xp.where(logits > 0, (1 - p) * logits, -p * logits)
    return _x_log_x(p) + _x_log_x(1 - p) + away + far


def binomial_prior_matching(schedule: Schedule, x0: Array, unit: str = "bits") -> Array:
    """L_T = KL(q(x_T | x_0) || B(1/2)) = ((1 + A) log(1 + A) + (1 - A) log(1 - A)) / 2 a bit, A = alpha_bar_T.   [DPM]

    The same for every x_0, and 0 where alpha_bar_T = 0.   (N, ...) -> (N,), in "bits" per dimension or "nats" of the sample
    """
    scale = unit_scale(x0, unit)
    _check_bits("x0", x0)
    A, rest = float(schedule.alpha_bar[-1]), float(schedule.one_minus_alpha_bar[-1])
    if A < 0.5:  # without a difference of what is nearly the same
        nats = A * math.atanh(A) + 0.5 * math.log1p(-(A**2))
    else:
        nats = 0.5 * ((1 + A) * math.log1p(A) + rest * math.log(rest))
    return sample_sum(namespace(x0).zeros_like(x0) + nats) * scale


def binomial_term(schedule: Schedule, x0: Array, x_t: Array, t: Time, logits: Array, unit: str = "bits") -> Array:
    """L_{t-1} = KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)), and at t = 1 L_0 = -log p(x_0 | x_1).   [DPM]

    logits: of p(x_{t-1} = 1 | x_t).   x0, x_t, logits (N, ...), t integer or (N,) -> (N,), in "bits" per dimension or "nats"
    of the sample
    """
    same_shape(x0=x0, x_t=x_t, logits=logits)
    scale, t = unit_scale(x0, unit), steps(t, schedule.T)
    one_a_sample(t.shape, x0, "x0")
    return sample_sum(kl_binomial(binomial_posterior(schedule, x_t, x0, t), logits)) * scale


def binomial_bound_terms(
    schedule: Schedule,
    reverse: Callable[[Array, Time], Array],
    x0: Array,
    uniform: Callable[[int], Array],
    unit: str = "bits",
) -> Array:
    """L_0, L_1, ..., L_T of each sample: one x_t of each, made with uniform(t) on (0, 1) of x_0's shape.   -> (T+1, N)

    Their sum over the first axis is, in expectation, no smaller than -log p(x_0), and so in the mean over data no smaller
    than their entropy.   [DPM]   reverse(x_t, t) -> logits of p(x_{t-1} = 1 | x_t)
    """
    terms = []
    for t in range(1, schedule.T + 1):
        drawn = uniform(t)
        same_shape(x0=x0, uniform=drawn)
        x_t = draw_bits(binomial_marginal(schedule, x0, t), drawn)
        terms.append(binomial_term(schedule, x0, x_t, t, reverse(x_t, t), unit))
    return namespace(x0).stack([*terms, binomial_prior_matching(schedule, x0, unit)])


def binomial_ancestral(
    schedule: Schedule, reverse: Callable[[Array, Time], Array], x: Array, uniform: Callable[[int], Array]
) -> Iterator[tuple[int, Array]]:
    """x_{t-1} ~ B(1 / (1 + e^-l)), l = reverse(x_t, t), from t = T to 1; (t - 1, x_{t-1}) after each step.   [DPM]

    x ~ B(1/2) bits, uniform(t) on (0, 1) of x's shape for the step that leaves t; see `final`.
    """
    _check_bits("x", x)
    for t in range(schedule.T, 0, -1):
        logits, drawn = reverse(x, t), uniform(t)
        same_shape(x=x, logits=logits, uniform=drawn)
        x = draw_bits(1 / (1 + namespace(logits).exp(-logits)), drawn)
        yield t - 1, x


def _towards_half(name: str, x: Array, kept: np.ndarray, lost: np.ndarray) -> Array:
    """kept x + lost / 2, of bits."""
    _check_bits(name, x)
    return like(kept, x, name) * x + like(lost / 2, x, name)


def _check_bits(name: str, x: Array) -> None:
    only_bits(name, x, "; of -1 and 1 make bits by (x + 1) / 2")


def _as_bits(condition: Array, x: Array) -> Array:
    """1 where it holds, else 0, in x's dtype."""
    xp = namespace(x)
    return xp.where(condition, xp.ones_like(x), xp.zeros_like(x))


def _x_log_x(p: Array) -> Array:
    """p log p, 0 at 0."""
    xp = namespace(p)
    return xp.where(p > 0, p * xp.log(xp.where(p > 0, p, xp.ones_like(p))), xp.zeros_like(p))


def _entropy(p: np.ndarray) -> np.ndarray:
    """-p log p - (1 - p) log(1 - p) of p <= 1/2, small ones with all their digits."""
    p = np.asarray(p)
    return (-_x_log_x(p) - (1 - p) * np.log1p(-p))[()]
