"""Counter-based noise: each number is a pure function of (seed, stream, step, sample, element).

There is no state. A run resumes bit for bit, and a result does not depend on how samples are spread over batches or
machines, because nothing is ever "drawn next". The generator is Philox 4x32-10 [Philox]; its 128-bit counter and
64-bit key are filled with names:

    key     = (seed low, seed high)                     one experiment
    counter = (block of four elements, sample, step, stream)
"""

from __future__ import annotations

import zlib
from fractions import Fraction
from math import floor
from typing import Any, NamedTuple

import numpy as np

__all__ = [
    "POINTS",
    "Key",
    "Sequence",
    "bits",
    "integers",
    "normal",
    "permutation",
    "philox",
    "stream",
    "uniform",
    "uniform_threshold",
]  # fmt: skip

# [Philox] section 3.3: the two multipliers and the two Weyl increments of Philox 4x32.
_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_LOW, _32 = np.uint64(0xFFFFFFFF), np.uint64(32)


class Sequence(NamedTuple):
    """Names a sequence of numbers: seed (64 bits), stream and step (32 bits each), all non-negative. first: the number
    that sample 0 has, for a part of a batch.
    """

    seed: int
    stream: int
    step: int = 0
    first: int = 0


POINTS = 2  # the stream of the points of data sets: data are what they were before sequences had names


def stream(name: str) -> int:
    """The stream that a name stands for: its CRC-32 with the highest bit set; those with it clear are free for numbers."""
    return zlib.crc32(name.encode()) | 1 << 31


class Key(NamedTuple):
    """Whose numbers: samples first .. first + N - 1 of the `total` that a step has. It names sequences: key("eps").

    path: what the names stand under, so that two users of one name never share numbers.
    """

    seed: int
    step: int = 0
    first: int = 0
    total: int = 1
    path: str = ""

    def __call__(self, name: str) -> Sequence:
        """The sequence of this name."""
        return Sequence(self.seed, stream(self.path + name), self.step, self.first)

    def under(self, name: str) -> Key:
        """A key whose names stand under this one."""
        return self._replace(path=f"{self.path}{name}/")


def philox(counter: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """Philox 4x32-10 [Philox] section 3.3: ten rounds that turn a counter into four random words.

    counter (4, ...) integers below 2^32, key two of them -> (4, ...) uint32.
    """
    c0, c1, c2, c3 = np.asarray(counter, dtype=np.uint64)
    k0, k1 = np.uint64(key[0]), np.uint64(key[1])
    for _ in range(10):
        p0, p1 = _M0 * c0, _M1 * c2
        c0, c1, c2, c3 = (p1 >> _32) ^ c1 ^ k0, p1 & _LOW, (p0 >> _32) ^ c3 ^ k1, p0 & _LOW
        k0, k1 = (k0 + _W0) & _LOW, (k1 + _W1) & _LOW
    return np.stack([c0, c1, c2, c3]).astype(np.uint32)


def bits(key: Sequence, sample_ids: Any, count: int) -> np.ndarray:
    """`count` random words for each sample.   sample_ids (N,) integers -> (N, count) uint32.

    Element e of sample i is word e % 4 of the counter (e // 4, key.first + i, key.step, key.stream).
    """
    sample_ids = np.asarray(sample_ids)
    _check(key, sample_ids)
    blocks = -(-count // 4)
    counter = np.empty((4, len(sample_ids), blocks), np.uint64)
    counter[0] = np.arange(blocks, dtype=np.uint64)
    counter[1] = sample_ids[:, None]
    counter[1] += np.uint64(key.first)
    counter[2] = key.step
    counter[3] = int(key.stream)
    words = philox(counter, (key.seed & 0xFFFFFFFF, key.seed >> 32))
    return np.moveaxis(words, 0, -1).reshape(len(sample_ids), 4 * blocks)[:, :count]


def uniform(key: Sequence, sample_ids: Any, shape: tuple[int, ...] = (), dtype: Any = np.float64) -> np.ndarray:
    """Uniform on (0, 1), both ends excluded: (word + 1/2) / 2^32.   sample_ids (N,) -> (N, *shape).

    In float32 the largest value rounds to 1; draw in float64 where that matters.
    """
    words = bits(key, sample_ids, int(np.prod(shape)))
    return ((words + 0.5) * 2.0**-32).astype(dtype).reshape(len(words), *shape)


def uniform_threshold(rate: float) -> int:
    """The least word whose uniform number, (word + 1/2) / 2^32 in exact arithmetic, exceeds rate in [0, 1]: 0 to 2^32."""
    return floor(Fraction(rate) * (1 << 32) - Fraction(1, 2)) + 1


def normal(key: Sequence, sample_ids: Any, shape: tuple[int, ...] = (), dtype: Any = np.float32) -> np.ndarray:
    """Standard normal numbers by Box and Muller [BoxMuller]: words in pairs (u, v) become

        sqrt(-2 log u) cos(2 pi v),  sqrt(-2 log u) sin(2 pi v),

    computed in float64 and cast once.   sample_ids (N,) -> (N, *shape); |value| < 6.77.
    """
    count = int(np.prod(shape))
    u, v = np.moveaxis(uniform(key, sample_ids, (-(-count // 2), 2)), -1, 0)
    radius, angle = np.sqrt(-2 * np.log(u)), 2 * np.pi * v
    pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
    return pairs.reshape(len(u), 2 * u.shape[1])[:, :count].astype(dtype).reshape(len(u), *shape)


def integers(key: Sequence, sample_ids: Any, low: int, high: int) -> np.ndarray:
    """Uniform integers from low to high, both included.   sample_ids (N,) -> (N,) int64.

    The high half of word * (high - low + 1): no value is likelier than another by more than 2^-32.
    """
    if not 1 <= high - low + 1 <= 1 << 32:
        raise ValueError(f"high: expected low <= high < low + 2^32, got low = {low}, high = {high}")
    words = bits(key, sample_ids, 1)[:, 0].astype(np.uint64)
    return low + ((words * np.uint64(high - low + 1)) >> _32).astype(np.int64)


def permutation(key: Sequence, n: int) -> np.ndarray:
    """A random order of 0 .. n-1: the order of n random words, equal ones by place.   -> (n,) int64."""
    return np.argsort(bits(key, np.arange(n), 1)[:, 0], kind="stable")


def _check(key: Sequence, sample_ids: np.ndarray) -> None:
    for name, value, width in zip(Sequence._fields, key, (64, 32, 32, 32), strict=True):
        if not isinstance(value, int | np.integer) or not 0 <= value < 1 << width:
            raise ValueError(f"{name}: expected an integer from 0 to 2^{width} - 1, got {value}")
    if (
        sample_ids.ndim != 1
        or sample_ids.dtype.kind not in "iu"
        or (sample_ids.size and not 0 <= sample_ids.min() <= int(sample_ids.max()) + key.first < 1 << 32)
    ):
        raise ValueError(
            f"sample_ids: expected a 1-D array of integers from 0 to 2^32 - 1, got shape {sample_ids.shape}, "
            f"dtype {sample_ids.dtype}"
        )
