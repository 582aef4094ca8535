"""The forward process, which turns data into noise [DDPM] section 2: its moments, and samples by x = mean + sd eps.

    q(x_t | x_{t-1}) = N(sqrt(alpha_t) x_{t-1}, beta_t I)                             one step
    q(x_t | x_k)     = N(sqrt(alpha_{t|k}) x_k, beta_{t|k} I)                         steps k+1 .. t at once
    q(x_t | x_0)     = N(sqrt(alpha_bar_t) x_0, (1 - alpha_bar_t) I)                  the closed form

Every x is (N, ...) or any shape when t is one integer; t and k are integers or one a sample (N,). eps ~ N(0, I), shape
of x. A variance comes back ready to broadcast against x: a Python float, or (N, 1, ..., 1) of x's dtype, where half
precision may be too short for it; the samples are made with its root, taken before the cast. Wrong t or shapes: ValueError.
"""

from __future__ import annotations

import numpy as np

from .arrays import Array, Time, like, same_shape, steps
from .schedules import Schedule

__all__ = ["q_between", "q_between_moments", "q_moments", "q_sample", "q_step", "q_step_moments"]


def q_step_moments(schedule: Schedule, x_prev: Array, t: Time) -> tuple[Array, Array]:
    """Mean sqrt(alpha_t) x_{t-1} and variance beta_t of q(x_t | x_{t-1}).   [DDPM] eq. 2"""
    t = steps(t, schedule.T)
    return like(np.sqrt(schedule.alpha[t]), x_prev, "x_prev") * x_prev, like(schedule.beta[t], x_prev)


def q_step(schedule: Schedule, x_prev: Array, t: Time, eps: Array) -> Array:
    """x_t = sqrt(alpha_t) x_{t-1} + sqrt(beta_t) eps, one step of noise.   [DDPM] eq. 2"""
    same_shape(x_prev=x_prev, eps=eps)
    t = steps(t, schedule.T)
    return _noised("x_prev", x_prev, eps, schedule.alpha[t], schedule.beta[t])


def q_moments(schedule: Schedule, x0: Array, t: Time) -> tuple[Array, Array]:
    """Mean sqrt(alpha_bar_t) x_0 and variance 1 - alpha_bar_t of q(x_t | x_0), t from 0.   [DDPM] eq. 4"""
    t = steps(t, schedule.T, first=0)
    return like(np.sqrt(schedule.alpha_bar[t]), x0, "x0") * x0, like(schedule.one_minus_alpha_bar[t], x0)


def q_sample(schedule: Schedule, x0: Array, t: Time, eps: Array) -> Array:
    """x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps, t from 0.   [DDPM] eq. 4"""
    same_shape(x0=x0, eps=eps)
    t = steps(t, schedule.T, first=0)
    return _noised("x0", x0, eps, schedule.alpha_bar[t], schedule.one_minus_alpha_bar[t])


def q_between_moments(schedule: Schedule, x_k: Array, k: Time, t: Time) -> tuple[Array, Array]:
    """Mean sqrt(alpha_{t|k}) x_k and variance beta_{t|k} of q(x_t | x_k), 0 <= k <= t.   [VDM] appendix A"""
    alpha, beta = schedule.between(k, t)
    return like(np.sqrt(alpha), x_k, "x_k") * x_k, like(beta, x_k)


def q_between(schedule: Schedule, x_k: Array, k: Time, t: Time, eps: Array) -> Array:
    """x_t = sqrt(alpha_{t|k}) x_k + sqrt(beta_{t|k}) eps, 0 <= k <= t.   [VDM] appendix A"""
    same_shape(x_k=x_k, eps=eps)
    return _noised("x_k", x_k, eps, *schedule.between(k, t))


def _noised(name: str, x: Array, eps: Array, alpha: np.ndarray, beta: np.ndarray) -> Array:
    """sqrt(alpha) x + sqrt(beta) eps, the roots taken in float64: float16 has no beta below 6e-8, but its root."""
    return like(np.sqrt(alpha), x, name) * x + like(np.sqrt(beta), eps, "eps") * eps
