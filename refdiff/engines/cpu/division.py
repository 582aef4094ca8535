"""A batch is two halves: each operation does one as if the other were not there, and adds up what both give a weight.

So a result has the same bits when two processes do a half each (`refdiff.training.halves`) and when one does both.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod

from .runtime.context import current, using

__all__ = ["halves", "parts", "rows", "undivided"]


def parts() -> int:
    """How many of them a batch is divided into: 1 inside `undivided`."""
    return current().split


def halves(n: int) -> list[slice]:
    """Of n samples: the first half, which is not the smaller one, and the second if there is more than one sample."""
    middle = -(-n // current().split)
    return [slice(0, n)] if middle == n else [slice(0, middle), slice(middle, n)]


def rows(shape: tuple[int, ...]) -> list[slice]:
    """Of the rows of an array (N, ..., C), those of the first half and those of the second; an array (C,) is one row."""
    each = prod(shape[1:-1])
    return [slice(half.start * each, half.stop * each) for half in halves(shape[0] if len(shape) > 1 else 1)]


@contextmanager
def undivided() -> Iterator[None]:
    """Inside, on this thread, what operations get is itself a half."""
    with using(split=1):
        yield
