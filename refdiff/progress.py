"""How far a long work is: a bar on a terminal, elsewhere a plain line now and then, so that a log stays a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

__all__ = ["Progress", "pieces"]

EVERY = 30.0  # seconds between lines


class Progress:
    """Counts to `total` of `unit` on stderr, as a context manager; on: False for nothing at all.

    what: the word before it. done: where it begins. No line comes before `EVERY` seconds have passed.
    """

    def __init__(self, what: str, total: int, unit: str, on: bool = True, done: int = 0) -> None:
        self.what, self.total, self.unit, self.done, self.said = what, total, unit, done, ""
        self._bar: Any = None
        self._on = on and sys.stderr is not None
        self._next = time.monotonic() + EVERY
        if self._on and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, initial=done, unit=unit, desc=what, dynamic_ncols=True)

    def update(self, n: int = 1) -> None:
        """n more are done."""
        self.done += n
        if self._bar is not None:
            self._bar.update(n)
        elif self._on and time.monotonic() >= self._next:
            self._next = time.monotonic() + EVERY
            after = f", {self.said}" if self.said else ""
            print(f"{self.what}: {self.done} of {self.total} {self.unit}s{after}", file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        """What stands behind the count from now on."""
        self.said = text
        if self._bar is not None:
            self._bar.set_postfix_str(text)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: Any) -> None:
        if self._bar is not None:
            self._bar.close()


def pieces(n: int, size: int, what: str, on: bool, unit: str = "sample") -> Iterator[np.ndarray]:
    """The numbers 0 .. n - 1 in pieces of at most `size`, whose progress is shown; what, unit, on: as of `Progress`."""
    with Progress(what, n, unit, on) as progress:
        for first in range(0, n, size):
            ids = np.arange(first, min(first + size, n))
            yield ids
            progress.update(len(ids))
