"""float32 and bfloat16 on the host, where NumPy has no such type: the upper half of the bits, as uint16."""

from __future__ import annotations

import numpy as np

__all__ = ["from_bfloat16", "to_bfloat16"]


def to_bfloat16(x: np.ndarray) -> np.ndarray:
    """The nearest, ties to even, of float32; NaN stays NaN.   x any shape -> uint16, same shape."""
    bits = x.view(np.uint32)
    rounded = ((bits + (0x7FFF + ((bits >> 16) & 1)).astype(np.uint32)) >> 16).astype(np.uint16)
    return np.where(np.isnan(x), np.uint16(0x7FFF), rounded)


def from_bfloat16(x: np.ndarray) -> np.ndarray:
    """The float32 of the same value, exactly.   x uint16, any shape -> float32, same shape."""
    return (x.astype(np.uint32) << 16).view(np.float32)
