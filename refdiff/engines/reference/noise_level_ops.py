"""Noise at a level that is learned: gamma = -log SNR = log(sigma^2 / alpha^2), alpha^2 + sigma^2 = 1 [VDM] section 3.1.

x and eps are data here; what has a gradient is the level, one number a sample.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .activation import sigmoid, softplus
from .attention_ops import softmax
from .samples import column, sums
from .tensor_ops import Gradients

__all__ = [
    "diffuse", "diffuse_backward", "fourier_features", "fourier_features_backward", "levels_log_likelihood",
    "levels_log_likelihood_backward", "monotone", "monotone_backward", "posterior_step", "posterior_step_backward",
    "prior_kl", "prior_kl_backward",
]  # fmt: skip


def diffuse(x: np.ndarray, eps: np.ndarray, gamma: np.ndarray) -> tuple[np.ndarray, Any]:
    """z = alpha x + sigma eps,  alpha^2 = sigmoid(-gamma),  sigma^2 = sigmoid(gamma).   [VDM] eqs. 1 and 3

    x, eps (N, ...), gamma (N,) -> (N, ...).
    """
    assert x.shape == eps.shape and gamma.shape == x.shape[:1], f"diffuse: {x.shape}, {eps.shape}, {gamma.shape}"
    x, eps = x.real, eps.real
    alpha, sigma = (column(np.sqrt(sigmoid(sign * gamma)), x) for sign in (-1, 1))
    return alpha * x + sigma * eps, (x, eps, alpha, sigma)


def diffuse_backward(dz: np.ndarray, saved: Any) -> np.ndarray:
    """dgamma = 1/2 alpha sigma sum dz (alpha eps - sigma x), since dalpha/dgamma = -alpha sigma^2 / 2.   -> (N,)"""
    x, eps, alpha, sigma = saved
    return sums(0.5 * alpha * sigma * dz * (alpha * eps - sigma * x))


def prior_kl(x: np.ndarray, gamma: np.ndarray) -> tuple[np.ndarray, Any]:
    """KL(N(alpha x, sigma^2) || N(0, 1)) = 1/2 sum (alpha^2 x^2 + sigma^2 - 1 - log sigma^2).   [VDM] eq. 11

    x (N, ...), gamma (N,) -> (N,) nats. sigma^2 - 1 = -alpha^2, and -log sigma^2 = softplus(-gamma).
    """
    assert gamma.shape == x.shape[:1], f"prior_kl: {x.shape}, {gamma.shape}"
    count, square = x.size // len(x), sums(x.real**2)
    alpha2 = sigmoid(-gamma)
    return 0.5 * (alpha2 * (square - count) + count * softplus(-gamma)[0]), (square, count, alpha2, gamma)


def prior_kl_backward(dy: Any, saved: Any) -> np.ndarray:
    """dgamma = -dy/2 alpha^2 (sigma^2 (sum x^2 - count) + count).   dy (N,) or a number -> (N,)"""
    square, count, alpha2, gamma = saved
    return np.asarray(dy, gamma.dtype) * (-0.5 * alpha2 * (sigmoid(gamma) * (square - count) + count))


def levels_log_likelihood(x: np.ndarray, eps: np.ndarray, gamma: np.ndarray, bins: int) -> tuple[np.ndarray, Any]:
    """log p(x | z_0), z_0 = alpha x + sigma eps, each element one of `bins` levels v_k = 2k / (bins - 1) - 1, and

    p(v_k | z_0) in proportion to N(z_0; alpha v_k, sigma^2): a softmax of -1/2 ((x - v_k) e^(-gamma/2) + eps)^2.
    [VDM] eq. 8

    x, eps (N, ...), gamma (N,) -> (N,) nats.
    """
    assert x.shape == eps.shape and gamma.shape == x.shape[:1], f"levels_log_likelihood: {x.shape}, {gamma.shape}"
    away = (x.real.reshape(len(x), -1)[..., None] - np.linspace(-1, 1, bins)).astype(x.real.dtype)  # (N, D, bins)
    r = np.exp(-0.5 * gamma)[:, None, None]
    u = away * r + eps.real.reshape(len(x), -1)[..., None]
    own = np.abs(away).argmin(axis=-1)[..., None]
    logits = -0.5 * u**2
    logits = logits - np.take_along_axis(logits, own, -1)  # that of x itself is 0
    largest = logits.real.max(axis=-1, keepdims=True)
    log_sum = np.log(np.exp(logits - largest).sum(axis=-1)) + largest[..., 0]
    return -log_sum.sum(axis=1), (u, away, r, own, softmax(logits)[0])


def levels_log_likelihood_backward(dy: Any, saved: Any) -> np.ndarray:
    """With u_k = (x - v_k) r + eps, r = e^(-gamma/2), p the softmax and o the level of x:

    dgamma = dy/2 sum (u_o (x - v_o) - sum_k p_k u_k (x - v_k)) r.   dy (N,) or a number -> (N,)
    """
    u, away, r, own, p = saved
    each = u * away * r
    d = np.take_along_axis(each, own, -1)[..., 0] - (p * each).sum(axis=-1)
    return np.asarray(dy, d.dtype) * 0.5 * d.sum(axis=1)


def monotone(
    t: np.ndarray, slope: np.ndarray, rate: np.ndarray, shift: np.ndarray, weight: np.ndarray
) -> tuple[tuple[np.ndarray, np.ndarray], Any]:
    """f(t) = (m(t) - m(0)) / (m(1) - m(0)),  m(t) = |slope| t + 1/K sum_k |weight_k| sigmoid(|rate_k| t + shift_k), and f',

    rising from 0 at 0 to 1 at 1, whatever the parameters.   [VDM] appendix H
    t (N,) in [0, 1], data; slope (1,), rate, shift, weight (K,), K = 0 for a straight line -> f (N,), f' (N,).
    """
    t = np.concatenate([t.real, np.array([0, 1], t.real.dtype)])[:, None]
    (a, of_a), (u, of_u), (w, of_w) = (_absolute(p) for p in (slope, rate, weight))
    k = max(len(w), 1)
    s = sigmoid(t * u + shift)
    s1 = s * (1 - s)  # the first and the second derivative of the sigmoid
    s2 = s1 * (1 - 2 * s)
    m, m1 = a * t[:, 0] + (s * w).sum(axis=1) / k, a + (s1 * (w * u)).sum(axis=1) / k  # each t by itself: f is 0 at 0
    span = m[-1] - m[-2]
    f, f1 = (m[:-2] - m[-2]) / span, m1[:-2] / span
    by = {  # what m(t) and m'(t) change by with each parameter
        "slope": (of_a * t, of_a * np.ones_like(t)),
        "rate": (of_u * w * s1 * t / k, of_u * w * (s1 + s2 * u * t) / k),
        "shift": (w * s1 / k, w * u * s2 / k),
        "weight": (of_w * s / k, of_w * s1 * u / k),
    }
    return (f, f1), (by, f, f1, span)


def monotone_backward(dys: tuple[np.ndarray, np.ndarray], saved: Any) -> Gradients:
    """With S = m(1) - m(0):  df = (dm - dm(0) - f dS) / S,  df' = (dm' - f' dS) / S.   dys: of f and of f', (N,) each."""
    by, f, f1, span = saved
    df, df1 = (d[:, None] / span for d in dys)
    g = {}
    for name, (m, m1) in by.items():
        ds = m[-1] - m[-2]
        g[name] = (df * (m[:-2] - m[-2] - f[:, None] * ds) + df1 * (m1[:-2] - f1[:, None] * ds)).sum(axis=0)
    return g


def fourier_features(x: np.ndarray, exponents: tuple[int, ...]) -> tuple[np.ndarray, Any]:
    """[x, sin(2^n pi x) of each n, cos(2^n pi x) of each n] along the channels: fine detail in the open.   [VDM] appendix C

    x (N, ..., C) -> (N, ..., C (1 + 2 len(exponents))).
    """
    rates = [2.0**n * np.pi for n in exponents]
    sins, coss = [np.sin(rate * x) for rate in rates], [np.cos(rate * x) for rate in rates]
    return np.concatenate([x, *sins, *coss], axis=-1).astype(x.dtype), (sins, coss, rates)


def fourier_features_backward(dy: np.ndarray, saved: Any) -> np.ndarray:
    """dx = the part of x + sum_n 2^n pi (cos(2^n pi x) dsin_n - sin(2^n pi x) dcos_n)."""
    sins, coss, rates = saved
    dx, *parts = np.split(dy, 1 + 2 * len(rates), axis=-1)
    dx = dx.copy()
    for sin, cos, rate, dsin, dcos in zip(sins, coss, rates, parts[: len(rates)], parts[len(rates) :], strict=True):
        dx = dx + (rate * (cos * dsin - sin * dcos)).astype(dy.dtype)
    return dx


def posterior_step(log_alpha_bar: np.ndarray, logit: np.ndarray) -> tuple[tuple[np.ndarray, ...], Any]:
    """Of the step t whose beta = sigmoid(logit), after log alpha_bar_{t-1} < 0, all (N,):

    gamma_t = log((1 - alpha_bar_t) / alpha_bar_t), for `diffuse`;  c0, ct, l of q(x_{t-1} | x_t, x_0) = N(c0 x_0 + ct x_t,
    e^l) [DDPM] eqs. 6 and 7;  sqrt(1 - beta) and sqrt(beta), of the reverse step [DPM].
    -> (gamma, c0, ct, l, root_alpha, root_beta)
    """
    log_alpha, log_beta = -softplus(logit)[0], -softplus(-logit)[0]
    log_t = log_alpha_bar + log_alpha
    log_noise_s, log_noise_t = _log_one_minus_exp(log_alpha_bar), _log_one_minus_exp(log_t)
    gamma = log_noise_t - log_t
    c0 = np.exp(0.5 * log_alpha_bar + log_beta - log_noise_t)
    ct = np.exp(0.5 * log_alpha + log_noise_s - log_noise_t)
    log_variance = log_beta + log_noise_s - log_noise_t
    roots = np.exp(0.5 * log_alpha), np.exp(0.5 * log_beta)
    saved = (log_alpha_bar, log_t, logit, c0, ct, *roots)
    return (gamma, c0, ct, log_variance, *roots), saved


def posterior_step_backward(dys: tuple[np.ndarray, ...], saved: Any) -> tuple[np.ndarray, np.ndarray]:
    """By the chain rule through logarithms: with h(L) = log(1 - e^L), h'(L) = -1 / expm1(-L); dlog alpha/dlogit = -beta,
    dlog beta/dlogit = 1 - beta.   dys: of the six -> dlog_alpha_bar (N,), dlogit (N,)"""
    dgamma, dc0, dct, dl, droot_alpha, droot_beta = dys
    log_s, log_t, logit, c0, ct, root_alpha, root_beta = saved
    d0, d1 = dc0 * c0, dct * ct
    of_s, of_t = -1 / np.expm1(-log_s), -1 / np.expm1(-log_t)
    dnoise_s, dnoise_t = d1 + dl, dgamma - d0 - d1 - dl
    dlog_t = dnoise_t * of_t - dgamma
    dlog_s = dlog_t + dnoise_s * of_s + 0.5 * d0
    dlog_alpha = dlog_t + 0.5 * d1 + 0.5 * droot_alpha * root_alpha
    dlog_beta = d0 + dl + 0.5 * droot_beta * root_beta
    beta, alpha = sigmoid(logit), sigmoid(-logit)
    return dlog_s, dlog_beta * alpha - dlog_alpha * beta


def _log_one_minus_exp(x: np.ndarray) -> np.ndarray:
    """log(1 - e^x) of x < 0."""
    return np.log(-np.expm1(x))


def _absolute(p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """|p| and its derivative, 1 at 0, by the real part, as a complex step needs it."""
    sign = np.where(p.real < 0, -1, 1).astype(p.real.dtype)
    return sign * p, sign
