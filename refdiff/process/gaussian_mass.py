"""The normal distribution in its tails and on short intervals, where differences of its distribution function cancel.

phi(z) = exp(-z^2/2) / sqrt(2 pi), Q(z) = 1 - Phi(z) its upper tail. What is returned of a set S of z is the logarithm of
its mass and the means over it, E[z | S] and E[z^2 | S] - 1: these are the derivatives of the log mass by mean and log
variance. Arrays of any library; analytic in its arguments, as a complex step needs: branches go by real parts.
"""

from __future__ import annotations

import math

import numpy as np

from .arrays import Array, namespace

_GAUSS_LEGENDRE = [*zip(*(a.tolist() for a in np.polynomial.legendre.leggauss(16)), strict=True)]  # nodes and weights
_LOG_ROOT_2PI = 0.5 * math.log(2 * math.pi)

Tilted = tuple[Array, Array, Array]  # log mass, E[z], E[z^2] - 1


def real(x: Array) -> Array:
    """The real part, of a real array itself."""
    xp = namespace(x)
    return xp.real(x) if xp.isdtype(x.dtype, "complex floating") else x


def scaled_tail(x: Array) -> Array:
    """erfcx(x) = exp(x^2) erfc(x) for Re x >= 0, by the trapezoid rule on half-integers [Erfc], within 1e-15:

    2 exp(x^2) / (1 + exp(2 pi x / h)) + (2 h x / pi) sum_n exp(-u_n^2) / (u_n^2 + x^2), u_n = (n + 1/2) h, h = 1/2.
    All terms are positive. The first is below the last digit from x = 2 pi on, where its formula ends.
    """
    xp = namespace(x)
    nodes = [((n + 0.5) / 2) ** 2 for n in range(13)]
    total = sum(math.exp(-u2) / (u2 + x * x) for u2 in nodes)
    low = real(x) < 6
    y = xp.where(low, x, xp.zeros_like(x))
    e = xp.exp(-4 * math.pi * y)
    return xp.where(low, 2 * xp.exp(y * y) * e / (1 + e), xp.zeros_like(x)) + x / math.pi * total


def tail(a: Array) -> Tilted:
    """The set z > a.   log Q(a), E[z] = phi(a) / Q(a) and E[z^2] - 1 = a E[z].   a any shape -> three of its shape."""
    xp = namespace(a)
    above = real(a) >= 0
    p = xp.where(above, a, -a)
    e = scaled_tail(p * 0.5**0.5)
    half, log_phi = -0.5 * p * p, -0.5 * a * a - _LOG_ROOT_2PI
    rest = 0.5 * xp.exp(half) * e  # Q(|a|)
    mean = xp.where(above, math.sqrt(2 / math.pi) / e, xp.exp(log_phi) / (1 - rest))
    return xp.where(above, half + xp.log(0.5 * e), xp.log1p(-rest)), mean, a * mean


def interval(a: Array, b: Array, w: Array) -> Tilted:
    """The set a < z < b about a middle of 0 or more, w = (b - a) / 2 as it is, not as a difference.   three of one shape.

    Short, so that the density hardly changes along it: 16 Gauss-Legendre nodes about its centre, exact to rounding.
    Else to the right of 0: Q(a) - Q(b), which is Q(a) times 1 - exp(-(b^2 - a^2)/2) erfcx(b') / erfcx(a'), not all but 0.
    Else about 0: 1 - Q(-a) - Q(b), above 1/2.
    """
    xp, c = namespace(a), 0.5 * (a + b)
    short = real(w) * (real(c) + 0.5 * real(w)) < 1
    right = real(a) >= 0

    # Short: z = c + w v, v in (-1, 1), density phi(c) exp(-c w v - w^2 v^2 / 2).
    zero, one = xp.zeros_like(c), xp.ones_like(c)
    c_, w_ = xp.where(short, c, zero), xp.where(short, w, one)
    rule = [(v, q * xp.exp(-(c_ + 0.5 * w_ * v) * w_ * v)) for v, q in _GAUSS_LEGENDRE]
    total = sum(q for _, q in rule)
    v1 = sum(q * v for v, q in rule) / total
    v2 = sum(q * (v * v) for v, q in rule) / total
    in_short = (
        xp.log(w_ * total) - 0.5 * c_ * c_ - _LOG_ROOT_2PI,
        c_ + w_ * v1,
        c_ * c_ + 2 * c_ * w_ * v1 + w_ * w_ * v2 - 1,
    )

    # Right: all in units of Q(a).   b^2 - a^2 = 4 c w
    p, drop = xp.where(right, a, -a), xp.exp(-2 * xp.where(short, one, c * w))
    e_a, e_b = scaled_tail(p * 0.5**0.5), scaled_tail(b * 0.5**0.5)
    kept = 1 - drop * e_b / e_a
    kept = xp.where(short | ~right, one, kept)
    slope = math.sqrt(2 / math.pi) / e_a / kept  # phi(a) / mass
    in_right = -0.5 * a * a + xp.log(0.5 * e_a) + xp.log(kept), slope * (1 - drop), slope * (a - b * drop)

    # About 0.
    far_a, far_b = xp.exp(-0.5 * a * a), xp.exp(-0.5 * b * b)
    outside = 0.5 * (far_a * e_a + far_b * e_b)
    outside = xp.where(short | right, zero, outside)
    scale = math.exp(-_LOG_ROOT_2PI) / (1 - outside)
    in_both = xp.log1p(-outside), scale * (far_a - far_b), scale * (a * far_a - b * far_b)

    def choose(s: Array, q: Array, m: Array) -> Array:
        return xp.where(short, s, xp.where(right, q, m))

    log_mass, mean, square_less_1 = map(choose, in_short, in_right, in_both)
    return log_mass, mean, square_less_1
