"""Where the gradient of a parameter goes: anywhere, or at the parameter's own place in a flat buffer of gradients.

An optimiser in place wants all gradients in one buffer. Copying them there would cost as much as a third of its step.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from .memory import empty

__all__ = ["address", "gradient", "gradients_at"]


class _Places(threading.local):
    flat: tuple[np.ndarray, np.ndarray] | None = None


_places = _Places()


def address(a: np.ndarray) -> int:
    """Of the first element."""
    return int(a.__array_interface__["data"][0])


@contextmanager
def gradients_at(parameters: np.ndarray, gradients: np.ndarray) -> Iterator[None]:
    """Inside, on this thread: the gradient of a weight that lies in the buffer `parameters` is made at the same place of
    the buffer `gradients`.   both (size,) float32"""
    before, _places.flat = _places.flat, (parameters, gradients)
    try:
        yield
    finally:
        _places.flat = before


def gradient(parameter: np.ndarray) -> np.ndarray:
    """Room for the gradient of this parameter, of its shape."""
    if _places.flat is not None:
        parameters, gradients = _places.flat
        offset = (address(parameter) - address(parameters)) // 4
        if 0 <= offset <= parameters.size - parameter.size and parameter.flags.c_contiguous:
            return gradients[offset : offset + parameter.size].reshape(parameter.shape)
    return empty(parameter.shape)
