"""What a judge, a classifier that never guided, sees in samples of classes that were asked for."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

import numpy as np

from ..models import Network, inputs
from ..sampling import network_function

__all__ = ["judge_function", "judged_accuracy"]

Judge = Callable[[np.ndarray], np.ndarray]


def judge_function(engine: str, network: Network, dtype: str = "float32") -> Judge:
    """judge(x) -> (N, classes) logits of a classifier for samples without noise, t = 0.   x (N, ...)"""
    predict = network_function(engine, network, dtype)
    told = "t" in inputs(network.config)

    def judge(x: np.ndarray) -> np.ndarray:
        batch = {"x": x.astype(np.float32, copy=False)}
        return predict(batch | {"t": np.zeros(len(x), np.int64)} if told else batch)

    return judge


def judged_accuracy(judge: Judge, samples: np.ndarray, labels: np.ndarray, batch: int = 256) -> dict[str, float]:
    """The share of samples in which the judge sees the class that was asked for.   samples (N, ...), labels (N,)

    -> judged_accuracy, k / N; judged_accuracy_error, its standard error sqrt(p (1 - p) / (N + 3)), p = (k + 1) / (N + 2),
    the deviation of the share's posterior under a uniform prior, which is not 0 where k = N; judged_accuracy_chance, what
    it would be if the judge's answers, as frequent as they are, had nothing to do with the labels.
    """
    if not len(samples) or np.shape(labels) != (len(samples),):
        raise ValueError(f"labels: expected one a sample of at least one, got {np.shape(labels)} of {len(samples)}")
    if np.asarray(labels).dtype.kind not in "iu":
        raise ValueError(f"labels: expected integers, got {np.asarray(labels).dtype}")
    logits = np.concatenate([judge(samples[i : i + batch]) for i in range(0, len(samples), batch)])
    if not 0 <= np.min(labels) <= np.max(labels) < logits.shape[1]:
        raise ValueError(
            f"labels: expected classes that the judge knows, 0 to {logits.shape[1] - 1}, got {np.min(labels)} to "
            f"{np.max(labels)}"
        )
    seen, n = logits.argmax(axis=1), len(samples)
    hits = int((seen == labels).sum())
    p = (hits + 1) / (n + 2)
    asked, answered = (np.bincount(a, minlength=logits.shape[1]) / n for a in (labels, seen))
    return {
        "judged_accuracy": hits / n,
        "judged_accuracy_error": sqrt(p * (1 - p) / (n + 3)),
        "judged_accuracy_chance": float(asked @ answered),
    }
