"""How good samples are: the Frechet distance beside its floor and its ceiling, of all and of each class, the
classes covered, the error of eps."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..data import MIXTURE_COVARIANCES, MIXTURE_MEANS, MIXTURE_WEIGHTS, Dataset, mixture
from ..process import GaussianMixture, convert, q_sample
from ..random import Key, integers, normal
from ..sampling import Trained, check_conditions, denoiser, encoder_function, network_function

__all__ = [
    "check_evaluable", "class_counts", "class_distances", "classes_covered", "eps_error", "evaluate", "frechet_distance",
]  # fmt: skip

AT_ONCE = 1 << 20  # numbers of samples, and of class means, that are worked on at once


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^{1/2}) between Gaussians fitted to two sets [Frechet] [FID] eq. 6.

    a (N, ...), b (M, ...), N and M at least 2, each sample flattened; here of pixels, not of a network's features.
    The trace of the root is the sum of the square roots of the eigenvalues of C_a^{1/2} C_b C_a^{1/2}; of sets smaller than
    the number of pixels, that of the singular values of X_a X_b^T / sqrt((N - 1) (M - 1)), X the samples less their mean.
    """
    if len(a) < 2 or len(b) < 2:
        raise ValueError(f"frechet_distance: expected at least 2 samples on each side, got {len(a)} and {len(b)}")
    _check_finite(a)
    _check_finite(b)
    a, b = (x.reshape(len(x), -1).astype(np.float64) for x in (a, b))
    if min(len(a), len(b)) < a.shape[1]:
        return _distance_of_few(a, b)
    cov_a, cov_b = np.atleast_2d(np.cov(a.T)), np.atleast_2d(np.cov(b.T))
    values, vectors = np.linalg.eigh(cov_a)
    root_a = vectors * np.sqrt(values.clip(0)) @ vectors.T
    root = np.sqrt(np.linalg.eigvalsh(root_a @ cov_b @ root_a).clip(0)).sum()
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * root)


def _distance_of_few(a: np.ndarray, b: np.ndarray) -> float:
    """The same without a matrix of D x D: the non-zero eigenvalues of C_a C_b are the squares of those singular values.

    a (N, D), b (M, D).
    """
    centred = [(x - x.mean(0)) / np.sqrt(len(x) - 1) for x in (a, b)]
    traces = sum((x * x).sum() for x in centred)
    root = np.linalg.svd(centred[0] @ centred[1].T, compute_uv=False).sum()
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + traces - 2 * root)


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


def class_distances(samples: np.ndarray, labels: np.ndarray, data: Dataset) -> dict[str, Any]:
    """The Frechet distance of each class to the held-out samples of that class, beside that of its training samples.

    samples (N, ...) and the labels (N,) that they were asked for. Of n samples a side in every comparison of a class, n the
    size of its smallest part: the distance of finite sets grows as n falls, so only those of equal n can be compared. Of a
    larger part as many groups of n are measured as it holds, at most 8, sample i in group i mod their number, and averaged.
    Below as many samples as there are pixels, covariances are singular: a Gaussian is fitted to each set in the subspace
    of n - 1 dimensions that it spans, and two sets of one distribution span two subspaces. Most of a distance is then this
    disagreement, the same for the floor; what exceeds the floor is the model's.
    -> frechet_of_class and frechet_floor_of_class, {label: distance}, of the classes that have 2 in each part; their means
    frechet_class and frechet_class_floor; frechet_class_n, the smallest n. Empty where no class has.
    """
    if data.labels is None:
        raise ValueError(f"data: expected labels, got {data.name} with none; leave the classes out")
    if np.shape(labels) != (len(samples),):
        raise ValueError(f"labels: expected ({len(samples)},), one a sample, got {np.shape(labels)}")
    own, floor, sizes = {}, {}, []
    for label in np.unique(labels).tolist():
        held = data.held_out[data.held_out_labels == label]
        parts = samples[labels == label], data.x[data.labels == label]
        n = min(map(len, (held, *parts)))
        if n < 2:
            continue
        sizes.append(n)
        own[label], floor[label] = (_mean_distance(part, held, n) for part in parts)
    if not sizes:
        return {}
    return {
        "frechet_class": float(np.mean(list(own.values()))),
        "frechet_class_floor": float(np.mean(list(floor.values()))),
        "frechet_class_n": min(sizes),
        "frechet_of_class": own,
        "frechet_floor_of_class": floor,
    }


def _mean_distance(part: np.ndarray, held: np.ndarray, n: int) -> float:
    """Over all pairs of disjoint groups of n, spread evenly over each part, whose order may mean something."""
    return float(np.mean([frechet_distance(a, b) for a in _groups(part, n) for b in _groups(held, n)]))


def _groups(x: np.ndarray, n: int) -> list[np.ndarray]:
    groups = min(8, len(x) // n)
    return [x[k::groups][:n] for k in range(groups)]


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


def evaluate(
    trained: Trained, samples: np.ndarray, data: Dataset, seed: int = 0, labels: np.ndarray | None = None
) -> dict[str, Any]:
    """Samples against the held-out split: `frechet_samples`, beside its floor (the training split in their place)
    and its ceiling (noise); `classes_covered` of `classes`, and `class_counts` by label, for labelled data, and where
    labels (N,) say what the samples were asked for, the distance of each class, see `class_distances`;
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
        metrics |= {} if labels is None else class_distances(samples, labels, data)
    if data.name == "mixture":
        metrics |= eps_error(trained, mixture(40_000, start=1 << 20), seed)  # points that training never saw
    return metrics
