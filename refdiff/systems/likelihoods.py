"""The likelihoods p(x|z) of what a decoder says: Bernoulli, of logits, and Gaussian, of a mean with one variance for all, in
operations of an engine for a step of training, and in NumPy and float64 for what is measured.   [VAE] appendix C"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from .. import models
from ..errors import one_of, setting
from ..models import Batch, Tree, inputs
from ..objectives import Objective
from ..process import gaussian_log_density
from ..random import Key
from .compositions import constant, zeros

__all__ = [
    "LIKELIHOODS", "OfLikelihood", "check", "draw", "log_likelihood", "log_likelihood_backward", "mean",
    "measured_log_likelihood", "noise",
]  # fmt: skip

LIKELIHOODS = ("bernoulli", "gaussian")


class OfLikelihood(Objective):
    """One with a field `likelihood`, which not all data can have."""

    likelihood: str

    def check_samples(self, x: np.ndarray) -> None:
        """ValueError for values whose (x + 1) / 2 a Bernoulli likelihood is not of."""
        if self.likelihood == "bernoulli" and (wrong := int(np.count_nonzero(~(np.abs(x) <= 1)))):
            raise ValueError(
                f"objective.likelihood: expected gaussian for values outside [-1, 1], {wrong} of {x.size}, got bernoulli; "
                f"give {setting('objective.likelihood', 'gaussian')} and a table [networks.noise], or scale the data"
            )


def check(networks: dict[str, Any], likelihood: str, shape: tuple[int, ...]) -> None:
    """ValueError unless samples of this shape can have the likelihood, and its noise is one number.

    networks: {name: configuration}"""
    one_of("objective.likelihood", likelihood, LIKELIHOODS)
    if likelihood == "bernoulli" and len(shape) != 3:
        raise ValueError(
            f"objective.likelihood: expected gaussian for points {shape}, of which (x + 1) / 2 may lie outside [0, 1], got "
            f"bernoulli; give {setting('objective.likelihood', 'gaussian')} and a table [networks.noise]"
        )
    noise = networks.get("noise")
    size = getattr(noise, "rows", 1), getattr(noise, "outputs", None)
    if likelihood == "gaussian" and (list(inputs(noise)) != ["index"] or size != (1, (1,))):
        raise ValueError(
            f"networks.noise: expected a table of one row and one number, the log variance, got {noise}; give "
            f"{setting('networks.noise.kind', 'table')} with neither rows nor width"
        )


def noise(likelihood: str) -> tuple[str, ...]:
    """The networks that a likelihood has beside the decoder."""
    return ("noise",) if likelihood == "gaussian" else ()


def draw(engine: ModuleType, likelihood: str, x: Any, key: Key) -> Batch:
    """The entries that it reads: `target`, x or, of a Bernoulli likelihood, (x + 1) / 2; and the row of the one variance."""
    if likelihood == "gaussian":
        return {"target": x, "index": zeros(engine, x.shape[0], key)}
    half = constant(engine, 0.5, x, key)
    return {"target": engine.add(engine.scale(x, 0.5)[0], half)[0]}


def log_likelihood(
    engine: ModuleType, networks: dict[str, Any], likelihood: str, batch: Batch, y: Any, k: int = 1
) -> tuple[Any, Any]:
    """log p(x|z) of k z for each x.   y (N k, ...), what the decoder says -> (N k,) nats, saved"""
    x, _ = engine.repeat(batch["target"], k)
    if likelihood == "bernoulli":
        return engine.bernoulli_log_likelihood(x, y)
    row, of_noise = models.forward(engine, networks["noise"], batch)
    log_variance, of_row = engine.reshape(row, (row.shape[0],))
    log_variance, of_repeat = engine.repeat(log_variance, k)
    value, saved = engine.gaussian_log_likelihood(x, y, log_variance)
    return value, (saved, of_repeat, of_row, of_noise)


def log_likelihood_backward(
    engine: ModuleType, networks: dict[str, Any], likelihood: str, d: Any, saved: Any
) -> tuple[Any, dict[str, Tree]]:
    """-> dy, and the gradient of the noise, if there is one.   d (N k,) or a number"""
    if likelihood == "bernoulli":
        return engine.bernoulli_log_likelihood_backward(d, saved), {}
    of_value, of_repeat, of_row, of_noise = saved
    _, dy, dlog_variance = engine.gaussian_log_likelihood_backward(d, of_value)
    drow = engine.reshape_backward(engine.repeat_backward(dlog_variance, of_repeat), of_row)
    _, g = models.backward(engine, networks["noise"], drow, of_noise)
    return dy, {"noise": g}


# ---- what is measured


def mean(likelihood: str, y: np.ndarray) -> np.ndarray:
    """The mean of p(x|z), as data have it: 2 sigmoid(y) - 1 of logits y, or y itself."""
    return np.tanh(0.5 * y) if likelihood == "bernoulli" else y


def measured_log_likelihood(networks: dict[str, Any], likelihood: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """log p(x|z).   x (N, ...), y of its shape, what the decoder says -> (N,) nats.   networks: {name: Asked}"""
    x = x.astype(np.float64)
    if likelihood == "bernoulli":
        return (0.5 * (x + 1) * y - np.logaddexp(0, y)).reshape(len(x), -1).sum(axis=1)
    log_variance = networks["noise"]({"index": np.zeros(1, np.int64)}).astype(np.float64).item()
    log_p: np.ndarray = gaussian_log_density(x, y, np.full(x.shape, log_variance))
    return log_p
