"""How good samples are: the Frechet distance beside its floor and its ceiling, the classes covered, the error of eps."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..data import MIXTURE_COVARIANCES, MIXTURE_MEANS, MIXTURE_WEIGHTS, Dataset, mixture
from ..process import GaussianMixture, convert, q_sample
from ..random import Key, integers, normal
from ..sampling import Trained, check_conditions, denoiser, encoder_function, network_function

__all__ = ["check_evaluable", "class_counts", "classes_covered", "eps_error", "evaluate", "frechet_distance"]

AT_ONCE = 1 << 20  # numbers of samples, and of class means, that are worked on at once


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^{1/2}) between Gaussians fitted to two sets [Frechet] [FID] eq. 6.

    a (N, ...), b (M, ...), N and M at least 2, each sample flattened; here of pixels, not of a network's features.
    The trace of the root is the sum of the square roots of the eigenvalues of C_a^{1/2} C_b C_a^{1/2}.
    """
    if len(a) < 2 or len(b) < 2:
        raise ValueError(f"frechet_distance: expected at least 2 samples on each side, got {len(a)} and {len(b)}")
    _check_finite(a)
    _check_finite(b)
    a, b = (x.reshape(len(x), -1).astype(np.float64) for x in (a, b))
    cov_a, cov_b = np.atleast_2d(np.cov(a.T)), np.atleast_2d(np.cov(b.T))
    values, vectors = np.linalg.eigh(cov_a)
    root_a = vectors * np.sqrt(values.clip(0)) @ vectors.T
    root = np.sqrt(np.linalg.eigvalsh(root_a @ cov_b @ root_a).clip(0)).sum()
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * root)


def class_counts(samples: np.ndarray, data: Dataset) -> dict[int, int]:
    """How many samples lie nearest to the mean of each class of the training data.   -> {label: count}, labels rising.

    Classes are the labels that training samples have, whatever numbers those are. samples (N, ...) of the data's shape,
    N >= 0. Beside the data it takes some 40 MB. ValueError for data without labels, for samples of another shape, or with
    numbers that are not finite, which are near to nothing.
    """
    if data.labels is None:
        raise ValueError(f"data: expected labels, got {data.name} with none; leave the classes out")
    if samples.shape[1:] != data.shape:
        raise ValueError(f"samples: expected (N, {', '.join(map(str, data.shape))}), got {samples.shape}")
    _check_finite(samples)
    x = data.x.reshape(len(data.x), -1)
    flat = samples.reshape(len(samples), x.shape[1])
    labels, counts = np.unique(data.labels, return_counts=True)
    members = np.split(np.argsort(data.labels, kind="stable"), np.cumsum(counts)[:-1])
    rows = max(1, AT_ONCE // x.shape[1])
    least, nearest = np.full(len(flat), np.inf), np.zeros(len(flat), np.int64)
    for first in range(0, len(labels), rows):
        means = np.stack([mean_of_rows(x, own, rows) for own in members[first : first + rows]])
        squares = (means * means).sum(axis=1)
        for start in range(0, len(flat), rows):
            part = slice(start, start + rows)
            distance = squares - 2 * flat[part].astype(np.float64) @ means.T  # and |x|^2, the same for every class
            best = distance.argmin(axis=1)
            found = np.take_along_axis(distance, best[:, None], axis=1)[:, 0]
            nearer = found < least[part]
            least[part][nearer], nearest[part][nearer] = found[nearer], first + best[nearer]
    return dict(zip(labels.tolist(), np.bincount(nearest, minlength=len(labels)).tolist(), strict=True))


def mean_of_rows(x: np.ndarray, members: np.ndarray, rows: int) -> np.ndarray:
    """The mean of these rows of x (N, D), in float64, so many of them at once.   -> (D,)"""
    parts = (x[members[i : i + rows]].sum(axis=0, dtype=np.float64) for i in range(0, len(members), rows))
    return np.sum(list(parts), axis=0) / len(members)


def classes_covered(counts: dict[int, int]) -> int:
    """How many classes got at least a fifth of an even share of the samples."""
    share = sum(counts.values()) / max(1, len(counts))
    return sum(count >= max(1.0, share / 5) for count in counts.values())


def eps_error(trained: Trained, x0: np.ndarray, seed: int = 0) -> dict[str, float]:
    """Mean squared error of the predicted eps for Gaussian-mixture data, of the model and of the perfect denoiser.

    Both see the same x_t, at t uniform on 1 .. T; the perfect denoiser's error is what no model can go below.
    """
    objective = trained.objective
    schedule, exact = objective.schedule.build(), GaussianMixture(MIXTURE_WEIGHTS, MIXTURE_MEANS, MIXTURE_COVARIANCES)
    key, ids = Key(seed).under("evaluate"), np.arange(len(x0))
    t = integers(key("t"), ids, 1, schedule.T)
    eps = normal(key("eps"), ids, x0.shape[1:])
    x_t = q_sample(schedule, x0, t, eps)
    conditions = encoder_function(trained)(check_conditions(trained.networks, objective, {}, len(x0)))
    predict = network_function(trained.engine, trained.networks["denoiser"], trained.dtype)
    model = denoiser(predict, conditions, objective.learned)
    eps_hat = convert(schedule, x_t, t, model(x_t, t)[0], objective.prediction, "eps")
    own, best = (float(((guess - eps) ** 2).mean()) for guess in (eps_hat, exact.eps(schedule, x_t, t)))
    return {"eps_error_model": own, "eps_error_exact": best, "eps_error_ratio": own / best}


def check_evaluable(data: Dataset, n: int) -> None:
    """ValueError where `evaluate` would have too few samples, of these data or of the n that are to be made, for a
    covariance."""
    if n < 2:
        raise ValueError(f"n: expected at least 2 samples to measure, got {n}")
    if len(data.held_out) < 2 or len(data.x) < 2:
        raise ValueError(
            f"data: expected at least 2 training samples and 2 held out, got {data.name} with {len(data.x)} and "
            f"{len(data.held_out)}; give a .npz with an array held_out, or 20 samples, of which every tenth is held out"
        )


def _check_finite(samples: np.ndarray) -> None:
    bad = int(np.count_nonzero(~np.isfinite(samples)))
    if bad:
        raise ValueError(
            f"samples: expected finite numbers, got {bad} of {samples.size} that are not; look where they come from"
        )


def evaluate(trained: Trained, samples: np.ndarray, data: Dataset, seed: int = 0) -> dict[str, Any]:
    """Samples against the held-out split: `frechet_samples`, beside its floor (the training split in their place)
    and its ceiling (noise); `classes_covered` of `classes`, and `class_counts` by label, for labelled data;
    the error of eps for the mixture.
    """
    check_evaluable(data, len(samples))
    noise = normal(Key(seed).under("evaluate")("noise"), np.arange(len(samples)), samples.shape[1:])
    metrics: dict[str, Any] = {
        "samples": len(samples),
        "frechet_samples": frechet_distance(samples, data.held_out),
        "frechet_floor": frechet_distance(data.x, data.held_out),
        "frechet_noise": frechet_distance(noise, data.held_out),
    }
    if data.labels is not None:
        counts = class_counts(samples, data)
        metrics |= {"classes_covered": classes_covered(counts), "classes": len(counts), "class_counts": counts}
    if data.name == "mixture":
        metrics |= eps_error(trained, mixture(40_000, start=1 << 20), seed)  # points that training never saw
    return metrics
