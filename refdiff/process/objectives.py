"""The training objective L_simple [DDPM] eq. 14 for every kind of prediction, weighted or not, and its gradient.

A training step draws x_0 from the data, t uniformly from 1 .. T and eps ~ N(0, I), shows the network x_t and asks for
eps, or for what eps becomes as another prediction. Squares and sums of 16-bit numbers are made in float32; loss and gradient
come back in the dtype of the prediction.
"""

from __future__ import annotations

import numpy as np

from .arrays import Array, Time, like, namespace, narrow, same_shape, single, steps, wide
from .forward import q_sample
from .posterior import posterior_mean
from .predictions import convert
from .schedules import Schedule

__all__ = ["l_simple", "l_simple_backward", "l_weighted", "l_weighted_backward", "target"]


def target(schedule: Schedule, kind: str, x0: Array, eps: Array, t: Time) -> Array:
    """What a network that predicts `kind` (of PREDICTIONS) should say of x_t = q_sample(x0, t, eps).

    v and mu are made of x0 and eps together, so they are exact even where alpha_bar_t = 0.
    x0, eps (N, ...), t integer or (N,) -> (N, ...). ValueError if the shapes differ.
    """
    same_shape(x0=x0, eps=eps)
    if kind in ("x0", "eps"):
        return x0 if kind == "x0" else eps
    if kind == "v":
        t = steps(t, schedule.T)
        a, s = np.sqrt(schedule.alpha_bar[t]), np.sqrt(schedule.one_minus_alpha_bar[t])
        return like(a, eps, "eps") * eps - like(s, x0, "x0") * x0
    if kind == "mu":
        return posterior_mean(schedule, q_sample(schedule, x0, t, eps), x0, t)
    return convert(schedule, q_sample(schedule, x0, t, eps), t, eps, "eps", kind)


def l_simple(prediction: Array, target: Array) -> tuple[Array, Array]:
    """L = mean of (prediction - target)^2 over samples and elements.   [DDPM] eq. 14   two (N, ...) -> scalar, saved.

    The paper's sum over elements is a mean here, so that the loss does not grow with the image. ValueError if the
    shapes differ.
    """
    same_shape(target=target, prediction=prediction)
    difference = prediction - target
    return _mean(wide(difference) ** 2, difference), difference


def l_simple_backward(dloss: Array, difference: Array) -> Array:
    """dL/dprediction = 2 (prediction - target) / n, n the number of elements.   scalar -> (N, ...)."""
    return narrow(_one(dloss) * (2 / _size(difference)) * wide(difference), difference)


def l_weighted(prediction: Array, target: Array, weight: np.ndarray) -> tuple[Array, tuple[Array, Array]]:
    """L = mean of w (prediction - target)^2 over samples and elements; w = 1 is L_simple.   two (N, ...) -> scalar, saved

    weight: float64 () or one a sample (N,), such as `min_snr_weight(schedule, t)`; with `vlb_weight`, L is the mean of
    L_{t-1} a dimension in nats [DDPM] eq. 12, but for a constant. ValueError if the shapes differ or a weight is negative.
    """
    same_shape(target=target, prediction=prediction)
    weight = np.asarray(weight, np.float64)
    if not np.all((weight >= 0) & np.isfinite(weight)):
        raise ValueError(f"weight: expected finite numbers from 0 on, got {weight}")
    difference = prediction - target
    w = like(weight, wide(difference), "target", "weight")
    return _mean(w * wide(difference) ** 2, difference), (difference, w)


def l_weighted_backward(dloss: Array, saved: tuple[Array, Array]) -> Array:
    """dL/dprediction = 2 w (prediction - target) / n, n the number of elements.   scalar -> (N, ...)."""
    difference, w = saved
    return narrow(_one(dloss) * (2 / _size(difference)) * (w * wide(difference)), difference)


def _mean(x: Array, difference: Array) -> Array:
    """The mean of all elements, which were made of the wide difference."""
    return narrow(namespace(x).sum(x) / _size(x), difference)


def _one(dloss: Array) -> Array:
    """dloss, a number or an array without axes; ValueError for another."""
    single("dloss", dloss)
    return wide(dloss)


def _size(x: Array) -> int:
    size = 1
    for n in x.shape:
        size *= n
    return size
