"""Noise at a level that is learned, as the reference has it: gamma = log(sigma^2 / alpha^2), alpha^2 + sigma^2 = 1 [VDM].

x and eps are data; what has a gradient is the level, one number a sample.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from .. import reference
from ..reference import Gradients
from .as_reference import backward, forward, per_sample
from .runtime.memory import empty, gradient_out
from .runtime.profiler import operation
from .runtime.shards import shards, tree_sum
from .runtime.traced_array import call

__all__ = [
    "diffuse", "diffuse_backward", "fourier_features", "fourier_features_backward", "levels_log_likelihood",
    "levels_log_likelihood_backward", "monotone", "monotone_backward", "posterior_step", "posterior_step_backward",
    "prior_kl", "prior_kl_backward",
]  # fmt: skip

_PARAMETERS = "slope", "rate", "shift", "weight"


@operation
def diffuse(x: np.ndarray, eps: np.ndarray, gamma: np.ndarray) -> tuple[np.ndarray, Any]:
    """z = alpha x + sigma eps,  alpha^2 = sigmoid(-gamma),  sigma^2 = sigmoid(gamma).   [VDM] eqs. 1 and 3

    x, eps (N, ...), gamma (N,) -> (N, ...).
    """
    inputs = x, eps, gamma
    (z,) = forward("diffuse", inputs, x.shape)
    return z, inputs


@operation
def diffuse_backward(dz: np.ndarray, saved: Any) -> np.ndarray:
    """dgamma = 1/2 alpha sigma sum dz (alpha eps - sigma x), since dalpha/dgamma = -alpha sigma^2 / 2.   -> (N,)"""
    (dgamma,) = backward("diffuse", (dz,), saved, saved[2].shape)
    return dgamma


@operation
def prior_kl(x: np.ndarray, gamma: np.ndarray) -> tuple[np.ndarray, Any]:
    """KL(N(alpha x, sigma^2) || N(0, 1)) = 1/2 sum (alpha^2 x^2 + sigma^2 - 1 - log sigma^2).   [VDM] eq. 11

    x (N, ...), gamma (N,) -> (N,) nats. sigma^2 - 1 = -alpha^2, and -log sigma^2 = softplus(-gamma).
    """
    inputs = x, gamma
    (y,) = forward("prior_kl", inputs, gamma.shape)
    return y, inputs


@operation
def prior_kl_backward(dy: Any, saved: Any) -> np.ndarray:
    """dgamma = -dy/2 alpha^2 (sigma^2 (sum x^2 - count) + count).   dy (N,) or a number -> (N,)"""
    (dgamma,) = backward("prior_kl", (dy,), saved, saved[1].shape)
    return dgamma


@operation
def levels_log_likelihood(x: np.ndarray, eps: np.ndarray, gamma: np.ndarray, bins: int) -> tuple[np.ndarray, Any]:
    """log p(x | z_0), z_0 = alpha x + sigma eps, each element one of `bins` levels v_k = 2k / (bins - 1) - 1, and

    p(v_k | z_0) in proportion to N(z_0; alpha v_k, sigma^2): a softmax of -1/2 ((x - v_k) e^(-gamma/2) + eps)^2. [VDM] eq. 8

    x, eps (N, ...), gamma (N,) -> (N,) nats. What is saved is the derivative by gamma.
    """
    assert x.shape == eps.shape and gamma.shape == x.shape[:1], f"levels_log_likelihood: {x.shape}, {gamma.shape}"
    y, slope = empty(gamma.shape), empty(gamma.shape)
    per_sample(partial(_levels, bins), (x, eps, gamma), (y, slope), size=bins)
    return y, slope


def _levels(bins: int, x: np.ndarray, eps: np.ndarray, gamma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    y, saved = reference.levels_log_likelihood(x, eps, gamma, bins)
    return y, reference.levels_log_likelihood_backward(1.0, saved)


@operation
def levels_log_likelihood_backward(dy: Any, saved: Any) -> np.ndarray:
    """With u_k = (x - v_k) r + eps, r = e^(-gamma/2), p the softmax and o the level of x:

    dgamma = dy/2 sum (u_o (x - v_o) - sum_k p_k u_k (x - v_k)) r.   dy (N,) or a number -> (N,)
    """
    slope, dgamma = saved, empty(saved.shape)
    return np.multiply(dy if isinstance(dy, np.ndarray) else np.float32(dy), slope, out=dgamma)


@operation
def monotone(
    t: np.ndarray, slope: np.ndarray, rate: np.ndarray, shift: np.ndarray, weight: np.ndarray
) -> tuple[tuple[np.ndarray, np.ndarray], Any]:
    """f(t) = (m(t) - m(0)) / (m(1) - m(0)),  m(t) = |slope| t + 1/K sum_k |weight_k| sigmoid(|rate_k| t + shift_k), and

    f'(t), rising from 0 at 0 to 1 at 1, whatever the parameters.   [VDM] appendix H
    t (N,) in [0, 1], data; slope (1,), rate, shift, weight (K,), K = 0 for a straight line -> f (N,), f' (N,).
    """
    f, f1 = empty(t.shape), empty(t.shape)
    call(_monotone, t, slope, rate, shift, weight, f, f1)
    return (f, f1), (t, slope, rate, shift, weight)


def _monotone(t: np.ndarray, *arrays: np.ndarray) -> None:
    *parameters, f, f1 = arrays
    (f[...], f1[...]), _ = reference.monotone(*(a.astype(np.float64) for a in (t, *parameters)))


@operation
def monotone_backward(dys: tuple[np.ndarray, np.ndarray], saved: Any) -> Gradients:
    """With S = m(1) - m(0):  df = (dm - dm(0) - f dS) / S,  df' = (dm' - f' dS) / S.   dys: of f and of f', (N,) each."""
    (df, df1), (t, *parameters) = dys, saved
    sums = [[gradient_out(p) for p in parameters]]
    sums += [[empty(p.shape) for p in parameters] for _ in shards(len(t))[1:]]
    for shard, outs in zip(shards(len(t)), sums, strict=True):
        call(_monotone_backward, df[shard], df1[shard], t[shard], *parameters, *outs)
    return {name: tree_sum(parts) for name, parts in zip(_PARAMETERS, zip(*sums, strict=True), strict=True)}


def _monotone_backward(df: np.ndarray, df1: np.ndarray, t: np.ndarray, *arrays: np.ndarray) -> None:
    parameters, outs = (a.astype(np.float64) for a in arrays[:4]), arrays[4:]
    _, saved = reference.monotone(t.astype(np.float64), *parameters)
    g = reference.monotone_backward((df, df1), saved)
    for name, out in zip(_PARAMETERS, outs, strict=True):
        out[...] = g[name]


@operation
def fourier_features(x: np.ndarray, exponents: tuple[int, ...]) -> tuple[np.ndarray, Any]:
    """[x, sin(2^n pi x) of each n, cos(2^n pi x) of each n] along the channels: fine detail in the open.   [VDM] appendix C

    x (N, ..., C) -> (N, ..., C (1 + 2 len(exponents))).
    """
    shape = *x.shape[:-1], x.shape[-1] * (1 + 2 * len(exponents))
    (y,) = forward("fourier_features", (x,), shape, exponents=exponents)
    return y, (x, exponents)


@operation
def fourier_features_backward(dy: np.ndarray, saved: Any) -> np.ndarray:
    """dx = the part of x + sum_n 2^n pi (cos(2^n pi x) dsin_n - sin(2^n pi x) dcos_n)."""
    x, exponents = saved
    (dx,) = backward("fourier_features", (dy,), (x,), x.shape, exponents=exponents)
    return dx


@operation
def posterior_step(log_alpha_bar: np.ndarray, logit: np.ndarray) -> tuple[tuple[np.ndarray, ...], Any]:
    """Of the step t whose beta = sigmoid(logit), after log alpha_bar_{t-1} < 0, all (N,):

    gamma_t = log((1 - alpha_bar_t) / alpha_bar_t), for `diffuse`;  c0, ct, l of q(x_{t-1} | x_t, x_0) = N(c0 x_0 + ct x_t,
    e^l) [DDPM] eqs. 6 and 7;  sqrt(1 - beta) and sqrt(beta), of the reverse step [DPM].
    -> (gamma, c0, ct, l, root_alpha, root_beta)
    """
    inputs = log_alpha_bar, logit
    return forward("posterior_step", inputs, *[logit.shape] * 6), inputs


@operation
def posterior_step_backward(dys: tuple[np.ndarray, ...], saved: Any) -> tuple[np.ndarray, np.ndarray]:
    """By the chain rule through logarithms: with h(L) = log(1 - e^L), h'(L) = -1 / expm1(-L); dlog alpha/dlogit = -beta,
    dlog beta/dlogit = 1 - beta.   dys: of the six -> dlog_alpha_bar (N,), dlogit (N,)"""
    dlog_alpha_bar, dlogit = backward("posterior_step", tuple(dys), saved, *(a.shape for a in saved))
    return dlog_alpha_bar, dlogit
