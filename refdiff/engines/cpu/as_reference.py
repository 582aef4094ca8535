"""Operations of little work, as the reference has them: in float64, some samples at a time, and rounded once.

Differences of nearly equal numbers, of which likelihoods and divergences are full, keep their digits so. A backward computes
its forward again: nothing is kept but inputs. Each sample is worked out by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from .. import reference
from .runtime.memory import empty
from .runtime.traced_array import call

__all__ = ["PART", "backward", "forward", "per_sample"]

PART = 1 << 15  # numbers of a part


def forward(name: str, inputs: tuple[Any, ...], *shapes: tuple[int, ...], **options: Any) -> tuple[np.ndarray, ...]:
    """What the operation gives for these inputs, arrays of these shapes; options: no arrays."""
    outs = tuple(empty(shape) for shape in shapes)
    per_sample(partial(_forward, name, options), inputs, outs)
    return outs


def backward(
    name: str, dys: tuple[Any, ...], inputs: tuple[Any, ...], *shapes: tuple[int, ...], **options: Any
) -> tuple[np.ndarray, ...]:
    """The gradients of its inputs, as many as there are and of these shapes; dys: of what it gives, arrays or numbers."""
    outs = tuple(empty(shape) for shape in shapes)
    given = (dy if isinstance(dy, np.ndarray) else np.float32(dy) for dy in dys)
    per_sample(partial(_backward, name, len(dys), options), (*given, *inputs), outs)
    return outs


def per_sample(f: Callable[..., Any], given: tuple[Any, ...], outs: tuple[np.ndarray, ...], size: int = 1) -> None:
    """outs <- f(*given), of some samples after others.   arrays (N, ...), of float64 for f; size: numbers f makes of one."""
    call(partial(_by_parts, f, len(given), size), *given, *outs)


def _by_parts(f: Callable[..., Any], count: int, size: int, *arrays: Any) -> None:
    given, outs = arrays[:count], arrays[count:]
    n = len(outs[0])
    step = max(1, n * PART // (size * max([1, *(a.size for a in given if isinstance(a, np.ndarray))])))
    for i in range(0, n, step):
        rows = slice(i, i + step)
        part = [np.array(a[rows], np.float64, order="C") if isinstance(a, np.ndarray) else a for a in given]
        values = f(*part)
        values = values if isinstance(values, tuple) else (values,)
        for out, value in zip(outs, (v for v in values if v is not None), strict=True):
            out[rows] = value


def _forward(name: str, options: dict[str, Any], *inputs: Any) -> Any:
    return getattr(reference, name)(*inputs, **options)[0]


def _backward(name: str, count: int, options: dict[str, Any], *given: Any) -> Any:
    dys, inputs = given[:count], given[count:]
    _, saved = getattr(reference, name)(*inputs, **options)
    return getattr(reference, f"{name}_backward")(dys if count > 1 else dys[0], saved)
