"""The variational bound on -log p(x_0), term by term [DDPM] eq. 5, and what its terms are made of.

    L_T       KL(q(x_T | x_0) || N(0, I))                       `prior_matching`
    L_{t-1}   KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t))     `l_vlb_term`, t > 1, by `kl_gaussian`
    L_0       -log p(x_0 | x_1)                                 `l_vlb_term`, t = 1, by `decoder_log_likelihood`

A term is one number a sample (N,), in one of two units: "bits" per dimension, or "nats" of the whole sample. Samples are
(N, ...), means and log variances of their shape. Wrong shapes, t or data: ValueError. So are 16-bit numbers: in float16 the
precision of a step, 1 / beta_t, is beyond the largest number, and a squared difference of means below the smallest.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import one_of
from .arrays import (
    Array,
    Time,
    full_precision,
    like,
    namespace,
    one_a_sample,
    same_shape,
    sample_sum,
    shape_of,
    steps,
    two,
)
from .forward import q_moments, q_sample
from .gaussian_mass import interval, real, tail
from .posterior import posterior_log_variance, posterior_mean
from .schedules import Schedule

__all__ = [
    "bound_terms", "decoder_log_likelihood", "decoder_log_likelihood_backward", "fixed_large_log_variance",
    "fixed_log_variance", "kl_gaussian", "kl_gaussian_backward", "l_vlb_term", "l_vlb_term_backward", "prior_matching",
    "step_log_variance",
]  # fmt: skip

ReverseStep = Callable[[Array, Time], tuple[Array, Array]]  # (x_t, t) -> mean and log variance of p(x_{t-1} | x_t)
UNITS = ("bits", "nats")


def kl_gaussian(
    mean: Array, log_variance: Array, other_mean: Array, other_log_variance: Array
) -> tuple[Array, tuple[Array, ...]]:
    """KL(N(m, e^l) || N(m', e^l')) = (e^d - 1 - d + (m - m')^2 e^-l') / 2, d = l - l', of each element, in nats.

    [VAE] appendix B, for N(0, 1) in the second place. e^d - 1 - d is not a difference of large numbers, so the result is
    right to its last digits when the two are all but equal.   four of one shape -> that shape, saved
    """
    same_shape(mean=mean, log_variance=log_variance, other_mean=other_mean, other_log_variance=other_log_variance)
    full_precision("log_variance", log_variance)
    full_precision("other_log_variance", other_log_variance)
    d = log_variance - other_log_variance
    precision = namespace(d).exp(-other_log_variance)
    difference = mean - other_mean
    return 0.5 * (_exp_beyond_linear(d) + difference**2 * precision), (d, difference, precision)


def kl_gaussian_backward(dkl: Array, saved: tuple[Array, ...]) -> tuple[Array, Array, Array, Array]:
    """dm = (m - m') e^-l', dl = (e^d - 1) / 2, dm' = -dm, dl' = -dl - (m - m')^2 e^-l' / 2, each times dkl."""
    d, difference, precision = saved
    same_shape(kl=d, dkl=dkl)
    dmean = dkl * (difference * precision)
    dlog_variance = dkl * (0.5 * namespace(d).expm1(d))
    return dmean, dlog_variance, -dmean, -dlog_variance - 0.5 * (dmean * difference)


def decoder_log_likelihood(
    x0: Array, mean: Array, log_variance: Array, bins: int | None = 256
) -> tuple[Array, tuple[Array, Array]]:
    """log of the mass that N(mean, e^log_variance) has on the bin of x_0, of each element, in nats.   [DDPM] eq. 13

    The bins are those of the `bins` levels -1, -1 + 2/(bins-1), ..., 1, each reaching half way to its neighbours, the
    outermost to infinity: bytes have 256, the bundled digits 17. bins = None is for continuous data: the log density.
    Right in the tails, for log variances within 600 of 0 (80 in float32).
    ValueError for x_0 outside [-1, 1] or off the levels.   three of one shape -> that shape, saved
    """
    same_shape(x0=x0, mean=mean, log_variance=log_variance)
    full_precision("log_variance", log_variance)
    xp = namespace(log_variance)
    r = xp.exp(-0.5 * log_variance)
    if bins is None:
        z = (x0 - mean) * r
        return -0.5 * (z * z + log_variance + math.log(2 * math.pi)), (r * z, 0.5 * (z * z - 1))
    level = nearest_level(x0, bins)
    h, first, last = 1 / (bins - 1), level == 0, level == bins - 1
    # The edges are made alike for both bins that they part, so that nothing falls between.
    low, high = (((2 * level + side) * h - 1 - mean) * r for side in (-1, 1))
    mirrored = first | (~last & (real(low + high) < 0))
    low, high = xp.where(mirrored, -high, low), xp.where(mirrored, -low, high)
    sign = xp.where(mirrored, -xp.ones_like(level), xp.ones_like(level))
    end, one = first | last, xp.ones_like(low)
    inner, outer = interval(xp.where(end, -one, low), xp.where(end, one, high), xp.where(end, one, h * r)), tail(low)
    log_mass, z, z2_less_1 = map(lambda a, b: xp.where(end, a, b), outer, inner)
    return log_mass, (sign * r * z, 0.5 * z2_less_1)


def decoder_log_likelihood_backward(dlog: Array, saved: tuple[Array, Array]) -> tuple[Array, Array]:
    """dmean = E[z] / sigma, dlog_variance = (E[z^2] - 1) / 2, z = (x - mean) / sigma over the bin, each times dlog.

    The derivative of a log mass is the mean, over its set, of the derivative of the log density.
    """
    dmean, dlog_variance = saved
    same_shape(log_likelihood=dmean, dlog=dlog)
    return dlog * dmean, dlog * dlog_variance


def step_log_variance(schedule: Schedule, t: Time) -> np.ndarray:
    """log beta_t, the larger of the two fixed choices [DDPM] section 3.2.   t () or (N,) -> float64 () or (N,).

    Also at t = 1, where published code differs: `fixed_large_log_variance`.
    """
    return np.log(schedule.beta[steps(t, schedule.T)])


def fixed_large_log_variance(schedule: Schedule, t: Time) -> np.ndarray:
    """log beta_t, but at t = 1 that of the posterior at t = 2: "fixedlarge" in the code of [DDPM], FIXED_LARGE in that of
    [ADM], guided-diffusion, with which bits per dimension are published.   t () or (N,) -> float64 () or (N,).

    It changes no sample, only L_0. For T = 1 there is no t = 2, and log beta_1 is taken.
    """
    t = steps(t, schedule.T)
    return np.where(t == 1, posterior_log_variance(schedule, t), step_log_variance(schedule, t))


def fixed_log_variance(
    schedule: Schedule,
    x_t: Array,
    t: Time,
    log_variance: Callable[[Schedule, Time], np.ndarray] = posterior_log_variance,
) -> Array:
    """A log variance that is not learned, of x_t's shape; log_variance: `posterior_log_variance`,
    `step_log_variance` or `fixed_large_log_variance`."""
    return namespace(x_t, "x_t").zeros_like(x_t) + like(log_variance(schedule, t), x_t, "x_t")


def prior_matching(schedule: Schedule, x0: Array, unit: str = "bits") -> Array:
    """L_T = KL(q(x_T | x_0) || N(0, I)), which no network changes.   [DDPM] eq. 5   (N, ...) -> (N,)"""
    scale, (mean, _) = unit_scale(x0, unit), q_moments(schedule, x0, schedule.T)
    a2, s2 = schedule.alpha_bar[-1], schedule.one_minus_alpha_bar[-1]
    zero = namespace(x0).zeros_like(x0)
    kl, _ = kl_gaussian(mean, zero + like(np.log1p(-a2) if a2 < 0.5 else np.log(s2), x0), zero, zero)
    return sample_sum(kl) * scale


def l_vlb_term(
    schedule: Schedule,
    x0: Array,
    x_t: Array,
    t: Time,
    mean: Array,
    log_variance: Array,
    bins: int | None = 256,
    unit: str = "bits",
) -> tuple[Array, Any]:
    """L_{t-1} for p(x_{t-1} | x_t) = N(mean, e^log_variance), and L_0 where t = 1.   [DDPM] eq. 5

    x0, x_t, mean, log_variance (N, ...), t integer or (N,), bins of `decoder_log_likelihood` -> (N,), saved.
    """
    same_shape(x0=x0, x_t=x_t, mean=mean, log_variance=log_variance)
    scale, t = unit_scale(x0, unit), steps(t, schedule.T)
    one_a_sample(t.shape, x0, "x0")
    parts: list[Any] = [None, None]
    term = None
    if np.any(t > 1):
        true_mean, true_log_variance = posterior_mean(schedule, x_t, x0, t), fixed_log_variance(schedule, x_t, t)
        term, parts[0] = kl_gaussian(true_mean, true_log_variance, mean, log_variance)
    if np.any(t == 1):
        log_mass, parts[1] = decoder_log_likelihood(x0, mean, log_variance, bins)
        term = -log_mass if term is None else namespace(term).where(_first(t, x0), -log_mass, term)
    return sample_sum(term) * scale, (t, scale, *parts)


def l_vlb_term_backward(dterm: Array, saved: Any) -> tuple[Array, Array]:
    """Of mean and log_variance: those of the divergence for t > 1, of minus the log mass for t = 1.   dterm (N,)."""
    t, scale, of_kl, of_decoder = saved
    shape, got = (of_decoder or of_kl)[0].shape, shape_of("dterm", dterm)
    if got != tuple(shape[:1]):
        raise ValueError(f"dterm: expected one number a sample ({shape[0]},), got {got}")
    xp = namespace(dterm)
    d = xp.broadcast_to(xp.reshape(dterm * scale, (-1, *[1] * (len(shape) - 1))), shape)
    gradient: Any = None
    if of_kl is not None:
        gradient = kl_gaussian_backward(d, of_kl)[2:]
    if of_decoder is not None:
        at_first = decoder_log_likelihood_backward(-d, of_decoder)
        if gradient is None:
            return at_first
        first = _first(t, at_first[0])
        gradient = tuple(map(lambda a, b: xp.where(first, a, b), at_first, gradient))
    return gradient


def bound_terms(
    schedule: Schedule,
    reverse: ReverseStep,
    x0: Array,
    noise: Callable[[int], Array],
    bins: int | None = 256,
    unit: str = "bits",
) -> Array:
    """L_0, L_1, ..., L_T of each sample: one x_t of each, made with noise(t) of x_0's shape.   -> (T+1, N)

    Their sum over the first axis is, in expectation, no smaller than -log p(x_0).   [DDPM] eq. 5
    reverse(x_t, t) -> mean, log variance of p(x_{t-1} | x_t); see `fixed_reverse` and `learned_reverse`.
    """
    terms = []
    for t in range(1, schedule.T + 1):
        x_t = q_sample(schedule, x0, t, noise(t))
        moments = two("reverse", "(mean, log variance), as of `fixed_reverse`", reverse(x_t, t))
        terms.append(l_vlb_term(schedule, x0, x_t, t, *moments, bins, unit)[0])
    return namespace(x0).stack([*terms, prior_matching(schedule, x0, unit)])


def _exp_beyond_linear(d: Array) -> Array:
    """e^d - 1 - d, by its series within 1/2 of 0, where the difference would cancel."""
    xp = namespace(d)
    near = (real(d) < 0.5) & (real(d) > -0.5)
    small = xp.where(near, d, xp.zeros_like(d))
    series = xp.ones_like(d)
    for k in range(16, 2, -1):
        series = 1 + small * series / k
    return xp.where(near, 0.5 * small * small * series, xp.expm1(d) - d)


def nearest_level(x0: Array, bins: int) -> Array:
    """The number of each element's level, 0 .. bins - 1, as floating-point numbers."""
    if not isinstance(bins, int | np.integer) or bins < 2:
        raise ValueError(f"bins: expected a number of levels, an integer of at least 2, or None, got {bins!r}")
    xp = namespace(x0)
    if not bool(xp.all((x0 >= -1) & (x0 <= 1))):
        raise ValueError(
            f"x0: expected data in [-1, 1] for a decoder of {bins} bins, got {float(xp.min(x0)):g} to "
            f"{float(xp.max(x0)):g}; scale them, or give bins=None for continuous data"
        )
    place = (x0 + 1) * (0.5 * (bins - 1))
    level = xp.round(place)
    off = float(xp.max(xp.abs(place - level)))
    if not off < 0.01:
        raise ValueError(
            f"x0: expected data on the {bins} levels -1, ..., 1, got values {off:.2g} of a step away from them; "
            f"give the number of levels that the data have, or bins=None for continuous data"
        )
    return level


def _first(t: np.ndarray, x: Array) -> Array:
    """Which samples are at t = 1, ready to choose elements of x.   t (N,) -> (N, 1, ..., 1) booleans"""
    return like((t == 1).astype(np.float64), x) > 0


def unit_scale(x0: Array, unit: str) -> float:
    """What turns nats of a whole sample into the unit."""
    one_of("unit", unit, UNITS)
    full_precision("x0", x0)
    if not x0.ndim or not x0.shape[0]:
        raise ValueError(f"x0: expected at least one sample (N, ...), got shape {tuple(x0.shape)}")
    return 1 / (math.prod(x0.shape[1:]) * math.log(2)) if unit == "bits" else 1.0
