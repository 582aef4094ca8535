"""Learning the variances of the reverse steps by the bound: interpolation and loss of [IDDPM] eqs. 15 and 16.

A network that learns variances says twice as much: along its last axis first the prediction, then v of the same size,
which moves the log variance between that of the posterior (v = -1) and log beta_t (v = 1). Cut in two, (prediction, v), it
is a model for `predictor`, whose predict hands v on, and `ancestral` with variance "learned" makes of it the variance of
each of its steps, however long.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .arrays import Array, Time, like, namespace, same_shape, shape_of, single, steps
from .forward import q_sample
from .gaussian_mass import real
from .objectives import l_simple, l_simple_backward, target
from .posterior import posterior_log_variance
from .predictions import convert
from .schedules import Schedule
from .variational_bound import l_vlb_term, l_vlb_term_backward

__all__ = ["l_hybrid", "l_hybrid_backward", "learned_log_variance", "learned_log_variance_backward"]


def learned_log_variance(
    schedule: Schedule, v: Array, t: Time, t_prev: Time | None = None
) -> tuple[Array, tuple[Array, Array]]:
    """(1 + v)/2 log beta_t + (1 - v)/2 log beta_tilde_t, of each element.   [IDDPM] eq. 15   v (N, ...) -> same, saved

    For a step from t to s = t_prev, t - 1 unless given, between its own two variances: beta_{t|s}, and the posterior's of
    x_s, as of the respaced schedule [IDDPM] section 4. That is why v is handed on to the samplers, and no variance: the
    network knows t, but not s. log beta_tilde_1 is `posterior_log_variance`'s. v is not held within [-1, 1].
    """
    slope = like(_half_gap(schedule, t, t_prev), v, "v")
    return like(posterior_log_variance(schedule, t, t_prev), v, "v") + (1 + v) * slope, (slope, v)


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
    prediction, v = halves(output, x0)
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


def _half_gap(schedule: Schedule, t: Time, t_prev: Time | None) -> np.ndarray:
    """(log beta_{t|s} - the posterior's) / 2 = log1p(ratio) / 2, the latter with its stand-in at s = 0.

    ratio = alpha_bar_s beta_{t|s} / (1 - alpha_bar_s). At s = 0, with the step from u = min(2 t, T) to t in the place of the
    posterior's, it is alpha_{u|t} (1 - alpha_bar_t) / beta_{u|t}, and 0 from T to 0.
    """
    t = steps(t, schedule.T)
    s = t - 1 if t_prev is None else steps(t_prev, schedule.T, 0, "t_prev")
    alpha_bar, rest = schedule.alpha_bar, schedule.one_minus_alpha_bar
    alpha, beta = schedule.between(t, np.minimum(2 * t, schedule.T))
    with np.errstate(divide="ignore", invalid="ignore"):
        later = alpha_bar[s] * schedule.between(s, t)[1] / rest[s]
        return 0.5 * np.log1p(np.where(s > 0, later, np.where(t == schedule.T, 0.0, alpha * rest[t] / beta)))


def halves(output: Array, x: Array) -> tuple[Array, Array]:
    """The first and the second half of the last axis.   (N, ..., 2C) -> two (N, ..., C)"""
    if x.ndim < 2 or shape_of("output", output) != (*x.shape[:-1], 2 * x.shape[-1]):
        expected = (*x.shape[:-1], 2 * x.shape[-1]) if x.ndim else "(N, ..., 2C)"
        raise ValueError(
            f"output: expected prediction and v side by side on the last axis, {expected}, got {tuple(output.shape)}"
        )
    return output[..., : x.shape[-1]], output[..., x.shape[-1] :]
