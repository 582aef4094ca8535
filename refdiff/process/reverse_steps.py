"""The reverse step p(x_{t-1} | x_t) of a model, as `bound_terms` asks for it: mean and log variance, fixed or learned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .arrays import Array, Time
from .learned_variance import halves, learned_log_variance
from .posterior import posterior_log_variance, posterior_mean
from .predictions import Clip, predictor
from .samplers import Predict, call_predict, call_predict_v
from .schedules import Schedule
from .variational_bound import ReverseStep, fixed_log_variance

__all__ = ["fixed_reverse", "learned_reverse"]


def fixed_reverse(
    schedule: Schedule,
    predict: Predict,
    log_variance: Callable[[Schedule, Time], np.ndarray] = posterior_log_variance,
) -> ReverseStep:
    """reverse(x_t, t) -> mean, log variance, of a `predictor` and a fixed variance, for `bound_terms`.

    log_variance: `posterior_log_variance` or `step_log_variance`, the two extremes of [DDPM] section 3.2; or
    `fixed_large_log_variance`, the second as published figures have it.
    """

    def reverse(x_t: Array, t: Time) -> tuple[Array, Array]:
        x0_hat, _ = call_predict(predict, x_t, t)
        return posterior_mean(schedule, x_t, x0_hat, t), fixed_log_variance(schedule, x_t, t, log_variance)

    return reverse


def learned_reverse(
    schedule: Schedule, model: Callable[[Array, Time], Any], kind: str = "eps", clip_x0: Clip = None
) -> ReverseStep:
    """reverse(x_t, t) -> mean, log variance, of a model that says (prediction, v), or both side by side on the last axis.

    [IDDPM] eq. 15; kind, clip_x0: as `predictor` takes them.
    """

    def reverse(x_t: Array, t: Time) -> tuple[Array, Array]:
        output = model(x_t, t)
        of_both = output if isinstance(output, tuple | list) else halves(output, x_t)
        x0_hat, _, v = call_predict_v(predictor(schedule, lambda *_: of_both, kind, clip_x0), x_t, t)
        return posterior_mean(schedule, x_t, x0_hat, t), learned_log_variance(schedule, v, t)[0]

    return reverse
