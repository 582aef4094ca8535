"""A data set on the line, of which everything can be known by quadrature: a mixture of three Gaussians.

Point i depends on seed and i alone, as in the plane. The whole has mean 0 and variance 1.
"""

from __future__ import annotations

import numpy as np

from ..random import POINTS, Sequence, normal, uniform
from .dataset import Dataset
from .planar import HELD_OUT, TRAIN


def _mixture_parameters() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three components, unlike in weight and width and well apart, shifted and scaled to mean 0 and variance 1."""
    weights = np.array([0.3, 0.5, 0.2])
    means, deviations = np.array([-2.0, 0.0, 1.5]), np.array([0.2, 0.4, 0.1])
    means = means - weights @ means
    size = np.sqrt(weights @ (means**2 + deviations**2))
    means, deviations = means / size, deviations / size
    for array in (weights, means, deviations):
        array.flags.writeable = False
    return weights, means, deviations


# Weights, means and standard deviations (3,), float64.
MIXTURE_1D_WEIGHTS, MIXTURE_1D_MEANS, MIXTURE_1D_DEVIATIONS = _mixture_parameters()


def mixture_1d(n: int, seed: int = 0, start: int = 0) -> np.ndarray:
    """Points start .. start+n-1 of the mixture: component k with probability w_k, x = mu_k + sigma_k z.

    -> float32 (n, 1). ValueError for n below 1.
    """
    if not isinstance(n, int | np.integer) or n < 1:
        raise ValueError(f"n: expected a positive integer, got {n!r}; ask for at least one point")
    index = np.arange(start, start + n)
    k = np.searchsorted(np.cumsum(MIXTURE_1D_WEIGHTS)[:-1], uniform(Sequence(seed, POINTS, 0), index, ()))
    z = normal(Sequence(seed, POINTS, 1), index, (), np.float64)
    return (MIXTURE_1D_MEANS[k] + MIXTURE_1D_DEVIATIONS[k] * z).astype(np.float32)[:, None]


def _load() -> Dataset:
    """8192 points to train on and the next 2048 held out, of seed 0."""
    return Dataset("mixture-1d", mixture_1d(TRAIN), None, mixture_1d(HELD_OUT, start=TRAIN), None)


NAMED = {"mixture-1d": _load}
