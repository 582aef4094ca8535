"""How an operation on each element is divided: into rows of the last axis, some 128 kB at a time, which stay in cache.

The steps are too short for threads: each needs the GIL, and two threads would wake each other up all the time.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from .runtime.shards import shard_rows

__all__ = ["by_rows", "over_rows", "over_samples"]

_PART = 1 << 15  # elements of a part
_WORK = 1 << 16  # fewer elements than this are one part


def over_rows(count: int, size: int, task: Callable[[slice], Any]) -> None:
    """task(rows i .. j) over all `count` rows of `size` elements each."""
    for chunk in _parts(slice(0, count), size):
        task(chunk)


def over_samples(shape: tuple[int, ...], task: Callable[[slice], Any]) -> None:
    """task(rows i .. j) over the rows of an array (N, ..., C), where what comes of a row may depend on the others."""
    for shard in shard_rows(shape):
        for chunk in _parts(shard, shape[-1]):
            task(chunk)


def _parts(whole: slice, size: int) -> list[slice]:
    if (whole.stop - whole.start) * size <= _WORK:
        return [whole]
    step = max(1, _PART // size)
    return [slice(i, min(i + step, whole.stop)) for i in range(whole.start, whole.stop, step)]


def by_rows(task: Callable[..., None], *arrays: np.ndarray) -> None:
    """task(part of each array) over parts of arrays of one shape, as rows of their last axis."""
    shape = arrays[0].shape
    if prod(shape) <= _WORK or len(shape) < 2:
        task(*arrays)
        return
    parts = [a.reshape(-1, shape[-1]) for a in arrays]
    over_rows(len(parts[0]), shape[-1], lambda chunk: task(*(a[chunk] for a in parts)))
