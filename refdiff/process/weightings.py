"""Weightings of the training loss: how much a squared error counts at each t, for every kind of prediction.

x_t ties the predictions to each other, so an error of one kind is a multiple of the error of eps,

    eps - eps_hat = c (kind - kind_hat),   c^2 = error_scale(schedule, t, kind),

and a weighting for eps, times c^2, is the same weighting for the other kind. Every function takes t () or (N,) from
1 .. T and returns float64 () or (N,), for `l_weighted`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..errors import one_of
from .arrays import Time, single, steps
from .posterior import posterior_variance
from .predictions import PREDICTIONS
from .schedules import Schedule

__all__ = ["error_scale", "min_snr_weight", "p2_weight", "vlb_weight"]


def error_scale(schedule: Schedule, t: Time, kind: str) -> np.ndarray:
    """c^2, the squared error of eps over that of `kind`, from PREDICTIONS: for x0 it is alpha_bar_t / (1 - alpha_bar_t).

    From x_t = a x_0 + s eps = a v'..., see `predictions`: x0: a^2 / s^2; v: a^2; score: s^2; mu: alpha_t s^2 / beta_t^2.
    """
    one_of("kind", kind, PREDICTIONS)
    t = steps(t, schedule.T)
    a2, s2, beta = schedule.alpha_bar[t], schedule.one_minus_alpha_bar[t], schedule.beta[t]
    return {
        "eps": np.ones(t.shape),
        "x0": a2 / s2,
        "v": a2,
        "score": s2,
        "mu": schedule.alpha[t] * (s2 / beta) / beta,
    }[kind]


def vlb_weight(
    schedule: Schedule,
    t: Time,
    kind: str = "eps",
    variance: Callable[[Schedule, Time], np.ndarray] = posterior_variance,
) -> np.ndarray:
    """w with L_{t-1} = w |kind - kind_hat|^2 + a constant, in nats, when sigma_t^2 = variance(schedule, t) is not learned.

    eps: beta_t^2 / (2 sigma_t^2 alpha_t (1 - alpha_bar_t)) [DDPM] eq. 12; mu: 1 / (2 sigma_t^2) [DDPM] eq. 8; with the
    posterior's variance, x0: (snr_{t-1} - snr_t) / 2 [VDM] eq. 13. Where alpha_t = 0, eps and the score say nothing of the
    mean and their weight is infinite, while that of the others is not: no factor of it is 0 times another's infinity.
    ValueError where sigma_t is 0, as the posterior's is at t = 1: L_0 is no such error, see `l_vlb_term`.
    """
    one_of("kind", kind, PREDICTIONS)
    t = steps(t, schedule.T)
    sigma2 = variance(schedule, t)
    if not np.all(sigma2 > 0):
        raise ValueError(f"t: expected steps whose variance is above 0, from 2 on for the posterior's, got t = {t}")
    # 1 / (2 sigma^2) is the weight of mu, whose error is a multiple of that of each other kind:
    # beta / (sqrt(alpha) s) of eps, beta / sqrt(alpha) of the score, sqrt(alpha_bar_{t-1}) beta / s of v, over s^2 of x0.
    before, s2 = schedule.alpha_bar[t - 1], schedule.one_minus_alpha_bar[t]
    share, per_variance = schedule.beta[t] / s2, schedule.beta[t] / sigma2
    if kind in ("eps", "score"):
        with np.errstate(divide="ignore"):
            return 0.5 * per_variance * (share if kind == "eps" else schedule.beta[t]) / schedule.alpha[t]
    return 0.5 * {"mu": 1 / sigma2, "v": before * share * per_variance, "x0": before * share * per_variance / s2}[kind]


def min_snr_weight(schedule: Schedule, t: Time, kind: str = "eps", gamma: float = 5.0) -> np.ndarray:
    """min(snr_t, gamma) for the error of x0, min(snr_t, gamma) / snr_t for eps, / (snr_t + 1) for v.   [MinSNR] section 3.4

    The multiple of the error of eps is min(1, gamma (1 - alpha_bar_t) / alpha_bar_t), which holds where alpha_bar_t = 0.
    """
    single("gamma", gamma)
    if not gamma > 0:
        raise ValueError(f"gamma: expected a number above 0, the paper's is 5, got {gamma}")
    scale, t = error_scale(schedule, t, kind), steps(t, schedule.T)
    a2, s2 = schedule.alpha_bar[t], schedule.one_minus_alpha_bar[t]
    with np.errstate(divide="ignore"):
        return np.minimum(scale, gamma) if kind == "x0" else scale * np.minimum(1, gamma * s2 / a2)


def p2_weight(schedule: Schedule, t: Time, kind: str = "eps", gamma: float = 1.0, k: float = 1.0) -> np.ndarray:
    """1 / (k + snr_t)^gamma for the error of eps; gamma = 0 is L_simple.   [P2] section 3.3"""
    single("gamma", gamma)
    single("k", k)
    if not (gamma >= 0 and k > 0):
        raise ValueError(f"gamma, k: expected gamma >= 0 and k > 0, the paper's are 1 and 1, got {gamma} and {k}")
    scale, t = error_scale(schedule, t, kind), steps(t, schedule.T)
    a2, s2 = schedule.alpha_bar[t], schedule.one_minus_alpha_bar[t]
    return scale * (s2 / (k * s2 + a2)) ** gamma
