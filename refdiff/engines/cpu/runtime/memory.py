"""Arrays for an operation, from where the context of its thread says.

`empty` gives one for a result, `scratch` working space that lasts until the thread's next operation, `gradient_out` one for
the gradient of a parameter.
"""

from __future__ import annotations

import numpy as np

from .blocks import pool, trim_heap
from .context import current

__all__ = ["contiguous", "empty", "gradient_of_sum", "gradient_out", "release", "scratch"]


def empty(shape: tuple[int, ...]) -> np.ndarray:
    """An array of float32 with any values, for a result."""
    context = current()
    return context.allocator.empty(shape, context.kind)


def contiguous(x: np.ndarray) -> np.ndarray:
    """x itself when it is contiguous, or else a copy that is."""
    if x.flags.c_contiguous:
        return x
    y = empty(x.shape)
    np.copyto(y, x)
    return y


def scratch(name: str, *shape: int) -> np.ndarray:
    """Working space of float32 that belongs to this thread and this name, until either is asked for again."""
    context = current()
    try:
        return context.workspace.arrays[name, shape]
    except KeyError:
        return context.workspace.take(name, shape, context.kind)


def gradient_out(parameter: np.ndarray) -> np.ndarray:
    """An array of its shape for the gradient of this parameter: its place in the context's gradient buffer, if it lies there
    and no gradient has taken the place before, else fresh."""
    buffer = current().gradients
    out = buffer.take(parameter) if buffer is not None else None
    return empty(parameter.shape) if out is None else out


def gradient_of_sum() -> None:
    """To be called where a gradient that is a sum over samples is not a parameter's yet: what a backward makes of the sum of
    several shards is not the sum of what it makes of each, to the bit, so each shard has to be a pass of its own."""
    buffer = current().gradients
    if buffer is not None:
        buffer.refused = True


def release() -> None:
    """What lies free, this thread's working space included, is given back to the system."""
    pool.trim()
    current().workspace.clear()
    trim_heap()
