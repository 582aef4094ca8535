"""Multiplying a model with another distribution [DPM] section 2.5: reverse steps of p~(x_0) in proportion to p(x_0) r(x_0).

Where r changes little within a step, p~(x_{t-1} | x_t) ~ p(x_{t-1} | x_t) r(x_{t-1}) is a kernel of the same kind:

    Gaussian    N(mean + variance grad log r, variance)      `multiplied_gaussian`
    binomial    B(sigmoid(logits + log r(1) - log r(0)))     `multiplied_binomial`

r may be a likelihood of what was measured, p~ then is the posterior; of elements that are known it is a point, which holds
them, and p~ fills in the rest: `conditioned`. Arrays are of one shape; shapes that differ are a ValueError.
"""

from __future__ import annotations

from .arrays import Array, floating, full_precision, namespace, same_shape

__all__ = ["conditioned", "multiplied_binomial", "multiplied_gaussian"]


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
