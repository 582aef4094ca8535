"""One step of the probability-flow ODE and of log p along it, exact for data N(m, c I) however long the step.

A model lives at integers t: a step has its two ends and nothing between, and the last step of the cosine schedule multiplies
sigma by 31.6. With y = x / a and q = s^2 / a^2, a^2 = alpha_bar, s^2 = 1 - alpha_bar, dy = -1/2 grad log p dq. Any c >= 0
gives

    M = y + (c + q) grad log p,     d(y z) = M dz   with z = (c + q)^(-1/2),
    dlog p / dq = -1/2 (D - div M) / (c + q)

For c = 0, M is x0_hat [DPMpp] prop. 4.1; for data N(m, c I), M is m everywhere, and nothing is left to integrate but what
is known. The trapezoid rules for M in z, and for div M / z^2 in z^2 with weights z^2, are of second order for any c, which
is fitted to each sample, from its score's derivative at the earlier end. In x, with alpha and beta those of the step from
k to t, e = -score, S = a^2 c + s^2, m = x - S e = a M and G = div m = div M, nothing is infinite where alpha_bar_t = 0:

    S_t = alpha S_k + beta
    x_t = sqrt(S_t / S_k) x_k - beta / (sqrt(S_k) (sqrt(S_t) + sqrt(alpha S_k))) (m_k + m_t / sqrt(alpha)) / 2
    log p_k(x_k) - log p_t(x_t) = D/2 log(S_t / S_k) - beta / (S_t + alpha S_k) (G_k + G_t) / 2
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from .arrays import Array, namespace
from .schedules import Schedule

_NEARLY_ONE = 1 - 1e-6  # of the largest r that is taken for less than 1
_WIDEST = 1e6  # of S: there the rules are trapezoid rules of the score itself


class Point(NamedTuple):
    """Where the flow is at t: x and e = -score = eps_hat / s (N, ...); div e and |de/dx|^2, summed squares (N,)."""

    t: int
    x: Array
    e: Array
    divergence: Array
    squares: Array


def moved(schedule: Schedule, here: Point, t: int, x: Array | None = None, e: Array | None = None) -> Array:
    """x_t by the earlier end alone, as if M were constant; or by both, given a guess of x_t and e there.   (N, ...)"""
    xp, (alpha, beta) = namespace(here.x), (float(v) for v in schedule.between(here.t, t))
    S_k = _column(_fitted(schedule, here), here.x)
    S_t = alpha * S_k + beta
    m = here.x - S_k * here.e
    if x is not None and alpha > 0:  # at alpha = 0 the model says nothing of M
        m = 0.5 * (m + (x - S_t * e) / alpha**0.5)
    return xp.sqrt(S_t / S_k) * here.x - beta / (xp.sqrt(S_k) * (xp.sqrt(S_t) + xp.sqrt(alpha * S_k))) * m


def fall(schedule: Schedule, here: Point, there: Point, both: bool = True) -> Array:
    """log p_k(x_k) - log p_t(x_t) along the flow, by both ends or by the earlier alone.   (N,)"""
    size, (alpha, beta) = math.prod(here.x.shape[1:]), (float(v) for v in schedule.between(here.t, there.t))
    S_k = _fitted(schedule, here)
    S_t = alpha * S_k + beta
    G_k, G_t = size - S_k * here.divergence, size - S_t * there.divergence
    known = size / 2 * namespace(S_k).log(S_t / S_k)
    return known - 0.5 * beta * ((G_k + G_t) / (S_t + alpha * S_k) if both else G_k / S_t)


def _fitted(schedule: Schedule, at: Point) -> Array:
    """S = a^2 c + s^2 of the c >= 0 that fits: 1 / S is the mean eigenvalue of de/dx, weighted by itself.   (N,)"""
    xp, floor = namespace(at.squares), float(schedule.one_minus_alpha_bar[at.t])
    positive = at.divergence > at.squares / _WIDEST
    ratio = xp.where(positive, at.divergence, 0 * at.squares) / xp.where(positive, at.squares, 0 * at.squares + 1)
    return xp.where(positive, xp.clip(ratio, floor, _WIDEST), 0 * ratio + _WIDEST)


def first_step(
    schedule: Schedule, slope: Callable[[Array, int], Array], point: Callable[[Array, int], Point], x0: Array, t: int
) -> tuple[Point, Array, Array, Array]:
    """The point at t on the flow from x_0, log p(x_0) - log p_t(x_t), and its parts beyond second and first order in P.

    No model can be asked at t = 0, so the score is taken for linear in y, as it is of any Gaussian. With
    P = s^2 de/dx and r = |P|^2 / tr P, a mean of its eigenvalues s^2 / (a^2 c + s^2),

        log p(x_0) - log p_t(x_t) = D/2 log alpha_bar - log det(1 - P) / 2 = D/2 log alpha_bar + (tr P + l(r) |P|^2) / 2
        x_t = a x_0 + (1 - sqrt(1 - P)) P^-1 s^2 e                         = a x_0 + s^2 (e / 2 + g(r) P e)
        l(r) = (-log(1 - r) - r) / r^2,   g(r) = (1 - sqrt(1 - r) - r / 2) / r^2

    exactly if all eigenvalues are one, else to second order in P. What is beyond is infinite where r >= 1: no density is so
    narrow. The second equation is solved by iteration, with Aitken's acceleration; what is left of it counts as beyond.
    """
    xp, size = namespace(x0), math.prod(x0.shape[1:])
    a, s2 = float(schedule.alpha_bar[t]) ** 0.5, float(schedule.one_minus_alpha_bar[t])
    enough = 4 * float(xp.finfo(x0.dtype).eps) * (float(xp.max(xp.abs(x0))) + s2**0.5)

    def gap(at: Point) -> Array:
        """How far the second equation is from true."""
        r, small = _mean_eigenvalue(at, s2)
        g = xp.where(small, 0.125 + r / 16, (1 - xp.sqrt(1 - r) - r / 2) / xp.where(small, 0 * r + 1, r) ** 2)
        Pe = s2**0.5 * directional_derivative(lambda x: slope(x, t), at.x, s2**0.5 * at.e)
        return a * x0 + s2 * (0.5 * at.e + _column(g, at.x) * Pe) - at.x

    at, factor = point(a * x0, t), 1.0
    off = gap(at)
    for _ in range(20):
        if not float(xp.max(xp.abs(off))) > enough:
            break
        before, at = off, point(at.x + factor * off, t)
        off = gap(at)
        change = off - before
        square = sum_of_sample(change**2)
        better = -sum_of_sample(before * change) / xp.where(square > 0, square, square + 1)
        factor = factor * _column(xp.where(square > 0, xp.clip(better, 0.1, 1e4), square + 1), off)
    r, small = _mean_eigenvalue(at, s2)
    l = xp.where(small, 0.5 + r / 3 + r**2 / 4, (-xp.log(1 - r) - r) / xp.where(small, 0 * r + 1, r) ** 2)
    trace, square = s2 * at.divergence, s2**2 * at.squares
    rest = xp.where(r < _NEARLY_ONE, xp.abs(sum_of_sample(at.e * off)), xp.full_like(r, xp.inf))
    total = size / 2 * float(schedule.log_alpha_bar[0, t]) + 0.5 * (trace + square * l)
    return at, total, 0.5 * square * (l - 0.5) + rest, 0.5 * square * l + rest


def _mean_eigenvalue(at: Point, s2: float) -> tuple[Array, Array]:
    """r of `first_step` within 0 .. 1, and whether it is so small that series serve it better.   (N,), (N,)"""
    xp = namespace(at.squares)
    positive = at.divergence > 0
    r = s2 * xp.where(positive, at.squares, 0 * at.squares) / xp.where(positive, at.divergence, 0 * at.squares + 1)
    return xp.clip(r, 0.0, _NEARLY_ONE), r < 1e-3


def directional_derivative(f: Callable[[Array], Array], x: Array, d: Array) -> Array:
    """df/dx d by central differences.   (N, ...)"""
    h = float(namespace(x).finfo(x.dtype).eps) ** (1 / 3)
    return (f(x + h * d) - f(x - h * d)) / (2 * h)


def sum_of_sample(x: Array) -> Array:
    """Over all elements of each sample.   (N, ...) -> (N,)."""
    return namespace(x).sum(x, axis=tuple(range(1, x.ndim)))


def _column(v: Array, x: Array) -> Array:
    """(N,) -> (N, 1, ..., 1), to multiply x."""
    return namespace(x).reshape(v, (-1, *[1] * (x.ndim - 1)))
