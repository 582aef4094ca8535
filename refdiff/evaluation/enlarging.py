"""How well images that a model has enlarged agree with the small ones that it was given, and with the large ones that these
once were."""

from __future__ import annotations

import numpy as np

from ..engines import reference
from .metrics import frechet_distance

__all__ = ["enlarging_errors"]


def enlarging_errors(
    samples: np.ndarray, low_res: np.ndarray, x: np.ndarray, held_out: np.ndarray | None = None
) -> dict[str, float]:
    """Root mean squares of what enlarged images are off by, and the Frechet distance of plain interpolation.

    samples, x (N, H, W, C): drawn for low_res (N, h, w, C), and the images of which that was made; held_out: what the
    distance is measured to, x unless given. Three questions, and no one number answers them all:
    low_res_error, does a sample agree with what it was told: its means over blocks of pixels less low_res, where h and w
    divide H and W; 0 for x itself and for pixels repeated; low_res_error_chance, the same of every sample with the low_res
    of the next one, which it knows nothing of.
    rms_error, is it the image that was: sample less x; rms_error_bilinear, low_res interpolated less x. The mean of all
    images that low_res allows has the least, and is blurred; a draw from among them is off by sqrt(2) times as much.
    frechet_bilinear, is it like images at all: of low_res interpolated, to be read beside `frechet_samples`.
    ValueError for samples, small images and x that do not fit together.
    """
    if samples.shape != x.shape or samples.ndim != 4 or low_res.ndim != 4 or len(low_res) != len(x):
        raise ValueError(
            f"samples: expected (N, H, W, C) with a small image and an original each, got {samples.shape}, "
            f"{low_res.shape} and {x.shape}"
        )
    bilinear = reference.resize_bilinear(low_res.astype(np.float64), x.shape[1:3])[0]
    found = {}
    (height, width), (low_height, low_width) = x.shape[1:3], low_res.shape[1:3]
    if height % low_height == width % low_width == 0:
        blocks = samples.reshape(len(x), low_height, height // low_height, low_width, width // low_width, -1)
        means = blocks.mean(axis=(2, 4), dtype=np.float64)
        found["low_res_error"] = _rms(means - low_res)
        found["low_res_error_chance"] = _rms(means - np.roll(low_res, -1, axis=0))
    return found | {
        "rms_error": _rms(samples.astype(np.float64) - x),
        "rms_error_bilinear": _rms(bilinear - x),
        "frechet_bilinear": frechet_distance(bilinear, x if held_out is None else held_out),
    }


def _rms(difference: np.ndarray) -> float:
    return float(np.sqrt((difference**2).mean()))
