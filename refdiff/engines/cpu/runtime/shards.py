"""A batch is a number of shards: each operation computes one as if the others were not there, and adds up their gradients.

The sum is taken neighbours first, ((a0 + a1) + (a2 + a3)) + ..., so the sum over a group of neighbours is a part of the sum
over all. The bits of a result follow from the number of shards alone, whether one process computes them all or several a
group each (`data_parallel.py`).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache, reduce
from itertools import accumulate
from math import prod
from operator import iadd
from typing import Any

import numpy as np

from .context import current
from .memory import empty

__all__ = ["destinations", "shard_rows", "shards", "split", "tree_sum"]


def shards(n: int) -> list[slice]:
    """Of n samples, those of each shard, as `split` cuts them."""
    return list(split(n, current().shards))


@lru_cache(maxsize=1024)
def split(n: int, count: int) -> tuple[slice, ...]:
    """n samples in count parts, a power of two, without those that are empty.

    Halved again and again, the first half the larger one where n is odd: the parts of a part are parts of the whole.
    """
    sizes = [n]
    for _ in range(count.bit_length() - 1):
        sizes = [half for size in sizes for half in (size - size // 2, size // 2)]
    ends = [0, *accumulate(size for size in sizes if size)]
    return tuple(map(slice, ends[:-1], ends[1:])) or (slice(0, 0),)


def shard_rows(shape: tuple[int, ...]) -> list[slice]:
    """Of the rows of an array (N, ..., C), those of each shard; an array (C,) is one row."""
    rows = prod(shape[1:-1])
    return [slice(shard.start * rows, shard.stop * rows) for shard in shards(shape[0] if len(shape) > 1 else 1)]


def tree_sum(values: Iterable[Any]) -> Any:
    """((a0 + a1) + (a2 + a3)) + ..., neighbours first. Arrays are added in place, and the sum is in the first one."""
    values = list(values)
    while len(values) > 1:
        values = [reduce(iadd, values[i : i + 2]) for i in range(0, len(values), 2)]
    return values[0]


def destinations(total: np.ndarray, count: int) -> list[tuple[np.ndarray, bool]]:
    """Where each of count shards puts its term of the sum `total`: an array, and whether it adds to what that holds.

    Two neighbours share an array. `tree_sum` of the arrays of every second shard is then in `total`.
    """
    arrays = [total, *(empty(total.shape) for _ in range(2, count, 2))]
    return [(arrays[i // 2], i % 2 == 1) for i in range(count)]
