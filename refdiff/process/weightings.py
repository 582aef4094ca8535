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
from .arrays import Time, steps
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
    a2, s2 = schedule.alpha_bar[t], schedule.one_minus_alpha_bar[t]
    return {
        "eps": np.ones(t.shape),
        "x0": a2 / s2,
        "v": a2,
        "score": s2,
        "mu": schedule.alpha[t] * s2 / schedule.beta[t] ** 2,
    }[kind]


def vlb_weight(
    schedule: Schedule,
    t: Time,
    kind: str = "eps",
    variance: Callable[[Schedule, Time], np.ndarray] = posterior_variance,
) -> np.ndarray:
    """w with L_{t-1} = w |kind - kind_hat|^2 + a constant, in nats, when sigma_t^2 = variance(schedule, t) is not learned.

    eps: beta_t^2 / (2 sigma_t^2 alpha_t (1 - alpha_bar_t)) [DDPM] eq. 12; mu: 1 / (2 sigma_t^2) [DDPM] eq. 8; with the
    posterior's variance, x0: (snr_{t-1} - snr_t) / 2 [VDM] eq. 13. ValueError where sigma_t is 0, as the posterior's
    is at t = 1: L_0 is no such error, see `l_vlb_term`.
    """
    scale = error_scale(schedule, t, kind)  # checks t and kind
    sigma2 = variance(schedule, t)
    if not np.all(sigma2 > 0):
        raise ValueError(f"t: expected steps whose variance is above 0, from 2 on for the posterior's, got t = {t}")
    # 1 / (2 sigma^2) is the weight of mu, and an error of mu is beta / (sqrt(alpha) s) times that of eps.
    t = steps(t, schedule.T)
    per_mu = schedule.beta[t] ** 2 / (schedule.alpha[t] * schedule.one_minus_alpha_bar[t])
    return 1 / (2 * sigma2) if kind == "mu" else scale * per_mu / (2 * sigma2)


def min_snr_weight(schedule: Schedule, t: Time, kind: str = "eps", gamma: float = 5.0) -> np.ndarray:
    """min(snr_t, gamma) for the error of x0, min(snr_t, gamma) / snr_t for eps, / (snr_t + 1) for v.   [MinSNR] section 3.4

    For eps computed as min(1, gamma (1 - alpha_bar_t) / alpha_bar_t), which holds where alpha_bar_t = 0.
    """
    if not gamma > 0:
        raise ValueError(f"gamma: expected a number above 0, the paper's is 5, got {gamma}")
    scale, t = error_scale(schedule, t, kind), steps(t, schedule.T)
    snr = schedule.alpha_bar[t] / schedule.one_minus_alpha_bar[t]
    return scale / np.maximum(1, snr / gamma)


def p2_weight(schedule: Schedule, t: Time, kind: str = "eps", gamma: float = 1.0, k: float = 1.0) -> np.ndarray:
    """1 / (k + snr_t)^gamma for the error of eps; gamma = 0 is L_simple.   [P2] section 3.3"""
    if not (gamma >= 0 and k > 0):
        raise ValueError(f"gamma, k: expected gamma >= 0 and k > 0, the paper's are 1 and 1, got {gamma} and {k}")
    scale, t = error_scale(schedule, t, kind), steps(t, schedule.T)
    snr = schedule.alpha_bar[t] / schedule.one_minus_alpha_bar[t]
    return scale / (k + snr) ** gamma
