"""Clipping, Adam, weight decay and the moving average in one pass over the weights, in place.

    sums = squares(g)
    update(p, g, m, v, average, step, rate, scale, ...)

All are flat float32 buffers. Each number is read and written once a step: the weights of a network do not fit in a cache.
share = (i, n) does the i-th of n parts of the buffers; together the n parts do what one call without it does, to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..winograd import forget_weights
from .memory import scratch
from .shards import tree_sum
from .thread_pool import parallel_for

__all__ = ["parts", "squares", "update"]

PART = 1 << 16  # numbers at a time, in cache


def parts(size: int, share: tuple[int, int]) -> list[slice]:
    """The slices of a buffer of this size that one pass after another works on, of share (i, n) of it."""
    count, (i, n) = -(-size // PART), share
    return [slice(k * PART, (k + 1) * PART) for k in range(count * i // n, count * (i + 1) // n)]


def squares(g: np.ndarray, more: Sequence[np.ndarray] = (), share: tuple[int, int] = (0, 1)) -> list[float]:
    """g <- the sum of g and more, neighbours first, and the sum of squares of each part of it; their sum does not depend on
    how it was shared when it is exact, as `math.fsum` is."""
    pieces = parts(g.size, share)
    sums = [0.0] * len(pieces)

    def task(i: int) -> None:
        part = tree_sum(buffer[pieces[i]] for buffer in (g, *more))
        sums[i] = float(np.dot(part, part))

    parallel_for(len(pieces), task)
    return sums


def update(
    p: np.ndarray,
    g: np.ndarray,
    m: np.ndarray,
    v: np.ndarray,
    average: np.ndarray,
    step: int,
    rate: float,
    weight_decay: float = 0.0,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
    scale: float = 1.0,
    decay: float = 0.0,
    share: tuple[int, int] = (0, 1),
) -> None:
    """One step of [Adam] and [AdamW] for the gradient scale * g, and average <- d average + (1 - d) p, as the functions
    of `refdiff.training.optimiser` do it, but in place in p, m, v and average. step counts from 1.

    scale: min(1, clip / norm). decay: d of the average.
    """
    d = np.float32(decay)
    correct1, correct2 = 1 - beta1**step, 1 - beta2**step
    # rate m / correct1 / (sqrt(v / correct2) + epsilon) = size m / (sqrt(v) + small)
    size = np.float32(rate * math.sqrt(correct2) / correct1)
    small = np.float32(epsilon * math.sqrt(correct2))
    keep1, keep2, add1 = np.float32(beta1), np.float32(beta2), np.float32((1 - beta1) * scale)
    add2, shrink = np.float32((1 - beta2) * scale * scale), np.float32(1 - rate * weight_decay)
    pieces = parts(p.size, share)

    def task(i: int) -> None:
        p_part, g_part, m_part, v_part, average_part = (buffer[pieces[i]] for buffer in (p, g, m, v, average))
        a, b = scratch("u", p_part.size), scratch("t", p_part.size)
        np.multiply(g_part, add1, out=a)
        m_part *= keep1
        m_part += a
        np.multiply(g_part, g_part, out=a)
        a *= add2
        v_part *= keep2
        v_part += a
        np.sqrt(v_part, out=b)
        b += small
        np.divide(m_part, b, out=a)
        a *= size
        if weight_decay:
            p_part *= shrink
        p_part -= a
        np.subtract(average_part, p_part, out=a)
        a *= d
        np.add(p_part, a, out=average_part)

    parallel_for(len(pieces), task)
    forget_weights()
