"""Bounds of log p(x) by a q(z|x): as a step of training needs them, in operations of an engine and with their gradients; and
as they are measured, from draws of log p(x, z) / q(z|x) in NumPy, with standard errors over the draws."""

from __future__ import annotations

from math import log
from types import ModuleType
from typing import Any

import numpy as np

__all__ = ["bound_numbers", "divergence_bound", "importance_weighted_bound", "log_mean_weights"]


def divergence_bound(
    engine: ModuleType, likelihood: Any, mean: Any, log_variance: Any, beta: float, share: float
) -> tuple[dict[str, Any], Any, tuple[Any, ...], Any, Any]:
    """-log p(x|z) + beta KL(q(z|x) || N(0, 1)), q = N(mean, e^l), z drawn from it.   [VAE] eq. 3, [BetaVAE] section 2

    likelihood (N,) = log p(x|z).   -> terms (N,) by name, and share times the gradients of the loss: of the likelihood, of z
    apart from it (none, or several to be added), of the mean, and of the log variance
    """
    divergence, of_divergence = engine.gaussian_kl(mean, log_variance)
    reconstruction, _ = engine.scale(likelihood, -1.0)
    loss, _ = engine.add(reconstruction, engine.scale(divergence, beta)[0])
    dmean, dlog_variance, _, _ = engine.gaussian_kl_backward(share * beta, of_divergence)
    terms = {"loss": loss, "reconstruction": reconstruction, "divergence": divergence}
    return terms, -share, (), dmean, dlog_variance


def importance_weighted_bound(
    engine: ModuleType, likelihood: Any, z: Any, mean: Any, log_variance: Any, k: int, share: float
) -> tuple[dict[str, Any], Any, tuple[Any, ...], Any, Any]:
    """-log 1/k sum_i w_i,  w_i = p(x|z_i) p(z_i) / q(z_i|x).   [IWAE] eq. 8

    likelihood (N k,), z, mean, log_variance (N k, ...), the k of a sample together.   -> as of `divergence_bound`
    """
    zero, zeros = engine.scale(likelihood, 0.0)[0], engine.scale(z, 0.0)[0]
    prior, of_prior = engine.gaussian_log_likelihood(z, zeros, zero)
    posterior, of_posterior = engine.gaussian_log_likelihood(z, mean, log_variance)
    log_w, _ = engine.add(likelihood, engine.add(prior, engine.scale(posterior, -1.0)[0])[0])
    log_w, of_rows = engine.reshape(log_w, (log_w.shape[0] // k, k))
    value, of_value = engine.log_mean_exp(log_w)

    dlog_w = engine.reshape_backward(engine.log_mean_exp_backward(-share, of_value), of_rows)
    dz_prior, _, _ = engine.gaussian_log_likelihood_backward(dlog_w, of_prior)
    dposterior, _ = engine.scale(dlog_w, -1.0)
    dz, dmean, dlog_variance = engine.gaussian_log_likelihood_backward(dposterior, of_posterior)
    return {"loss": engine.scale(value, -1.0)[0]}, dlog_w, (dz_prior, dz), dmean, dlog_variance


# ---- what is measured


def log_mean_weights(log_w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """log 1/k sum_i w_i of each sample, the importance-weighted bound [IWAE] eq. 8, and its variance, by the first term of
    the logarithm's series: var(w) / (k mean(w)^2).   (N, k) -> (N,), (N,)"""
    largest = log_w.max(axis=1)
    w = np.exp(log_w - largest[:, None])
    mean = w.mean(axis=1)
    return np.log(mean) + largest, w.var(axis=1) / (w.shape[1] * mean**2)


def bound_numbers(
    dims: int, log_w: np.ndarray, bounds: dict[str, np.ndarray], terms: dict[str, np.ndarray]
) -> dict[str, Any]:
    """In bits a dimension: bounds of -log p(x) from above with their errors, by name; of bits_per_dim, in nats of a sample
    too, the terms; and the importance-weighted bound of all draws, the tightest. Errors are standard errors over the draws:
    what the samples themselves differ by is not in them.

    log_w, bounds, terms (N, draws)"""
    bits, (tight, spread) = 1 / (dims * log(2)), log_mean_weights(log_w)
    found = {}
    for name, each in bounds.items():
        found[name] = bits * each.mean()
        found[f"{name}_error"] = bits * (each.var(axis=1).mean() / each.size) ** 0.5
    found |= {f"{name}_bits": bits * each.mean() for name, each in terms.items()}
    found["importance_weighted_bits"] = -bits * tight.mean()
    found["importance_weighted_bits_error"] = bits * (spread.mean() / len(log_w)) ** 0.5
    found["bound_nats"] = bounds["bits_per_dim"].mean()
    numbers: dict[str, Any] = {name: float(value) for name, value in found.items()}
    return numbers | {"draws": log_w.shape[1], "samples": len(log_w)}
