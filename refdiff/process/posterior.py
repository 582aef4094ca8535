"""The posterior of the forward process, q(x_s | x_t, x_0) for s < t, which reverse steps imitate [DDPM] eqs. 6, 7.

By Bayes' rule q(x_s | x_t, x_0) is proportional to q(x_t | x_s) q(x_s | x_0), a product of two Gaussians in x_s:

    mean      sqrt(alpha_bar_s) beta_{t|s} / (1 - alpha_bar_t) x_0
            + sqrt(alpha_{t|s}) (1 - alpha_bar_s) / (1 - alpha_bar_t) x_t
    variance  beta_{t|s} (1 - alpha_bar_s) / (1 - alpha_bar_t)

s is t - 1 unless `t_prev` says otherwise; with s = t - 1, alpha_{t|s} = alpha_t and beta_{t|s} = beta_t are the paper's.
"""

from __future__ import annotations

import numpy as np

from .arrays import Array, Time, like, not_later, same_shape, steps
from .schedules import Schedule

__all__ = [
    "posterior_log_variance", "posterior_mean", "posterior_mean_coefficients", "posterior_mean_from_eps",
    "posterior_variance", "step_variance",
]  # fmt: skip


def posterior_mean_coefficients(
    schedule: Schedule, t: Time, t_prev: Time | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The factors of x_0 and of x_t in the posterior's mean.   [DDPM] eq. 7   t () or (N,) -> two float64 () or (N,)."""
    t, s = _pair(schedule, t, t_prev)
    alpha, beta = schedule.between(s, t)
    one_minus = schedule.one_minus_alpha_bar
    return np.sqrt(schedule.alpha_bar[s]) * beta / one_minus[t], np.sqrt(alpha) * one_minus[s] / one_minus[t]


def posterior_mean(schedule: Schedule, x_t: Array, x0: Array, t: Time, t_prev: Time | None = None) -> Array:
    """The mean of q(x_s | x_t, x_0).   [DDPM] eq. 7   x_t, x0 of one shape -> the same shape."""
    same_shape(x_t=x_t, x0=x0)
    of_x0, of_xt = posterior_mean_coefficients(schedule, t, t_prev)
    return like(of_x0, x0, "x0") * x0 + like(of_xt, x_t, "x_t") * x_t


def posterior_mean_from_eps(schedule: Schedule, x_t: Array, eps: Array, t: Time, t_prev: Time | None = None) -> Array:
    """1 / sqrt(alpha_{t|s}) (x_t - beta_{t|s} / sqrt(1 - alpha_bar_t) eps), eps being the noise in x_t.   [DDPM] eq. 11

    ValueError where alpha_bar_t = 0, whose x_t and eps say nothing of the mean.
    """
    same_shape(x_t=x_t, eps=eps)
    t, s = _pair(schedule, t, t_prev)
    signal_left(schedule, t, "the posterior's mean", "eps")
    alpha, beta = schedule.between(s, t)
    of_eps = beta / np.sqrt(schedule.one_minus_alpha_bar[t])
    return (x_t - like(of_eps, eps, "eps") * eps) / like(np.sqrt(alpha), x_t, "x_t")


def posterior_variance(schedule: Schedule, t: Time, t_prev: Time | None = None) -> np.ndarray:
    """beta_{t|s} (1 - alpha_bar_s) / (1 - alpha_bar_t), called beta tilde; 0 for s = 0.   [DDPM] eq. 7

    The right variance of a reverse step for data at one point.   t () or (N,) -> float64 () or (N,).
    """
    t, s = _pair(schedule, t, t_prev)
    one_minus = schedule.one_minus_alpha_bar
    return schedule.between(s, t)[1] * one_minus[s] / one_minus[t]


def step_variance(schedule: Schedule, t: Time, t_prev: Time | None = None) -> np.ndarray:
    """beta_{t|s}, the variance of the step from s to t, and the right one of a reverse step for data N(0, I).

    [DDPM] section 3.2   t () or (N,) -> float64 () or (N,).
    """
    t, s = _pair(schedule, t, t_prev)
    return schedule.between(s, t)[1]


def posterior_log_variance(schedule: Schedule, t: Time, t_prev: Time | None = None) -> np.ndarray:
    """log of the posterior's variance, with its value at t = 2 used at t = 1 also.   t () or (N,) -> float64 () or (N,).

    At t = 1 the posterior is the point x_0: its variance is 0 and the logarithm is minus infinity, of no use to a model
    that learns log variances between this and log beta_t [IDDPM] eq. 15. The nearest finite value stands in; it changes
    no sample, since the last step adds no noise. For T = 1 there is no t = 2, and log beta_1 is taken.
    Likewise for a step from any t to s = 0: the posterior's of the step of the same length before it, from 2 t (T at most)
    to t; for one from T to 0 there is none, and log beta_{T|0} is taken.
    """
    t, s = _pair(schedule, t, t_prev)
    to_0 = s == 0
    t, s, single = np.where(to_0, np.minimum(2 * t, schedule.T), t), np.where(to_0, t, s), to_0 & (t == schedule.T)
    with np.errstate(divide="ignore"):
        log_variance = np.log(posterior_variance(schedule, t, np.where(single, 0, s)))
    return np.where(single, np.log(step_variance(schedule, t, 0)), log_variance)[()]


def signal_left(
    schedule: Schedule, t: np.ndarray, target: str, source: str, remedy: str = "predict v, or leave that step out"
) -> None:
    """ValueError where alpha_bar_t = 0: x_t is noise there, and `target`, which is of x_0, does not follow from `source`."""
    gone = schedule.alpha_bar[t] == 0
    if np.any(gone):
        raise ValueError(
            f"t: expected steps with alpha_bar > 0, got t = {np.ravel(t)[np.argmax(gone)]}, where it is 0 and {source} "
            f"says nothing of {target}; {remedy}"
        )


def _pair(schedule: Schedule, t: Time, t_prev: Time | None) -> tuple[np.ndarray, np.ndarray]:
    """t and s as checked integers, 0 <= s < t."""
    t = steps(t, schedule.T)
    s = t - 1 if t_prev is None else steps(t_prev, schedule.T, 0, "t_prev")
    not_later("t_prev", s, t, strictly=True)
    return t, s
