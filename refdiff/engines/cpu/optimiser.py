"""Clipping, Adam, weight decay and the moving average in one pass over the weights, in place.

    norm = global_norm(g)
    update(p, g, m, v, average, step, rate, ...)

Each of them is a dictionary of contiguous float32 arrays by name, such as views of one flat buffer. Each number is read and
written once a step: the weights of a network do not fit in a cache.
"""

from __future__ import annotations

import math

import numpy as np

from .memory import scratch
from .winograd import forget_weights
from .workers import each

__all__ = ["global_norm", "update"]

_TASK = 1 << 18  # numbers of a task
_PART = 1 << 15  # numbers at a time, in cache

Arrays = dict[str, np.ndarray]


def _tasks(first: Arrays, *others: Arrays) -> list[list[tuple[np.ndarray, ...]]]:
    """Equal parts of all arrays of one name, gathered to tasks of about _TASK numbers."""
    tasks: list[list[tuple[np.ndarray, ...]]] = [[]]
    room = _TASK
    for name, array in first.items():  # gradients come in the order of the backward pass
        rows = [array.reshape(-1), *(other[name].reshape(-1) for other in others)]
        for start in range(0, rows[0].size, _PART):
            part = tuple(row[start : start + _PART] for row in rows)
            if room <= 0:
                tasks.append([])
                room = _TASK
            tasks[-1].append(part)
            room -= part[0].size
    return tasks


def global_norm(g: Arrays) -> float:
    """sqrt of the sum of squares of all numbers: float32 within 2^15 of them, float64 above."""
    tasks = _tasks(g)
    sums = [0.0] * len(tasks)

    def task(i: int) -> None:
        sums[i] = sum(float(np.dot(part, part)) for (part,) in tasks[i])

    each(len(tasks), task)
    return math.sqrt(math.fsum(sums))


def update(
    p: Arrays,
    g: Arrays,
    m: Arrays,
    v: Arrays,
    average: Arrays,
    step: int,
    rate: float,
    weight_decay: float = 0.0,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
    scale: float = 1.0,
    decay: float = 0.0,
) -> None:
    """One step of [Adam] and [AdamW] for the gradient scale * g, and average <- d average + (1 - d) p, as the functions
    of `refdiff.training.optimiser` do it, but in place in p, m, v and average. step counts from 1.

    scale: min(1, clip / norm). decay: of the average, which follows p when it is 0.
    """
    d = np.float32(min(decay, (1 + step) / (10 + step)) if decay else 0.0)
    correct1, correct2 = 1 - beta1**step, 1 - beta2**step
    # rate m / correct1 / (sqrt(v / correct2) + epsilon) = size m / (sqrt(v) + small)
    size = np.float32(rate * math.sqrt(correct2) / correct1)
    small = np.float32(epsilon * math.sqrt(correct2))
    keep1, keep2, add1 = np.float32(beta1), np.float32(beta2), np.float32((1 - beta1) * scale)
    add2, shrink = np.float32((1 - beta2) * scale * scale), np.float32(1 - rate * weight_decay)
    tasks = _tasks(p, g, m, v, average)

    def task(i: int) -> None:
        for p, g, m, v, average in tasks[i]:
            a, b = scratch("u", p.size), scratch("t", p.size)
            np.multiply(g, add1, out=a)
            m *= keep1
            m += a
            np.multiply(g, g, out=a)
            a *= add2
            v *= keep2
            v += a
            np.sqrt(v, out=b)
            b += small
            np.divide(m, b, out=a)
            a *= size
            if weight_decay:
                p *= shrink
            p -= a
            np.subtract(average, p, out=a)
            a *= d
            np.add(p, a, out=average)

    each(len(tasks), task)
    forget_weights()
