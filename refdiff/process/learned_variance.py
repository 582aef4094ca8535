"""Learning the variances of the reverse steps by the bound: interpolation and loss of [IDDPM] eqs. 15 and 16.

A network that learns variances says twice as much: along its last axis first the prediction, then v of the same size,
which moves the log variance between that of the posterior (v = -1) and log beta_t (v = 1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .arrays import Array, Time, like, namespace, same_shape, shape_of, single, steps
from .forward import q_sample
from .gaussian_mass import real
from .objectives import l_simple, l_simple_backward, target
from .posterior import posterior_log_variance, posterior_mean
from .predictions import convert, predictor
from .samplers import call_predict
from .schedules import Schedule
from .variational_bound import ReverseStep, fixed_log_variance, l_vlb_term, l_vlb_term_backward

__all__ = [
    "fixed_reverse", "l_hybrid", "l_hybrid_backward", "learned_log_variance", "learned_log_variance_backward",
    "learned_reverse",
]  # fmt: skip


def learned_log_variance(schedule: Schedule, v: Array, t: Time) -> tuple[Array, tuple[Array, Array]]:
    """(1 + v)/2 log beta_t + (1 - v)/2 log beta_tilde_t, of each element.   [IDDPM] eq. 15   v (N, ...) -> same, saved

    log beta_tilde_1 is `posterior_log_variance`'s. v is not held within [-1, 1].
    """
    t = steps(t, schedule.T)
    slope = like(_half_gap(schedule, t), v, "v")
    return like(posterior_log_variance(schedule, t), v, "v") + (1 + v) * slope, (slope, v)


def learned_log_variance_backward(dlog_variance: Array, saved: tuple[Array, Array]) -> Array:
    """dv = (log beta_t - log beta_tilde_t) / 2 times dlog_variance, of v's shape."""
    slope, v = saved
    same_shape(v=v, dlog_variance=dlog_variance)
    return dlog_variance * slope


def l_hybrid(
    schedule: Schedule,
    kind: str,
    x0: Array,
    eps: Array,
    t: Time,
    output: Array,
    weight: float = 1e-3,
    bins: int | None = 256,
) -> tuple[Array, Any]:
    """L_simple + weight L_vlb, of what a network of `kind` says of x_t = q_sample(x0, t, eps).   [IDDPM] eq. 16

    T times the mean over samples of L_{t-1} (or L_0), in bits per dimension, stands for L_vlb: an unbiased estimate
    of it for t uniform on 1 .. T, but for the constant L_T. In it the prediction counts as a constant: only the
    variance learns from it. x0, eps (N, ..., C), output (N, ..., 2C) -> scalar, saved.
    """
    same_shape(x0=x0, eps=eps)
    single("weight", weight)
    prediction, v = _halves(output, x0)
    x_t = q_sample(schedule, x0, t, eps)
    simple, of_simple = l_simple(prediction, target(schedule, kind, x0, eps, t))
    log_variance, of_log_variance = learned_log_variance(schedule, v, t)
    # A complex step does not pass through a real part: that is what stops the gradient.
    mean = convert(schedule, x_t, t, real(prediction), kind, "mu")
    term, of_term = l_vlb_term(schedule, x0, x_t, t, mean, log_variance, bins)
    xp, scale = namespace(term), weight * schedule.T / x0.shape[0]
    each = scale * xp.ones_like(real(term))
    return simple + scale * xp.sum(term), (of_simple, of_term, of_log_variance, each)


def l_hybrid_backward(dloss: Array, saved: Any) -> Array:
    """The prediction's gradient is L_simple's alone, v's is the bound's alone.   scalar -> doutput (N, ..., 2C)"""
    of_simple, of_term, of_log_variance, each = saved
    dprediction = l_simple_backward(dloss, of_simple)
    _, dlog_variance = l_vlb_term_backward(dloss * each, of_term)
    dv = learned_log_variance_backward(dlog_variance, of_log_variance)
    return namespace(dprediction).concat([dprediction, dv], axis=-1)


def fixed_reverse(
    schedule: Schedule,
    predict: Callable[[Array, Time], tuple[Array, Array]],
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
    schedule: Schedule,
    model: Callable[[Array, Time], Array],
    kind: str = "eps",
    clip_x0: tuple[float, float] | None = None,
) -> ReverseStep:
    """reverse(x_t, t) -> mean, log variance, of a model that says prediction and v.   [IDDPM] eq. 15"""

    def reverse(x_t: Array, t: Time) -> tuple[Array, Array]:
        prediction, v = _halves(model(x_t, t), x_t)
        x0_hat, _ = predictor(schedule, lambda *_: prediction, kind, clip_x0)(x_t, t)
        return posterior_mean(schedule, x_t, x0_hat, t), learned_log_variance(schedule, v, t)[0]

    return reverse


def _half_gap(schedule: Schedule, t: np.ndarray) -> np.ndarray:
    """(log beta_t - log beta_tilde_t) / 2 = log1p(ratio) / 2, beta_tilde_1 being beta_tilde_2; 0 for T = 1.

    ratio = alpha_bar_{t-1} beta_t / (1 - alpha_bar_{t-1}) for t > 1, alpha_2 beta_1 / beta_2 at t = 1.
    """
    if schedule.T == 1:
        return np.zeros(t.shape)
    beta, before = schedule.beta, np.maximum(t - 1, 1)
    later = schedule.alpha_bar[before] * beta[t] / schedule.one_minus_alpha_bar[before]
    return 0.5 * np.log1p(np.where(t == 1, schedule.alpha[2] * beta[1] / beta[2], later))


def _halves(output: Array, x: Array) -> tuple[Array, Array]:
    """The first and the second half of the last axis.   (N, ..., 2C) -> two (N, ..., C)"""
    if x.ndim < 2 or shape_of("output", output) != (*x.shape[:-1], 2 * x.shape[-1]):
        expected = (*x.shape[:-1], 2 * x.shape[-1]) if x.ndim else "(N, ..., 2C)"
        raise ValueError(
            f"output: expected prediction and v side by side on the last axis, {expected}, got {tuple(output.shape)}"
        )
    return output[..., : x.shape[-1]], output[..., x.shape[-1] :]
