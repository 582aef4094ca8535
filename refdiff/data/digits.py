"""The UCI handwritten digits, which travel with the package: 1,797 grey images of 8x8.

E. Alpaydin and C. Kaynak (1998), https://doi.org/10.24432/C50P49, CC BY 4.0; see digits.LICENSE.md.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .dataset import Dataset


def load_digits() -> Dataset:
    """x = v / 8 - 1 of the pixels v = 0 .. 16; 10 classes.   x (1442, 8, 8, 1), held_out (355, 8, 8, 1).

    Within each class, in the order of the source, every fifth image (4, 9, 14, ... from 0) is held out.
    """
    with np.load(Path(__file__).with_name("digits.npz"), allow_pickle=False) as file:
        x, held_out = (file[key].astype(np.float32)[..., None] / 8 - 1 for key in ("train", "held_out"))
        labels, held_out_labels = (file[key].astype(np.int64) for key in ("train_labels", "held_out_labels"))
    return Dataset("digits", x, labels, held_out, held_out_labels, names=tuple("0123456789"))
