"""Logarithms of Gaussian and Bernoulli likelihoods, divergences, and what makes a bound of them differentiable [VAE].

Each is one number a sample, the sum over its elements, in nats. A log variance is an array like the mean, or one number a
sample (N,).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...process import kl_gaussian
from .attention_ops import softmax
from .samples import column, sum_like, sums

__all__ = [
    "bernoulli_log_likelihood", "bernoulli_log_likelihood_backward", "gaussian_kl", "gaussian_kl_backward",
    "gaussian_log_likelihood", "gaussian_log_likelihood_backward", "log_mean_exp", "log_mean_exp_backward",
    "reparameterise", "reparameterise_backward",
]  # fmt: skip


def gaussian_log_likelihood(x: np.ndarray, mean: np.ndarray, log_variance: np.ndarray) -> tuple[np.ndarray, Any]:
    """log N(x; mean, e^l) = -1/2 sum ((x - mean)^2 e^-l + l + log 2 pi).   [VAE] appendix C.2

    x, mean (N, ...), log_variance l (N, ...) or (N,) -> (N,).
    """
    assert x.shape == mean.shape, f"gaussian_log_likelihood: {x.shape} and {mean.shape}"
    log, z = column(log_variance, x), (x - mean) * np.exp(-0.5 * column(log_variance, x))
    y = -0.5 * (z**2 + log + math.log(2 * math.pi))
    return sums(y), (z, log_variance)


def gaussian_log_likelihood_backward(dy: Any, saved: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """With z = (x - mean) e^(-l/2):  dx = -dy z e^(-l/2),  dmean = dy z e^(-l/2),  dl = dy (z^2 - 1) / 2.

    dy (N,) or a number.
    """
    z, log_variance = saved
    dy = _gradient(dy, z)
    dmean = dy * z * np.exp(-0.5 * column(log_variance, z))
    return -dmean, dmean.copy(), sum_like(0.5 * dy * (z**2 - 1), log_variance)


def gaussian_kl(
    mean: np.ndarray,
    log_variance: np.ndarray,
    mean_p: np.ndarray | None = None,
    log_variance_p: np.ndarray | None = None,
) -> tuple[np.ndarray, Any]:
    """KL(N(mean, e^l) || N(mean_p, e^lp)) = 1/2 sum (expm1(d) - d + (mean - mean_p)^2 e^-lp), d = l - lp.   [VAE] appendix B

    mean, mean_p (N, ...), log variances (N, ...) or (N,); without mean_p and log_variance_p the second is N(0, 1) -> (N,).
    """
    assert (mean_p is None) == (log_variance_p is None), "gaussian_kl: both of the second distribution, or neither"
    away, log_p = mean, np.zeros(len(mean), mean.real.dtype)
    if mean_p is not None and log_variance_p is not None:
        assert mean.shape == mean_p.shape, f"gaussian_kl: {mean.shape} and {mean_p.shape}"
        away, log_p = mean - mean_p, log_variance_p
    d = column(log_variance, mean) - column(log_p, mean)
    z = away * np.exp(-0.5 * column(log_p, mean))
    zero = np.zeros_like(away)
    kl, _ = kl_gaussian(away, zero + column(log_variance, mean), zero, zero + column(log_p, mean))  # no digits are lost
    return sums(kl), (z, d, log_variance, log_p, mean_p is None)


def gaussian_kl_backward(dy: Any, saved: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray | None]:
    """With z = (mean - mean_p) e^(-lp/2):  dmean = dy z e^(-lp/2) = -dmean_p,  dl = dy expm1(d) / 2,
    dlp = -dy (expm1(d) + z^2) / 2.   dy (N,) or a number. None for what was not given."""
    z, d, log_variance, log_p, standard = saved
    dy = _gradient(dy, z)
    dmean = dy * z * np.exp(-0.5 * column(log_p, z))
    grown = np.expm1(d) + np.zeros(z.shape, z.real.dtype)
    dlog = sum_like(0.5 * dy * grown, log_variance)
    if standard:
        return dmean, dlog, None, None
    return dmean, dlog, -dmean, sum_like(-0.5 * dy * (grown + z**2), log_p)


def reparameterise(mean: np.ndarray, log_variance: np.ndarray, eps: np.ndarray) -> tuple[np.ndarray, Any]:
    """z = mean + e^(l/2) eps, so that eps ~ N(0, 1) makes z ~ N(mean, e^l).   [VAE] section 2.4

    mean, eps (N, ...), log_variance l (N, ...) or (N,) -> (N, ...). eps is data: it has no gradient.
    """
    assert mean.shape == eps.shape, f"reparameterise: {mean.shape} and {eps.shape}"
    spread = np.exp(0.5 * column(log_variance, mean)) * eps.real
    return mean + spread, (spread, log_variance)


def reparameterise_backward(dz: np.ndarray, saved: Any) -> tuple[np.ndarray, np.ndarray]:
    """dmean = dz,  dl = dz e^(l/2) eps / 2."""
    spread, log_variance = saved
    return dz.copy(), sum_like(0.5 * dz * spread, log_variance)


def bernoulli_log_likelihood(x: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, Any]:
    """sum x log p + (1 - x) log(1 - p) = sum x l - log(1 + e^l),  p = 1 / (1 + e^-l).   [VAE] appendix C.1

    x in [0, 1], logits l, (N, ...) both -> (N,). x is data: it has no gradient.
    """
    assert x.shape == logits.shape, f"bernoulli_log_likelihood: {x.shape} and {logits.shape}"
    x, size = x.real, np.where(logits.real > 0, logits, -logits)  # |l|, as a complex step needs it
    positive = np.where(logits.real > 0, logits, np.zeros_like(logits))
    return sums(x * logits - positive - np.log1p(np.exp(-size))), (x, logits)


def bernoulli_log_likelihood_backward(dy: Any, saved: Any) -> np.ndarray:
    """dl = dy (x - p).   dy (N,) or a number."""
    x, logits = saved
    return _gradient(dy, logits) * (x - (0.5 + 0.5 * np.tanh(0.5 * logits)))


def log_mean_exp(x: np.ndarray) -> tuple[np.ndarray, Any]:
    """y_n = log(1/K sum_k exp(x_nk)), shifted by the largest x_nk so that nothing overflows.   [IWAE] eq. 8

    x (N, K) -> (N,).
    """
    assert x.ndim == 2, f"log_mean_exp: expected (N, K), got {x.shape}"
    largest = x.real.max(axis=1)
    p, _ = softmax(x)
    return np.log(np.exp(x - largest[:, None]).mean(axis=1)) + largest, p


def log_mean_exp_backward(dy: Any, saved: Any) -> np.ndarray:
    """dx_nk = dy_n p_nk,  p = softmax(x): the normalised importance weights.   dy (N,) or a number."""
    p = saved
    return _gradient(dy, p) * p


def _gradient(dy: Any, x: np.ndarray) -> np.ndarray:
    """dy (N,) or a number, in x's dtype, to go with x."""
    return column(np.asarray(dy, x.dtype), x)
