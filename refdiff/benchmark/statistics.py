"""The median with its quartiles, of times and of paired ratios."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["paired", "summary"]


def summary(values: Sequence[float]) -> dict[str, Any]:
    """median, quartiles [first, third] and n. ValueError for no values, or one that is not finite and positive."""
    x = np.asarray(values, float)
    if not x.size or not np.all(np.isfinite(x) & (x > 0)):
        raise ValueError(f"values: expected positive finite numbers, at least one, got {list(values)[:8]}")
    first, median, third = np.percentile(x, [25, 50, 75])
    return {"median": float(median), "quartiles": [float(first), float(third)], "n": int(x.size)}


def paired(a: Sequence[Sequence[float]], b: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Of a / b, round by round, the median of each round's times: what slows the machine for a while slows both.

    a, b: one row of times a round, taken right after one another; of rounds that only one has, nothing is used.
    """
    return summary([float(np.median(u) / np.median(v)) for u, v in zip(a, b, strict=False)])
