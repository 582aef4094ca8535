"""What systems with T steps from noise to data share: the bound by Monte Carlo over t, and what it stands beside."""

from __future__ import annotations

from collections.abc import Callable
from math import log, prod
from typing import Any

import numpy as np

from ..errors import setting
from ..models import ClassifierConfig, inputs
from ..process import gaussian_log_density
from ..progress import pieces
from ..random import Key, integers
from .system import Asked, check_trains

__all__ = ["among_few", "check_denoiser", "estimated", "independent_bits", "normal_bits", "samples_of"]

MEASURED = 100_000  # samples that measure a bound, about, over all t


def check_denoiser(networks: dict[str, Any], objective: Any, trains: tuple[str, ...], outputs: int) -> None:
    """ValueError unless these networks are trained, and the denoiser reads x and t alone and says `outputs` numbers for each
    element of x."""
    check_trains(objective, trains)
    denoiser = networks["denoiser"]
    reads = inputs(denoiser)
    if set(reads) != {"x", "t"}:
        raise ValueError(
            f"networks.denoiser: expected a network that reads x and t alone, got {type(denoiser).__name__}, which reads "
            f"{', '.join(reads)}; give {setting('networks.denoiser.classes', 0)}, or take mlp or unet"
        )
    if isinstance(denoiser, ClassifierConfig):
        raise ValueError(
            "networks.denoiser.kind: expected a network that says an array of the shape of x, got 'classifier', which says "
            "logits; take mlp or unet"
        )
    if (got := getattr(denoiser, "outputs", 1)) != outputs:
        raise ValueError(
            f"networks.denoiser.outputs: expected {outputs} for each element of a sample, got {got}; give "
            f"{setting('networks.denoiser.outputs', outputs)}"
        )


def samples_of(networks: dict[str, Asked]) -> tuple[int, ...]:
    """The shape of one sample, as the denoiser reads it."""
    return inputs(networks["denoiser"].config)["x"].shape


def estimated(
    T: int, x: np.ndarray, term: Callable[..., np.ndarray], prior: float, key: Key, progress: bool
) -> dict[str, Any]:
    """A bound by Monte Carlo: of `MEASURED` pairs of a t and one of x (N, ...), or so, each t equally often and at least 16
    times, term(numbers of pairs, x0, t) -> L_{t-1} in nats of a sample; prior: the mean of L_T.

    -> bound_bits, of a sample, its standard error, both per dimension; L_0, the sum of L_1 .. L_{T-1}, L_T; terms and errors
    """
    each, dims, found = max(16, MEASURED // T), prod(x.shape[1:]), []
    step = np.repeat(np.arange(1, T + 1), each)
    for pair in pieces(len(step), 1000, "likelihood", progress):
        found.append(term(pair, x[integers(key("choice"), pair, 0, len(x) - 1)], step[pair]))
    bits, last = np.concatenate(found).reshape(T, each) / log(2), prior / log(2)
    means, errors = bits.mean(axis=1), bits.std(axis=1, ddof=1) / each**0.5
    bound, error = float(means.sum()) + last, float(np.linalg.norm(errors))
    return {
        "bound_bits": bound, "bound_bits_error": error, "bits_per_dim": bound / dims, "bits_per_dim_error": error / dims,
        "reconstruction_bits": float(means[0]), "diffusion_bits": float(means[1:].sum()), "prior_bits": last,
        "terms": [*means.tolist(), last], "term_errors": [*errors.tolist(), 0.0],
    }  # fmt: skip


def independent_bits(learned: np.ndarray, bits: np.ndarray) -> float:
    """-log2 p of bits (N, ...), 0 or 1, in the mean, were each independent with the rate of ones it has in the data learned
    from, (M, ...) of -1 and 1; those by Laplace's rule, (ones + 1) / (M + 2)."""
    rate = ((learned > 0).sum(axis=0) + 1) / (len(learned) + 2)
    return float(-np.where(bits == 1, np.log2(rate), np.log2(1 - rate)).reshape(len(bits), -1).sum(axis=1).mean())


def normal_bits(x: np.ndarray) -> float:
    """-log2 N(x; 0, 1) of samples (N, ...), in the mean."""
    zero = np.zeros_like(x)
    return float(-gaussian_log_density(x, zero, zero).mean() / log(2))


def among_few(learned: np.ndarray, x: np.ndarray) -> dict[str, float]:
    """Where the data learned from are few different samples: their entropy in bits, and the share of x that is one of them;
    else nothing.   (M, ...), (N, ...)"""
    known, counts = np.unique(learned.reshape(len(learned), -1), axis=0, return_counts=True)
    if 10 * len(known) > len(learned):
        return {}
    p, kinds = counts / counts.sum(), {row.tobytes() for row in known}
    share = np.mean([row.tobytes() in kinds for row in x.reshape(len(x), -1).astype(known.dtype)])
    return {"entropy_bits": float((p * np.log2(1 / p)).sum()), "samples_among_data": float(share)}
