"""Guidance: what a condition y adds to a prediction, and what keeps the guided data within their range.

    p(x_t | y) is proportional to p(x_t) p(y | x_t), so grad log p(x_t | y) = grad log p(x_t) + grad log p(y | x_t)

A classifier gives the last term; without one it is the difference of a conditional and an unconditional prediction.
All arrays are of one shape (N, ...), and a scale is one number; shapes that differ are a ValueError.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from .arrays import Array, Time, floating, like, namespace, narrow, same_shape, shape_of, single, steps, wide
from .posterior import signal_left
from .predictions import convert
from .schedules import Schedule

__all__ = [
    "classifier_free_guidance", "classifier_guidance", "classifier_shift", "dynamic_threshold", "rescaled_guidance",
]  # fmt: skip


def classifier_guidance(
    schedule: Schedule, x_t: Array, t: Time, prediction: Array, dlog_p: Array, scale: float = 1.0, kind: str = "eps"
) -> Array:
    """eps - scale sqrt(1 - alpha_bar_t) grad_x log p(y | x_t).   [ADM] eq. 14, algorithm 2

    prediction: of `kind` (of PREDICTIONS), and so is what comes back. dlog_p: the gradient of log p(y | x_t) in x_t.
    The score form, for every sampler; `classifier_shift` is the mean-shift form. ValueError where alpha_bar_t = 0, unless
    kind is eps or score: x_t says nothing of y there, and what y says of x_0 is no multiple of a gradient that is 0.
    """
    same_shape(x_t=x_t, prediction=prediction, dlog_p=dlog_p)
    single("scale", scale)
    if kind not in ("eps", "score"):
        remedy = "guide by predictions with and without y there, or leave that step out"
        signal_left(schedule, steps(t, schedule.T), kind, "a classifier", remedy)
    eps = convert(schedule, x_t, t, prediction, kind, "eps")
    s = like(np.sqrt(schedule.one_minus_alpha_bar[steps(t, schedule.T)]), dlog_p, "dlog_p")
    return convert(schedule, x_t, t, eps - scale * s * dlog_p, "eps", kind)


def classifier_shift(
    gradient: Callable[[Array, int], Array], scale: float = 1.0
) -> Callable[[Array, int, Array, Array], Array]:
    """shift(x_t, t, mean, variance) = scale variance grad_x log p(y | x_t), for `ancestral`.   [ADM] algorithm 1

    The mean-shift form: what a step adds to the mean of p(x_s | x_t) so that x_s also follows y. It is right to first order
    in the step's variance, exactly right for a log p(y | x) that is linear in x.
    gradient(x_t, t) -> the gradient of log p(y | x_t), shape of x_t. ValueError for another shape.
    """

    single("scale", scale)

    def shift(x_t: Array, t: int, mean: Array, variance: Array) -> Array:
        dlog_p = gradient(x_t, t)
        same_shape(x_t=x_t, gradient=dlog_p)
        sd = variance**0.5  # by which it is multiplied twice: in half precision a variance below 6e-8 is 0
        return (scale * sd) * (sd * dlog_p)

    return shift


def classifier_free_guidance(conditional: Array, unconditional: Array, scale: float) -> Array:
    """unconditional + scale (conditional - unconditional).   [CFG] eq. 6, whose w is scale - 1

    Scale 0 is the unconditional prediction, 1 the conditional one, more exaggerates the condition. The weights sum to 1,
    and all kinds of prediction of one x_t are affine in each other: this may be applied to whichever the model makes.
    """
    same_shape(unconditional=unconditional, conditional=conditional)
    single("scale", scale)
    return unconditional + scale * (conditional - unconditional)


def rescaled_guidance(conditional: Array, guided: Array, phi: float) -> Array:
    """phi guided sd(conditional) / sd(guided) + (1 - phi) guided.   [Lin24] eqs. 14 to 16

    sd: over all elements of a sample. With phi = 1 a guided sample has as much contrast as the conditional one; phi = 0
    leaves it as it is, and so does a guided sample without any contrast. All (N, ...), predictions of one kind.
    ValueError for a phi outside 0 .. 1, or samples of a single number.
    """
    same_shape(conditional=conditional, guided=guided)
    single("phi", phi)
    if not 0 <= phi <= 1:
        raise ValueError(f"phi: expected a number from 0 to 1, got {phi}")
    for name, array in (("conditional", conditional), ("guided", guided)):
        floating(name, array)
        if math.prod(shape_of(name, array)[1:]) < 2:
            raise ValueError(f"{name}: expected samples of several elements (N, ...), got shape {tuple(array.shape)}")
    if phi == 0:
        return guided
    ours, theirs = _sd(wide(conditional)), _sd(wide(guided))
    xp = namespace(theirs)
    flat, one = theirs == 0, xp.ones_like(theirs)
    ratio = xp.where(flat, one, ours / xp.where(flat, one, theirs))
    return narrow((phi * ratio + (1 - phi)) * wide(guided), guided)


def _sd(x: Array) -> Array:
    """The standard deviation of each sample.   (N, ...) -> (N, 1, ...)"""
    axes = tuple(range(1, x.ndim))
    xp = namespace(x)
    away = x - xp.mean(x, axis=axes, keepdims=True)
    return xp.sqrt(xp.mean(away * away, axis=axes, keepdims=True))


def dynamic_threshold(x0_hat: Array, quantile: float = 0.995) -> Array:
    """clip(x0_hat, -m, m) / m, m the quantile of |x0_hat| over each sample, at least 1.   [Imagen] section 2.3

    For data in [-1, 1]; what lies within is unchanged. Serves as `clip_x0` of `predictor`. (N, ...) -> (N, ...).
    The quantile is interpolated between the two nearest ranks. ValueError for one outside 0 .. 1, or a single number.
    """
    single("quantile", quantile)
    if not 0 <= quantile <= 1:
        raise ValueError(f"quantile: expected a number from 0 to 1, got {quantile}")
    if len(shape_of("x0_hat", x0_hat)) < 2:
        raise ValueError(f"x0_hat: expected samples of several elements (N, ...), got shape {tuple(x0_hat.shape)}")
    xp = namespace(x0_hat)
    ordered = xp.sort(xp.reshape(xp.abs(x0_hat), (x0_hat.shape[0], -1)), axis=1)
    rank = quantile * (ordered.shape[1] - 1)
    low = min(int(rank), max(ordered.shape[1] - 2, 0))
    high = min(low + 1, ordered.shape[1] - 1)
    limit = ordered[:, low] + (rank - low) * (ordered[:, high] - ordered[:, low])
    limit = xp.reshape(xp.clip(limit, 1.0, None), (-1, *[1] * (x0_hat.ndim - 1)))
    return xp.clip(x0_hat, -limit, limit) / limit
