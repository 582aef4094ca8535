"""How good samples are: the Frechet distance beside its floor and its ceiling, the classes covered, the error of eps."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..models import Tree
from ..process import GaussianMixture, convert, q_sample
from ..random import Key, Stream, integers, normal
from .config import Config
from .data import MIXTURE_COVARIANCES, MIXTURE_MEANS, MIXTURE_WEIGHTS, Dataset, mixture
from .sampling import denoiser

__all__ = ["class_counts", "classes_covered", "eps_error", "evaluate", "frechet_distance"]


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^{1/2}) between Gaussians fitted to two sets [Frechet] [FID] eq. 6.

    a (N, ...), b (M, ...), N and M at least 2, each sample flattened; here of pixels, not of a network's features.
    The trace of the root is the sum of the square roots of the eigenvalues of C_a^{1/2} C_b C_a^{1/2}.
    """
    if len(a) < 2 or len(b) < 2:
        raise ValueError(f"frechet_distance: expected at least 2 samples on each side, got {len(a)} and {len(b)}")
    a, b = (x.reshape(len(x), -1).astype(np.float64) for x in (a, b))
    cov_a, cov_b = np.atleast_2d(np.cov(a.T)), np.atleast_2d(np.cov(b.T))
    values, vectors = np.linalg.eigh(cov_a)
    root_a = vectors * np.sqrt(values.clip(0)) @ vectors.T
    root = np.sqrt(np.linalg.eigvalsh(root_a @ cov_b @ root_a).clip(0)).sum()
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * root)


def class_counts(samples: np.ndarray, data: Dataset) -> np.ndarray:
    """How many samples lie nearest to the mean of each class of the training data.   -> (classes,) integers."""
    x, flat = data.x.reshape(len(data.x), -1), samples.reshape(len(samples), -1)
    means = np.stack([x[data.labels == label].mean(axis=0) for label in range(data.classes)])
    nearest = ((flat[:, None] - means) ** 2).sum(axis=-1).argmin(axis=1)
    return np.bincount(nearest, minlength=data.classes)


def classes_covered(counts: np.ndarray) -> int:
    """How many classes got at least a fifth of an even share of the samples."""
    return int((counts >= max(1.0, counts.sum() / len(counts) / 5)).sum())


def eps_error(config: Config, p: Tree, x0: np.ndarray, seed: int = 0) -> dict[str, float]:
    """Mean squared error of the predicted eps for Gaussian-mixture data, of the model and of the perfect denoiser.

    Both see the same x_t, at t uniform on 1 .. T; the perfect denoiser's error is what no model can go below.
    """
    schedule, exact = config.schedule.build(), GaussianMixture(MIXTURE_WEIGHTS, MIXTURE_MEANS, MIXTURE_COVARIANCES)
    index = np.arange(len(x0))
    t = integers(Key(seed, Stream.EVALUATION), index, 1, schedule.T)
    eps = normal(Key(seed, Stream.EVALUATION, 1), index, x0.shape[1:])
    x_t = q_sample(schedule, x0, t, eps)
    eps_hat = convert(schedule, x_t, t, denoiser(config, p)(x_t, t), config.train.prediction, "eps")
    model, best = (float(((guess - eps) ** 2).mean()) for guess in (eps_hat, exact.eps(schedule, x_t, t)))
    return {"eps_error_model": model, "eps_error_exact": best, "eps_error_ratio": model / best}


def evaluate(config: Config, p: Tree, samples: np.ndarray, data: Dataset, seed: int = 0) -> dict[str, Any]:
    """Samples against the held-out split: `frechet_samples`, beside its floor (the training split in their place)
    and its ceiling (noise); `classes_covered` and `class_counts` for labelled data; the error of eps for the mixture.
    """
    if len(data.held_out) < 2:
        raise ValueError(
            f"eval: expected data with a held-out split, got {data.name} with {len(data.held_out)} held out"
        )
    noise = normal(Key(seed, Stream.EVALUATION, 2), np.arange(len(samples)), samples.shape[1:])
    metrics: dict[str, Any] = {
        "samples": len(samples),
        "frechet_samples": frechet_distance(samples, data.held_out),
        "frechet_floor": frechet_distance(data.x, data.held_out),
        "frechet_noise": frechet_distance(noise, data.held_out),
    }
    if data.classes:
        counts = class_counts(samples, data)
        metrics |= {
            "classes_covered": classes_covered(counts),
            "classes": data.classes,
            "class_counts": counts.tolist(),
        }
    if data.name == "mixture":
        metrics |= eps_error(config, p, mixture(40_000, start=1 << 20), seed)  # points that training never saw
    return metrics
