"""What a network may predict of x_t, and every conversion between these, each in the form that loses no digits.

    x0     the data                                  x_t = a x_0 + s eps
    eps    the noise [DDPM] eq. 4                    a = sqrt(alpha_bar_t),  s = sqrt(1 - alpha_bar_t)
    v      a eps - s x_0 [PD] appendix D             x_0 = a x_t - s v,  eps = s x_t + a v
    score  grad log q(x_t | x_0) = -eps / s [ADM] eq. 11
    mu     the posterior's mean at t - 1 [DDPM] eqs. 7, 11

Each function takes (schedule, x_t, t, prediction), all arrays of one shape, and returns that shape; shapes that differ are a
ValueError. So is what cannot be had from eps or the score where alpha_bar_t = 0, whose x_t says nothing of x_0: predict v.

A coefficient is made in float64 and cast once, and none is the square of a small number: half precision ends at 6e-8.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from ..errors import one_of
from .arrays import Array, Time, like, namespace, same_shape, single, steps, two
from .posterior import posterior_mean, posterior_mean_coefficients, posterior_mean_from_eps, signal_left
from .schedules import Schedule

__all__ = [
    "CONVERSIONS", "PREDICTIONS", "convert", "eps_from_mu", "eps_from_score", "eps_from_v", "eps_from_x0",
    "mu_from_eps", "mu_from_score", "mu_from_v", "mu_from_x0", "predictor", "score_from_eps", "score_from_mu",
    "score_from_v", "score_from_x0", "v_from_eps", "v_from_mu", "v_from_score", "v_from_x0", "x0_from_eps",
    "x0_from_mu", "x0_from_score", "x0_from_v",
]  # fmt: skip

PREDICTIONS = ("eps", "x0", "mu", "v", "score")


def _a_s(schedule: Schedule, t: Time, **arrays: Array) -> tuple[Array, Array]:
    """a = sqrt(alpha_bar_t) and s = sqrt(1 - alpha_bar_t), ready to multiply the arrays, which are of one shape."""
    same_shape(**arrays)
    t, x_t = steps(t, schedule.T), arrays["x_t"]
    return like(np.sqrt(schedule.alpha_bar[t]), x_t, "x_t"), like(np.sqrt(schedule.one_minus_alpha_bar[t]), x_t, "x_t")


def _a_s_of(target: str, source: str, schedule: Schedule, t: Time, **arrays: Array) -> tuple[Array, Array]:
    """As `_a_s`, for a division by a: ValueError where it is 0."""
    signal_left(schedule, steps(t, schedule.T), target, source)
    return _a_s(schedule, t, **arrays)


def _step(schedule: Schedule, t: Time, **arrays: Array) -> tuple[Array, Array]:
    """sqrt(alpha_t) and sqrt(beta_t), ready to multiply the arrays, which are of one shape."""
    same_shape(**arrays)
    t, x_t = steps(t, schedule.T), arrays["x_t"]
    return like(np.sqrt(schedule.alpha[t]), x_t, "x_t"), like(np.sqrt(schedule.beta[t]), x_t, "x_t")


def _step_to_noise(schedule: Schedule, x_t: Array, t: Time) -> Array:
    """beta_t / s, ready to multiply x_t: how much of eps a step adds, in the mean [DDPM] eq. 11."""
    t = steps(t, schedule.T)
    return like(schedule.beta[t] / np.sqrt(schedule.one_minus_alpha_bar[t]), x_t, "x_t")


def _step_to_v(schedule: Schedule, x_t: Array, t: Time) -> Array:
    """sqrt(alpha_bar_{t-1}) beta_t / s, ready to multiply x_t."""
    t = steps(t, schedule.T)
    return like(np.sqrt(schedule.alpha_bar[t - 1] / schedule.one_minus_alpha_bar[t]) * schedule.beta[t], x_t, "x_t")


def x0_from_eps(schedule: Schedule, x_t: Array, t: Time, eps: Array) -> Array:
    """x_0 = (x_t - s eps) / a.   [DDPM] eq. 15"""
    a, s = _a_s_of("x0", "eps", schedule, t, x_t=x_t, eps=eps)
    return (x_t - s * eps) / a


def x0_from_mu(schedule: Schedule, x_t: Array, t: Time, mu: Array) -> Array:
    """x_0 = (mu - c_t x_t) / c_0, with the posterior's c_0 and c_t.   [DDPM] eq. 7"""
    same_shape(x_t=x_t, mu=mu)
    of_x0, of_xt = posterior_mean_coefficients(schedule, t)
    return (mu - like(of_xt, x_t, "x_t") * x_t) / like(of_x0, x_t, "x_t")


def x0_from_v(schedule: Schedule, x_t: Array, t: Time, v: Array) -> Array:
    """x_0 = a x_t - s v.   [PD] appendix D"""
    a, s = _a_s(schedule, t, x_t=x_t, v=v)
    return a * x_t - s * v


def x0_from_score(schedule: Schedule, x_t: Array, t: Time, score: Array) -> Array:
    """x_0 = (x_t + s^2 score) / a, Tweedie's formula.   [Tweedie] eq. 1.4"""
    a, s = _a_s_of("x0", "the score", schedule, t, x_t=x_t, score=score)
    return (x_t + s * (s * score)) / a


def eps_from_x0(schedule: Schedule, x_t: Array, t: Time, x0: Array) -> Array:
    """eps = (x_t - a x_0) / s.   [DDPM] eq. 4"""
    a, s = _a_s(schedule, t, x_t=x_t, x0=x0)
    return (x_t - a * x0) / s


def eps_from_mu(schedule: Schedule, x_t: Array, t: Time, mu: Array) -> Array:
    """eps = (x_t - sqrt(alpha_t) mu) / (beta_t / s).   [DDPM] eq. 11"""
    root_alpha, _ = _step(schedule, t, x_t=x_t, mu=mu)
    return (x_t - root_alpha * mu) / _step_to_noise(schedule, x_t, t)


def eps_from_v(schedule: Schedule, x_t: Array, t: Time, v: Array) -> Array:
    """eps = s x_t + a v.   [PD] appendix D"""
    a, s = _a_s(schedule, t, x_t=x_t, v=v)
    return s * x_t + a * v


def eps_from_score(schedule: Schedule, x_t: Array, t: Time, score: Array) -> Array:
    """eps = -s score.   [ADM] eq. 11"""
    _, s = _a_s(schedule, t, x_t=x_t, score=score)
    return -s * score


def mu_from_x0(schedule: Schedule, x_t: Array, t: Time, x0: Array) -> Array:
    """mu = c_0 x_0 + c_t x_t, the posterior's mean.   [DDPM] eq. 7"""
    return posterior_mean(schedule, x_t, x0, t)


def mu_from_eps(schedule: Schedule, x_t: Array, t: Time, eps: Array) -> Array:
    """mu = (x_t - beta_t / s eps) / sqrt(alpha_t).   [DDPM] eq. 11"""
    return posterior_mean_from_eps(schedule, x_t, eps, t)


def mu_from_v(schedule: Schedule, x_t: Array, t: Time, v: Array) -> Array:
    """mu = sqrt(alpha_t) x_t - sqrt(alpha_bar_{t-1}) beta_t / s v.   From [DDPM] eq. 11 and eps = s x_t + a v"""
    root_alpha, _ = _step(schedule, t, x_t=x_t, v=v)
    return root_alpha * x_t - _step_to_v(schedule, x_t, t) * v


def mu_from_score(schedule: Schedule, x_t: Array, t: Time, score: Array) -> Array:
    """mu = (x_t + beta_t score) / sqrt(alpha_t).   From [DDPM] eq. 11 and eps = -s score"""
    signal_left(schedule, steps(t, schedule.T), "the posterior's mean", "the score")
    root_alpha, root_beta = _step(schedule, t, x_t=x_t, score=score)
    return (x_t + root_beta * (root_beta * score)) / root_alpha


def v_from_x0(schedule: Schedule, x_t: Array, t: Time, x0: Array) -> Array:
    """v = (a x_t - x_0) / s.   [PD] appendix D"""
    a, s = _a_s(schedule, t, x_t=x_t, x0=x0)
    return (a * x_t - x0) / s


def v_from_eps(schedule: Schedule, x_t: Array, t: Time, eps: Array) -> Array:
    """v = (eps - s x_t) / a.   [PD] appendix D"""
    a, s = _a_s_of("v", "eps", schedule, t, x_t=x_t, eps=eps)
    return (eps - s * x_t) / a


def v_from_mu(schedule: Schedule, x_t: Array, t: Time, mu: Array) -> Array:
    """v = (sqrt(alpha_t) x_t - mu) / (sqrt(alpha_bar_{t-1}) beta_t / s), the inverse of `mu_from_v`."""
    root_alpha, _ = _step(schedule, t, x_t=x_t, mu=mu)
    return (root_alpha * x_t - mu) / _step_to_v(schedule, x_t, t)


def v_from_score(schedule: Schedule, x_t: Array, t: Time, score: Array) -> Array:
    """v = -s (x_t + score) / a.   From v = (eps - s x_t) / a and eps = -s score"""
    a, s = _a_s_of("v", "the score", schedule, t, x_t=x_t, score=score)
    return -s * (x_t + score) / a


def score_from_x0(schedule: Schedule, x_t: Array, t: Time, x0: Array) -> Array:
    """score = (a x_0 - x_t) / s^2.   [ADM] eq. 11"""
    a, s = _a_s(schedule, t, x_t=x_t, x0=x0)
    return (a * x0 - x_t) / s / s


def score_from_eps(schedule: Schedule, x_t: Array, t: Time, eps: Array) -> Array:
    """score = -eps / s.   [ADM] eq. 11"""
    _, s = _a_s(schedule, t, x_t=x_t, eps=eps)
    return -eps / s


def score_from_mu(schedule: Schedule, x_t: Array, t: Time, mu: Array) -> Array:
    """score = (sqrt(alpha_t) mu - x_t) / beta_t, the inverse of `mu_from_score`."""
    root_alpha, root_beta = _step(schedule, t, x_t=x_t, mu=mu)
    return (root_alpha * mu - x_t) / root_beta / root_beta


def score_from_v(schedule: Schedule, x_t: Array, t: Time, v: Array) -> Array:
    """score = -(x_t + a / s v).   From score = -eps / s and eps = s x_t + a v"""
    a, s = _a_s(schedule, t, x_t=x_t, v=v)
    return -(x_t + a * v / s)


Conversion = Callable[[Schedule, Array, Time, Array], Array]
Clip: TypeAlias = tuple[float, float] | Callable[[Array], Array] | None
CONVERSIONS: dict[tuple[str, str], Conversion] = {
    (source, target): globals()[f"{target}_from_{source}"]
    for source in PREDICTIONS
    for target in PREDICTIONS
    if source != target
}


def convert(schedule: Schedule, x_t: Array, t: Time, prediction: Array, source: str, target: str) -> Array:
    """`prediction` of x_t as another kind; source and target from PREDICTIONS, else ValueError. The same kind: unchanged."""
    same_shape(x_t=x_t, prediction=prediction)
    for name, kind in (("source", source), ("target", target)):
        one_of(name, kind, PREDICTIONS)
    if source == target:
        return prediction
    return CONVERSIONS[source, target](schedule, x_t, t, prediction)


def predictor(
    schedule: Schedule, model: Callable[[Array, Time], Any], kind: str = "eps", clip_x0: Clip = None
) -> Callable[[Array, Time], tuple[Any, ...]]:
    """predict(x_t, t) -> (x0_hat, eps_hat), what every sampler asks for, from a model of any kind of prediction.

    model(x_t, t) -> prediction, or (prediction, v or None): then predict hands v on as it is, (x0_hat, eps_hat, v), for the
    sampler that makes of it the variance of its own step, see `learned_log_variance`.
    clip_x0: x0_hat is held within (low, high), the range of the data, or becomes clip_x0(x0_hat), for example
    `dynamic_threshold`; eps_hat is derived anew from the result, so that the two always agree with
    x_t = a x0_hat + s eps_hat. It comes last: guidance is part of the model.
    ValueError for a model that answers otherwise, or with a v of another shape.
    """
    if clip_x0 is not None and not callable(clip_x0):
        _check_range(clip_x0)

    def predict(x_t: Array, t: Time) -> tuple[Any, ...]:
        prediction: Any = model(x_t, t)
        behind: tuple[Any, ...] = ()
        if isinstance(prediction, tuple | list):
            prediction, v = two("model", "(prediction, v or None), or one", prediction)
            behind = (v,)
            if v is not None:
                same_shape(x_t=x_t, v=v)
        x0_hat = convert(schedule, x_t, t, prediction, kind, "x0")
        if clip_x0 is None:
            return x0_hat, convert(schedule, x_t, t, prediction, kind, "eps"), *behind
        x0_hat = clip_x0(x0_hat) if callable(clip_x0) else namespace(x0_hat).clip(x0_hat, *clip_x0)
        return x0_hat, eps_from_x0(schedule, x_t, t, x0_hat), *behind

    return predict


def _check_range(clip_x0: Any) -> None:
    """ValueError unless that is two numbers, the first of them smaller."""
    ends = tuple(clip_x0) if isinstance(clip_x0, tuple | list) or getattr(clip_x0, "shape", None) else ()
    if len(ends) == 2:
        for end in ends:
            single("clip_x0", end)
    if len(ends) != 2 or not ends[0] < ends[1]:
        raise ValueError(f"clip_x0: expected (low, high) with low < high, or a function of x0_hat, got {clip_x0!r}")
