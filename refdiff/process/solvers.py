"""Solvers of the probability-flow ODE: from noise to data, and back, on a path that no noise disturbs.

With a = sqrt(alpha_bar), s = sqrt(1 - alpha_bar), y = x / a and sigma = s / a the flow is dy = eps_hat dsigma [DDIM] eq. 14,
the variance-preserving ODE of [SDE] eq. 13 in the coordinates of [EDM]. In lambda = log(a / s) it is, exactly,

    x_s = (s_s / s_t) x_t + s_s * integral of exp(lambda) x0_hat dlambda, from lambda_t to lambda_s  [DPMpp] prop. 4.1

Downward steps are taken from x0_hat and eps_hat, x_t = a x0_hat + s eps_hat, not from y: y_t + (sigma_s - sigma_t) eps_hat
is a difference of numbers of the size of sigma_t, off by their last digit, which sigma_t / sigma_s magnifies.

Contract as in `samplers`: each yields (t_prev, x) after every step. A model lives at integers t: it is asked at the steps
given, and 2S at one between. The last step, to sigma = 0 and lambda = infinity, is x0_hat of the step before it for every
solver: of first order, which costs no order as long as the first of the timesteps stays put while others come between.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .arrays import Array, floating, same_shape
from .samplers import Predict, Trajectory, backwards, call_predict, scales
from .schedules import Schedule

__all__ = ["ddim_inversion", "dpmpp_2m", "dpmpp_2s", "euler", "heun"]


def euler(schedule: Schedule, predict: Predict, x: Array, timesteps: Sequence[int]) -> Trajectory:
    """y_s = y_t + (sigma_s - sigma_t) eps_hat = x0_hat + sigma_s eps_hat.   First order; DDIM with eta = 0 [DDIM] eq. 13

    x ~ N(0, I). ValueError where sigma is infinite.
    """
    a, sigma = scales(schedule, x, timesteps)
    for t, s in backwards(schedule, timesteps):
        x0_hat, eps_hat = call_predict(predict, x, t)
        same_shape(x=x, x0_hat=x0_hat, eps_hat=eps_hat)
        x = a[s] * x0_hat + (a[s] * sigma[s]) * eps_hat
        yield s, x


def heun(schedule: Schedule, predict: Predict, x: Array, timesteps: Sequence[int]) -> Trajectory:
    """y_s = y_t + (sigma_s - sigma_t) (eps_hat(y_t, t) + eps_hat(y', s)) / 2, y' by Euler's step.   [EDM] algorithm 1

    Computed as y' + (sigma_s - sigma_t) (eps_hat' - eps_hat) / 2. Along Euler's step the change of the slope is also
    (x0_hat - x0_hat') / sigma_s: for sigma_s > 1, where an error of it counts sigma_t times, that has more digits.
    Second order, two predictions a step; to sigma = 0 the step is Euler's. x ~ N(0, I). ValueError where sigma is infinite.
    """
    a, sigma = scales(schedule, x, timesteps)
    for t, s in backwards(schedule, timesteps):
        x0_hat, eps_hat = call_predict(predict, x, t)
        same_shape(x=x, x0_hat=x0_hat, eps_hat=eps_hat)
        x = a[s] * x0_hat + (a[s] * sigma[s]) * eps_hat
        if s:
            x0_there, eps_there = call_predict(predict, x, s)
            same_shape(x=x, x0_hat=x0_there, eps_hat=eps_there)
            change = (x0_hat - x0_there) / sigma[s] if sigma[s] > 1 else eps_there - eps_hat
            x = x + (a[s] * (sigma[s] - sigma[t]) / 2) * change
        yield s, x


def dpmpp_2m(schedule: Schedule, predict: Predict, x: Array, timesteps: Sequence[int]) -> Trajectory:
    """x_s = (s_s / s_t) x_t + a_s (1 - exp(-h)) D, h = lambda_s - lambda_t.   DPM-Solver++(2M), [DPMpp] algorithm 2

    D = x0_hat + h / (2 h') (x0_hat - x0_hat'), the primes being the step before: x0_hat as a line in lambda. The first
    step and the last, to lambda = infinity, take D = x0_hat. Second order, one prediction a step. x ~ N(0, I).
    """
    a, s_, lam = _exponential(schedule, x)
    before = None
    for t, s in backwards(schedule, timesteps):
        x0_hat, _ = call_predict(predict, x, t)
        same_shape(x=x, x0_hat=x0_hat)
        h, d = lam[s] - lam[t], x0_hat
        if before and s:
            x0_before, h_before = before  # from alpha_bar = 0 h_before is infinite, and the line is level
            d = x0_hat + h / (2 * h_before) * (x0_hat - x0_before)
        x = s_[s] / s_[t] * x - a[s] * math.expm1(-h) * d
        before = x0_hat, h
        yield s, x


def dpmpp_2s(schedule: Schedule, predict: Predict, x: Array, timesteps: Sequence[int]) -> Trajectory:
    """x_s as in `dpmpp_2m`, with D = x0_hat + (x0_hat(u) - x0_hat) / (2 r).   DPM-Solver++(2S), [DPMpp] algorithm 1

    u is the integer in s .. t - 1 whose lambda is nearest to the middle of lambda_t and lambda_s, and r is the fraction
    of the way where it truly lies, (lambda_u - lambda_t) / h: of second order for each r in 0 < r <= 1, so neighbouring
    steps (u = s, r = 1) are no exception. The last step, and one from alpha_bar = 0, take D = x0_hat. Two predictions a
    step. x ~ N(0, I).
    """
    a, s_, lam = _exponential(schedule, x)
    for t, s in backwards(schedule, timesteps):
        x0_hat, _ = call_predict(predict, x, t)
        same_shape(x=x, x0_hat=x0_hat)
        h, d = lam[s] - lam[t], x0_hat
        if math.isfinite(h):
            u = _halfway(lam, t, s)
            to_u = lam[u] - lam[t]
            x0_there, _ = call_predict(predict, s_[u] / s_[t] * x - a[u] * math.expm1(-to_u) * x0_hat, u)
            same_shape(x=x, x0_hat=x0_there)
            d = x0_hat + h / (2 * to_u) * (x0_there - x0_hat)
        x = s_[s] / s_[t] * x - a[s] * math.expm1(-h) * d
        yield s, x


def ddim_inversion(schedule: Schedule, predict: Predict, x: Array, timesteps: Sequence[int]) -> Trajectory:
    """y_u = y_t + (sigma_u - sigma_t) eps_hat, from x_0 up through the timesteps: DDIM backwards.   [DDIM] section 4.3

    Yields (t, x_t) for each of the timesteps. A model cannot be asked at t = 0: the first step takes eps_hat at the first
    of the timesteps instead. ValueError where sigma is infinite.
    """
    a, sigma = scales(schedule, x, timesteps)
    for u, t in reversed([*backwards(schedule, timesteps)]):
        at = t or u
        _, eps_hat = call_predict(predict, (a[at] / a[t]) * x, at)
        same_shape(x=x, eps_hat=eps_hat)
        x = (a[u] / a[t]) * x + (a[u] * (sigma[u] - sigma[t])) * eps_hat
        yield u, x


def _halfway(lam: list[float], t: int, s: int) -> int:
    """The integer in s .. t - 1 whose lambda is nearest to the middle of lambda_t and lambda_s."""
    middle = (lam[t] + lam[s]) / 2
    return min(range(s, t), key=lambda u: abs(lam[u] - middle))


def _exponential(schedule: Schedule, x: Array) -> tuple[list[float], list[float], list[float]]:
    """a = sqrt(alpha_bar), s = sqrt(1 - alpha_bar) and lambda = log(a / s), each indexed by t; lambda_0 is infinite."""
    floating("x", x)
    with np.errstate(divide="ignore"):
        lam = (0.5 * np.log(schedule.snr)).tolist()
    return np.sqrt(schedule.alpha_bar).tolist(), np.sqrt(schedule.one_minus_alpha_bar).tolist(), lam
