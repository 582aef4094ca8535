"""What comes back from the device: its arrays as NumPy's."""

from __future__ import annotations

from math import prod

import numpy as np

from .runtime.bfloat16 import from_bfloat16
from .runtime.context import Array

__all__ = ["host"]


def host(x: Array) -> np.ndarray:
    """The values as NumPy's; bfloat16 becomes float32. It waits for all that was queued, and launches nothing."""
    rows, width = prod(x.shape[:-1]), x.shape[-1] if x.shape else 1
    y = np.empty((rows - 1) * x.pitch + width if x.size else 0, np.uint16 if x.dtype == "bfloat16" else x.dtype)
    if x.size:
        x.context.device.read(x.pointer, y)  # with what lies between the rows of a part of a split
    if not x.dense:
        y = np.lib.stride_tricks.as_strided(y, (rows, width), (x.pitch * y.itemsize, y.itemsize)).copy()
    return (from_bfloat16(y) if x.dtype == "bfloat16" else y).reshape(x.shape)
