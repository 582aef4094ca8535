"""Dropout with the reference's masks: Philox 4x32-10 [Philox] in working space that stays in cache.

What the counters of all samples have in common is computed once: of (block, sample, step, stream) only the sample differs,
and it enters the third round as two numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...random import Sequence, uniform_threshold
from .elementwise import by_rows
from .runtime.memory import empty, scratch
from .runtime.profiler import operation
from .runtime.traced_array import call

__all__ = ["dropout", "dropout_backward"]

_M0, _M1 = 0xD2511F53, 0xCD9E8D57
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_LOW = 0xFFFFFFFF
_BLOCKS = 1 << 14  # counters at a time


def draw_mask(key: Sequence, rate: float, mask: np.ndarray) -> None:
    """Where the numbers of `refdiff.random.uniform(key, 0 .. n-1, (4 blocks,))` exceed rate, into mask (n, blocks, 4)."""
    least, (n, blocks, _), first = uniform_threshold(rate), mask.shape, int(key.first)
    seed, stream, step = int(key.seed), int(key.stream), int(key.step)
    keys = [((seed + r * _W0) & _LOW, ((seed >> 32) + r * _W1) & _LOW) for r in range(10)]
    constant = _M1 * step
    for start in range(0, blocks, _BLOCKS):
        part = slice(start, min(start + _BLOCKS, blocks))
        size = part.stop - part.start
        c0, c1, c2, c3, p0, p1, *shared = _words(11, size)
        a, b, f, g, h = shared
        # Round 1, for all samples: c2 = high(p0) ^ stream ^ k1 and c3 = low(p0); c0 and c1 are single numbers.
        np.multiply(np.arange(part.start, part.stop, dtype=np.uint64), np.uint64(_M0), out=p0)
        np.right_shift(p0, np.uint64(32), out=c2)
        c2 ^= np.uint64(stream ^ keys[0][1])
        np.bitwise_and(p0, np.uint64(_LOW), out=a)  # c3
        # Round 2: c0 = high(p1) ^ c1 ^ k0 and c1 = low(p1) for all; c2 = c3 ^ a number, c3 a number.
        np.multiply(c2, np.uint64(_M1), out=p1)
        np.bitwise_and(p1, np.uint64(_LOW), out=b)  # c1
        np.right_shift(p1, np.uint64(32), out=c0)
        c0 ^= np.uint64((constant & _LOW) ^ keys[1][0])
        # Round 3: high(p0) and low(p0) for all.
        np.multiply(c0, np.uint64(_M0), out=p0)
        np.right_shift(p0, np.uint64(32), out=f)
        np.bitwise_and(p0, np.uint64(_LOW), out=g)
        np.bitwise_xor(b, np.uint64(keys[2][0]), out=h)
        for i in range(n):
            p0_sample = _M0 * ((constant >> 32) ^ (first + i) ^ keys[0][0])
            np.bitwise_xor(a, np.uint64((p0_sample >> 32) ^ keys[1][1]), out=c2)
            np.multiply(c2, np.uint64(_M1), out=p1)
            np.right_shift(p1, np.uint64(32), out=c0)
            c0 ^= h
            np.bitwise_and(p1, np.uint64(_LOW), out=c1)
            np.bitwise_xor(f, np.uint64((p0_sample & _LOW) ^ keys[2][1]), out=c2)
            c3[...] = g
            for k0, k1 in keys[3:]:
                np.multiply(c0, np.uint64(_M0), out=p0)
                np.multiply(c2, np.uint64(_M1), out=p1)
                np.right_shift(p1, np.uint64(32), out=c0)
                c0 ^= c1
                c0 ^= np.uint64(k0)
                np.bitwise_and(p1, np.uint64(_LOW), out=c1)
                np.right_shift(p0, np.uint64(32), out=c2)
                c2 ^= c3
                c2 ^= np.uint64(k1)
                np.bitwise_and(p0, np.uint64(_LOW), out=c3)
            for j, c in enumerate((c0, c1, c2, c3)):
                np.greater_equal(c, np.uint64(least), out=mask[i, part, j])


def _words(n: int, size: int) -> list[np.ndarray]:
    """n rows of 64-bit working space."""
    return list(scratch("words", n, 2 * size).view(np.uint64))


@operation
def dropout(x: np.ndarray, rate: float, key: Sequence) -> tuple[np.ndarray, Any]:
    """y = x m / (1 - rate), m = 1 where a uniform number of `key` and the sample's place exceeds rate, else 0. [Dropout]"""
    assert 0 <= rate < 1, f"dropout: expected a rate in [0, 1), got {rate}"
    n, count = len(x), x[0].size if len(x) else 0
    blocks = -(-count // 4)
    drawn = empty((n, blocks)).view(np.bool_).reshape(n, blocks, 4)
    call(draw_mask, key, rate, drawn)
    mask = drawn.reshape(n, -1)
    if count % 4:
        padded, mask = mask, empty((n, blocks)).view(np.bool_).reshape(-1)[: n * count].reshape(n, count)
        np.copyto(mask, padded[:, :count])
    saved = mask.reshape(x.shape), np.float32(1 / (1 - rate))
    return _masked(x, saved), saved


@operation
def dropout_backward(dy: np.ndarray, saved: Any) -> np.ndarray:
    """dx = dy m / (1 - rate)."""
    return _masked(dy, saved)


def _masked(x: np.ndarray, saved: tuple[np.ndarray, np.float32]) -> np.ndarray:
    mask, scale = saved
    y = empty(x.shape)

    def task(x: np.ndarray, mask: np.ndarray, y: np.ndarray) -> None:
        np.multiply(x, scale, out=y)
        y *= mask

    by_rows(task, x, mask, y)
    return y
