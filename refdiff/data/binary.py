"""Two data sets of bits, images of -1 and 1: a heartbeat whose entropy is known, and the digits in black and white."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .dataset import Dataset
from .digits import load_digits

LENGTH, PERIOD = 20, 5
TRAIN, HELD_OUT = 1000, 500  # equally many of each phase


def heartbeat(n: int, start: int = 0) -> np.ndarray:
    """Sequences start .. start+n-1 of 20 bits, of which every fifth is 1.   -> float32 (n, 1, 20, 1) of -1 and 1

    x_j = 1 where j = i mod 5, of sequence i. Its phase i mod 5 takes every value equally often, so the entropy is
    log2 5 = 2.3219 bits a sequence.   [DPM]

    Raises ValueError for n below 1.
    """
    if not isinstance(n, int | np.integer) or n < 1:
        raise ValueError(f"n: expected a positive integer, got {n!r}; ask for at least one sequence")
    phase = np.arange(start, start + n)[:, None] % PERIOD
    pulse = np.arange(LENGTH) % PERIOD == phase
    return np.where(pulse, np.float32(1), np.float32(-1))[:, None, :, None]


def load_heartbeat() -> Dataset:
    """x (1000, 1, 20, 1), held_out (500, 1, 20, 1): a fifth of each part is of each phase."""
    return Dataset("heartbeat", heartbeat(TRAIN), None, heartbeat(HELD_OUT, TRAIN), None)


def load_binary_digits() -> Dataset:
    """The digits with x = 1 where v >= 8 of 0 .. 16, else -1: their shapes, parts and labels are those of `load_digits`."""
    data = load_digits()
    x, held_out = (np.where(part >= 0, np.float32(1), np.float32(-1)) for part in (data.x, data.held_out))
    return Dataset("binary-digits", x, data.labels, held_out, data.held_out_labels, names=data.names)


NAMED: dict[str, Callable[[], Dataset]] = {"heartbeat": load_heartbeat, "binary-digits": load_binary_digits}
