"""Small data whose truth is known: points of three classes, vectors with captions, images of one blob."""

import numpy as np

from refdiff.models import Input
from refdiff.random import Sequence, normal

N = 512
LABEL = np.arange(N) % 3
CENTRES = np.array([[0.7, 0.0], [-0.35, 0.6], [-0.35, -0.6]])
NO_WORD = 10  # what stands for no caption


class Rows:
    """A data set of these arrays (N, ...), by name."""

    def __init__(self, **entries):
        self.entries = {k: a.astype(np.float32) if a.dtype.kind == "f" else a for k, a in entries.items()}

    @property
    def inputs(self):
        return {k: Input(a.shape[1:], "float" if a.dtype.kind == "f" else "int") for k, a in self.entries.items()}

    def __len__(self):
        return len(next(iter(self.entries.values())))

    def rows(self, ids, key):
        return {name: a[ids] for name, a in self.entries.items()}


def points(labels=True):
    """x (N, 2) about one of three centres, and which."""
    x = CENTRES[LABEL] + 0.1 * normal(Sequence(0, 2), np.arange(N), (2,), np.float64)
    return Rows(x=x, label=LABEL) if labels else Rows(x=x)


# Captions of three words: one of 0 .. 3, one of 4 .. 7, one of 8 and 9.
CAPTIONS = np.stack([np.arange(N) % 4, 4 + np.arange(N) // 4 % 4, 8 + np.arange(N) // 16 % 2], 1)


def captioned():
    """x (N, 12), a squashed sum of its words' vectors, and the words: tokens (N, 3)."""
    words = normal(Sequence(1, 2), np.arange(10), (12,), np.float64)
    noise = normal(Sequence(2, 2), np.arange(N), (12,), np.float64)
    return Rows(x=np.tanh(words[CAPTIONS].sum(1) / 2) + 0.05 * noise, tokens=CAPTIONS)


def pooled(x, k):
    """The means of blocks of k x k pixels."""
    n, h, w, c = x.shape
    return x.reshape(n, h // k, k, w // k, k, c).mean((2, 4))


def images(size):
    """x (N, size, size, 1), one blob whose class says where; low_res of half the size where there is room for it."""
    y, x = np.mgrid[:8, :8] / 7
    centre = 0.5 + 0.3 * CENTRES[LABEL] + 0.04 * normal(Sequence(3, 2), np.arange(N), (2,), np.float64)
    square = (y - centre[:, :1, None]) ** 2 + (x - centre[:, 1:, None]) ** 2
    whole = (2 * np.exp(-square / 0.04) - 1)[..., None]
    low = {"low_res": pooled(whole, 16 // size)} if size > 2 else {}
    return Rows(x=pooled(whole, 8 // size), label=LABEL, **low)
