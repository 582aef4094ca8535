"""Multiplying a model with another distribution [DPM] section 2.5: reverse steps of p~(x_0) in proportion to p(x_0) r(x_0).

Where r changes little within a step, p~(x_{t-1} | x_t) ~ p(x_{t-1} | x_t) r(x_{t-1}) is a kernel of the same kind:

    Gaussian    N(mean + variance grad log r, variance)      `multiplied_gaussian`
    binomial    B(sigmoid(logits + log r(1) - log r(0)))     `multiplied_binomial`

r may be the likelihood of a noisy observation, p~ then is the posterior: `observed_gaussian`, `observed_bits`; of elements
that are known it is a point, which holds them, and p~ fills in the rest: `conditioned`. The paper takes the same r at all
t, which is one choice of r_t with r_0 = r: the chain draws p r exactly if r_t(x_t) = E[r(x_0) | x_t], and where p is the
same at all t, as that of noise is, a constant r in small steps draws p r^2. Shapes that differ are a ValueError.
"""

from __future__ import annotations

import math

from .arrays import Array, floating, full_precision, namespace, only_bits, same_shape

__all__ = ["conditioned", "multiplied_binomial", "multiplied_gaussian", "observed_bits", "observed_gaussian"]


def multiplied_gaussian(mean: Array, log_variance: Array, dlog_r: Array) -> Array:
    """mean + e^log_variance grad log r(mean), the mean of N(mean, e^log_variance) r / Z.   [DPM] section 2.5

    Exact for a log r that is linear in x; else right to first order in the variance. dlog_r: the gradient of log r at
    `mean`.   three of one shape -> that shape
    """
    same_shape(mean=mean, log_variance=log_variance, dlog_r=dlog_r)
    full_precision("log_variance", log_variance)
    return mean + namespace(log_variance).exp(log_variance) * dlog_r


def multiplied_binomial(logits: Array, log_r_1: Array, log_r_0: Array) -> Array:
    """logits + log r(1) - log r(0), the logits of B(sigmoid(logits)) r / Z.   [DPM] section 2.5

    Exact for an r that is a product over elements. log_r_1, log_r_0: of each element, log r with it 1 and with it 0, up to
    what they have in common.   three of one shape -> that shape
    """
    same_shape(logits=logits, log_r_1=log_r_1, log_r_0=log_r_0)
    return logits + (log_r_1 - log_r_0)


def observed_gaussian(mean: Array, log_variance: Array, y: Array, deviation: float) -> tuple[Array, Array]:
    """Mean and log variance of N(mean, v) r / Z, r(x) = N(y; x, s^2), y = x + s eps being what was seen.   [DPM] section 2.5

    N(mean + v' (y - mean) / s^2, v') with 1 / v' = 1 / v + 1 / s^2: exact for every s, since the variance changes too, so
    that a step with v > 2 s^2 does not overshoot. s = deviation, a positive number.   three of one shape -> two of it
    """
    same_shape(mean=mean, log_variance=log_variance, y=y)
    full_precision("log_variance", log_variance)
    if not 0 < deviation < math.inf:
        raise ValueError(
            f"deviation: expected a positive number, got {deviation}; leave out what is seen without noise"
        )
    xp, s2 = namespace(log_variance), float(deviation) ** 2
    narrowed = log_variance - xp.log1p(xp.exp(log_variance) / s2)
    return multiplied_gaussian(mean, narrowed, (y - mean) / s2), narrowed


def observed_bits(logits: Array, y: Array, flipped: float) -> Array:
    """The logits of B(sigmoid(logits)) r / Z, r(x) = 1 - p where x = y, p where not, of each bit.   [DPM] section 2.5

    y: bits 0 and 1, of which each was turned over with probability p = flipped, between 0 and 1/2.   two of one shape ->
    that shape
    """
    same_shape(logits=logits, y=y)
    only_bits("y", y)
    if not 0 < flipped < 0.5:
        raise ValueError(f"flipped: expected a probability between 0 and 1/2, both left out, got {flipped}")
    same, other = math.log1p(-flipped), math.log(flipped)
    return multiplied_binomial(logits, y * same + (1 - y) * other, y * other + (1 - y) * same)


def conditioned(x: Array, known: Array, mask: Array) -> Array:
    """known where mask is 1, x where it is 0: the step's samples with the known elements held.   [DPM] section 2.5

    Applied to x_T and after every step, r being a point on what is known, at all t alike. ValueError for a mask of
    anything but 0 and 1.   three of one shape -> that shape
    """
    same_shape(x=x, known=known, mask=mask)
    xp = floating("mask", mask)
    floating("known", known)
    if not bool(xp.all((mask == 0) | (mask == 1))):
        raise ValueError(
            f"mask: expected 1 where elements are known, 0 where they are not, got values from {float(xp.min(mask)):g} to "
            f"{float(xp.max(mask)):g}"
        )
    return xp.where(mask == 1, known, x)
