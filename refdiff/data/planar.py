"""Four data sets in the plane, each a function of (n, seed): point i depends on seed and i alone.

All have mean about 0 and a variance of about 1, averaged over the two coordinates, so a model needs no scaling.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from ..random import POINTS, Sequence, normal, uniform
from .dataset import Dataset

TRAIN, HELD_OUT = 8192, 2048


def swissroll(n: int, seed: int = 0, start: int = 0) -> np.ndarray:
    """Points start .. start+n-1 of a spiral r = t of one and a half turns, t uniform on [3 pi/2, 9 pi/2].

    x = ((t cos t, t sin t) - centre) / 7 + 0.05 z.   -> float32 (n, 2)
    """
    u, z = _draw(n, seed, start)
    t = 1.5 * np.pi * (1 + 2 * u[:, 0])
    x = np.stack([t * np.cos(t), t * np.sin(t)], axis=1)
    # The integral of (t cos t, t sin t) over the three half-turns, divided by 3 pi.
    centre = np.array([2.0, 2 / (3 * np.pi)])
    return ((x - centre) / 7 + 0.05 * z).astype(np.float32)


def moons(n: int, seed: int = 0, start: int = 0) -> np.ndarray:
    """Points start .. start+n-1 of two interleaved half circles, each with probability 1/2.

    x = sqrt(2) ((cos a, sin a) - (1/2, 1/4)) + 0.07 z, or turned by half a turn about 0.   -> float32 (n, 2)
    """
    u, z = _draw(n, seed, start)
    angle = np.pi * u[:, 0]
    side = np.where(u[:, 1:] < 0.5, 1.0, -1.0)
    upper = np.stack([np.cos(angle) - 0.5, np.sin(angle) - 0.25], axis=1)
    return (np.sqrt(2) * side * upper + 0.07 * z).astype(np.float32)


def rings(n: int, seed: int = 0, start: int = 0) -> np.ndarray:
    """Points start .. start+n-1 of three circles about 0, radii 0.65, 1.3 and 1.95, each with probability 1/3.

    x = r (cos a, sin a) + 0.05 z.   -> float32 (n, 2)
    """
    u, z = _draw(n, seed, start)
    angle, radius = 2 * np.pi * u[:, 0], 0.65 * (1 + np.floor(3 * u[:, 1]))
    x = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return (x + 0.05 * z).astype(np.float32)


def _mixture_parameters() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Eight components on a circle, by turns round and light, and stretched along the circle and heavy."""
    weights = np.tile([1 / 12, 1 / 6], 4)
    deviations = np.tile([[0.15, 0.15], [0.06, 0.3]], (4, 1))  # (8, 2): along the radius, along the circle
    # The covariance of the whole is (radius^2 / 2 + mean variance) times the identity; this makes it the identity.
    radius = np.sqrt(2 - weights @ (deviations**2).sum(axis=1))
    angle = np.arange(8) * np.pi / 4
    axes = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]).transpose(2, 0, 1)  # (8, 2, 2)
    means = radius * axes[:, :, 0]
    covariances = axes * deviations[:, None, :] ** 2 @ axes.transpose(0, 2, 1)
    covariances = (covariances + covariances.transpose(0, 2, 1)) / 2  # symmetric to the last bit
    for array in (weights, means, covariances):
        array.flags.writeable = False
    return weights, means, covariances


# The mixture's weights (8,), means (8, 2) and covariances (8, 2, 2), float64: the whole has mean 0 and covariance 1, so
# the perfect denoiser and log p(x) are known.
MIXTURE_WEIGHTS, MIXTURE_MEANS, MIXTURE_COVARIANCES = _mixture_parameters()


def mixture(n: int, seed: int = 0, start: int = 0) -> np.ndarray:
    """Points start .. start+n-1 of the Gaussian mixture: component k with probability w_k, x = mu_k + L_k z, with
    L_k L_k' = Sigma_k.   -> float32 (n, 2)
    """
    u, z = _draw(n, seed, start)
    k = np.searchsorted(np.cumsum(MIXTURE_WEIGHTS)[:-1], u[:, 0])
    factor = np.linalg.cholesky(MIXTURE_COVARIANCES)
    return (MIXTURE_MEANS[k] + np.einsum("nij,nj->ni", factor[k], z)).astype(np.float32)


def _draw(n: int, seed: int, start: int) -> tuple[np.ndarray, np.ndarray]:
    """Two uniform and two normal numbers a point, float64 (n, 2) each; on two steps, so they are independent."""
    if not isinstance(n, int | np.integer) or n < 1:
        raise ValueError(f"n: expected a positive integer, got {n!r}; ask for at least one point")
    index = np.arange(start, start + n)
    positions = uniform(Sequence(seed, POINTS, 0), index, (2,))
    return positions, normal(Sequence(seed, POINTS, 1), index, (2,), np.float64)


def _load(points: Callable[..., np.ndarray]) -> Dataset:
    """8192 points to train on and the next 2048 held out, of seed 0."""
    return Dataset(points.__name__, points(TRAIN), None, points(HELD_OUT, start=TRAIN), None)


NAMED = {points.__name__: partial(_load, points) for points in (swissroll, moons, rings, mixture)}
