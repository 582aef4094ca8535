"""The coefficients of each t that a denoising objective looks up, made once by the functions of `process`."""

from __future__ import annotations

from functools import cache

import numpy as np

from ..errors import one_of
from ..process import (
    Schedule,
    convert,
    learned_log_variance,
    learned_log_variance_backward,
    min_snr_weight,
    mu_from_x0,
    p2_weight,
    posterior_log_variance,
    q_sample,
    step_variance,
    target,
    vlb_weight,
)
from .schedule import ScheduleConfig

__all__ = ["WEIGHTINGS", "noise_table", "step_table", "variational_table"]

WEIGHTINGS = ("simple", "vlb", "min_snr", "p2")


def weights(schedule: Schedule, weighting: str, prediction: str) -> np.ndarray:
    """w_t for t = 1 .. T of the squared error of this prediction: 1 [DDPM] eq. 14, or a function of `process.weightings`.

    vlb: in nats, as sigma_t^2 the posterior's variance, and beta_1 at t = 1, where that is 0.   -> (T,)
    """
    one_of("objective.weighting", weighting, WEIGHTINGS)
    t = np.arange(1, schedule.T + 1)
    if weighting == "simple":
        return np.ones(schedule.T)
    if weighting == "vlb":
        return np.concatenate([
            vlb_weight(schedule, t[:1], prediction, step_variance),
            vlb_weight(schedule, t[1:], prediction),
        ])  # fmt: skip
    return {"min_snr": min_snr_weight, "p2": p2_weight}[weighting](schedule, t, prediction)


@cache
def noise_table(schedule: ScheduleConfig, prediction: str, weighting: str) -> np.ndarray:
    """Rows (a, b, c, d, w) of t = 0 .. T: x_t = a x_0 + b eps, the target c x_0 + d eps, and the weight of its error.

    Both are linear, so the columns are `q_sample` and `target` of units.   -> (T + 1, 5) float64, read-only; row 0 is 0
    """
    s = schedule.build()
    t = np.arange(1, s.T + 1)
    one, zero = np.ones(s.T), np.zeros(s.T)
    table = np.zeros((s.T + 1, 5))
    for column, (x0, eps) in enumerate([(one, zero), (zero, one)]):
        table[1:, column] = q_sample(s, x0, t, eps)
        table[1:, 2 + column] = target(s, prediction, x0, eps, t)
    table[1:, 4] = weights(s, weighting, prediction)
    table.flags.writeable = False
    return table


@cache
def variational_table(schedule: ScheduleConfig, prediction: str, weight: float) -> np.ndarray:
    """Rows (a, b, c, d, l, h, first, 1, w) of t = 0 .. T: the mean a x_t + b prediction of a reverse step, the posterior's
    mean c x_0 + d x_t, its log variance l, h = (log beta_t - l) / 2, first = 1 where t = 1; and what the squared error and
    the bound's term are multiplied by, w = weight T, since T times the mean over t stands for the sum.   [IDDPM] eqs. 15, 16

    -> (T + 1, 9) float64, read-only; row 0 is 0
    """
    s = schedule.build()
    t = np.arange(1, s.T + 1)
    one, zero = np.ones(s.T), np.zeros(s.T)
    table = np.zeros((s.T + 1, 9))
    for column, (x_t, other) in enumerate([(one, zero), (zero, one)]):
        table[1:, column] = convert(s, x_t, t, other, prediction, "mu")
    table[1:, 2], table[1:, 3] = mu_from_x0(s, zero, t, one), mu_from_x0(s, one, t, zero)
    table[1:, 4] = posterior_log_variance(s, t)
    table[1:, 5] = learned_log_variance_backward(one, learned_log_variance(s, zero, t)[1])
    table[1, 6] = 1
    table[1:, 7], table[1:, 8] = one, weight * s.T
    table.flags.writeable = False
    return table


@cache
def step_table(T: int) -> np.ndarray:
    """Rows (t, 1) of t = 0 .. T: the number of a step among floats, and what weights are multiples of.

    -> (T + 1, 2) float64, read-only
    """
    table = np.stack([np.arange(T + 1), np.ones(T + 1)], axis=1).astype(np.float64)
    table.flags.writeable = False
    return table
