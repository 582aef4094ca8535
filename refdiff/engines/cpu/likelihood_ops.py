"""Logarithms of likelihoods, divergences and what makes a bound of them differentiable: as the reference has them [VAE]."""

from __future__ import annotations

from typing import Any

import numpy as np

from .as_reference import backward, forward
from .runtime.profiler import operation

__all__ = [
    "bernoulli_log_likelihood", "bernoulli_log_likelihood_backward", "gaussian_kl", "gaussian_kl_backward",
    "gaussian_log_likelihood", "gaussian_log_likelihood_backward", "log_mean_exp", "log_mean_exp_backward",
    "reparameterise", "reparameterise_backward",
]  # fmt: skip


@operation
def gaussian_log_likelihood(x: np.ndarray, mean: np.ndarray, log_variance: np.ndarray) -> tuple[np.ndarray, Any]:
    """log N(x; mean, e^l) = -1/2 sum ((x - mean)^2 e^-l + l + log 2 pi).   [VAE] appendix C.2

    x, mean (N, ...), log_variance l (N, ...) or (N,) -> (N,).
    """
    inputs = x, mean, log_variance
    (y,) = forward("gaussian_log_likelihood", inputs, x.shape[:1])
    return y, inputs


@operation
def gaussian_log_likelihood_backward(dy: Any, saved: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """With z = (x - mean) e^(-l/2):  dx = -dy z e^(-l/2),  dmean = dy z e^(-l/2),  dl = dy (z^2 - 1) / 2.

    dy (N,) or a number.
    """
    dx, dmean, dlog = backward("gaussian_log_likelihood", (dy,), saved, *(a.shape for a in saved))
    return dx, dmean, dlog


@operation
def gaussian_kl(
    mean: np.ndarray,
    log_variance: np.ndarray,
    mean_p: np.ndarray | None = None,
    log_variance_p: np.ndarray | None = None,
) -> tuple[np.ndarray, Any]:
    """KL(N(mean, e^l) || N(mean_p, e^lp)) = 1/2 sum (expm1(d) - d + (mean - mean_p)^2 e^-lp), d = l - lp.   [VAE] appendix B

    mean, mean_p (N, ...), log variances (N, ...) or (N,); without mean_p and log_variance_p the second is N(0, 1) -> (N,).
    """
    inputs = mean, log_variance, mean_p, log_variance_p
    (y,) = forward("gaussian_kl", inputs, mean.shape[:1])
    return y, inputs


@operation
def gaussian_kl_backward(dy: Any, saved: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray | None]:
    """With z = (mean - mean_p) e^(-lp/2):  dmean = dy z e^(-lp/2) = -dmean_p,  dl = dy expm1(d) / 2,
    dlp = -dy (expm1(d) + z^2) / 2.   dy (N,) or a number. None for what was not given."""
    dmean, dlog, *of_p = backward("gaussian_kl", (dy,), saved, *(a.shape for a in saved if a is not None))
    return (dmean, dlog, *of_p) if of_p else (dmean, dlog, None, None)  # type: ignore[return-value]


@operation
def reparameterise(mean: np.ndarray, log_variance: np.ndarray, eps: np.ndarray) -> tuple[np.ndarray, Any]:
    """z = mean + e^(l/2) eps, so that eps ~ N(0, 1) makes z ~ N(mean, e^l).   [VAE] section 2.4

    mean, eps (N, ...), log_variance l (N, ...) or (N,) -> (N, ...). eps is data: it has no gradient.
    """
    inputs = mean, log_variance, eps
    (z,) = forward("reparameterise", inputs, mean.shape)
    return z, inputs


@operation
def reparameterise_backward(dz: np.ndarray, saved: Any) -> tuple[np.ndarray, np.ndarray]:
    """dmean = dz,  dl = dz e^(l/2) eps / 2."""
    dmean, dlog = backward("reparameterise", (dz,), saved, *(a.shape for a in saved[:2]))
    return dmean, dlog


@operation
def bernoulli_log_likelihood(x: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, Any]:
    """sum x log p + (1 - x) log(1 - p) = sum x l - log(1 + e^l),  p = 1 / (1 + e^-l).   [VAE] appendix C.1

    x in [0, 1], logits l, (N, ...) both -> (N,). x is data: it has no gradient.
    """
    inputs = x, logits
    (y,) = forward("bernoulli_log_likelihood", inputs, x.shape[:1])
    return y, inputs


@operation
def bernoulli_log_likelihood_backward(dy: Any, saved: Any) -> np.ndarray:
    """dl = dy (x - p).   dy (N,) or a number."""
    (dlogits,) = backward("bernoulli_log_likelihood", (dy,), saved, saved[1].shape)
    return dlogits


@operation
def log_mean_exp(x: np.ndarray) -> tuple[np.ndarray, Any]:
    """y_n = log(1/K sum_k exp(x_nk)), shifted by the largest x_nk so that nothing overflows.   [IWAE] eq. 8

    x (N, K) -> (N,).
    """
    assert x.ndim == 2, f"log_mean_exp: expected (N, K), got {x.shape}"
    (y,) = forward("log_mean_exp", (x,), x.shape[:1])
    return y, x


@operation
def log_mean_exp_backward(dy: Any, saved: Any) -> np.ndarray:
    """dx_nk = dy_n p_nk,  p = softmax(x): the normalised importance weights.   dy (N,) or a number."""
    x = saved
    (dx,) = backward("log_mean_exp", (dy,), (x,), x.shape)
    return dx
