"""Noise at a level that is learned: gamma = log(sigma^2 / alpha^2), alpha^2 + sigma^2 = 1 [VDM].

x and eps are data; what has a gradient is the level, one number a sample. Where there is little work it is done as the
reference does it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

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
    """log p and its derivative by gamma, (n,) each.

    With g_k = v_o - v_k, o the level of x: u_k = u_o + r g_k, so an exponent less that of o is -r g_k (u_o + r g_k / 2), and
    nothing large is subtracted; and the sum of p_k u_k (x - v_k), less u_o (x - v_o), is (u_o + r (x - v_o)) G1 + r G2, G1
    and G2 the means of g and g^2 under p.
    """
    v, r = np.linspace(-1, 1, bins), np.exp(-0.5 * gamma)[:, None]
    x, eps = x.reshape(len(x), -1), eps.reshape(len(x), -1)
    own = np.clip(np.rint((x + 1) * (0.5 * (bins - 1))), 0, bins - 1).astype(np.intp)
    away = r * (x - v[own])
    u = eps + away
    g = (v[:, None] - v).astype(np.float32)[own]  # (n, D, bins)
    step = g * r.astype(np.float32)[:, :, None]
    p = step * np.float32(-0.5)
    p -= u.astype(np.float32)[:, :, None]
    p *= step
    largest = p.max(axis=-1, keepdims=True)
    p -= largest
    np.exp(p, out=p)
    total = p.sum(axis=-1, dtype=np.float64)
    p *= g
    first = p.sum(axis=-1, dtype=np.float64) / total
    p *= g
    second = p.sum(axis=-1, dtype=np.float64) / total
    slope = -0.5 * r * ((u + away) * first + r * second)
    return -(np.log(total) + largest[..., 0]).sum(axis=1), slope.sum(axis=1)


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
    _, _, f[...], f1[...], _ = _curves(t.astype(np.float64), *parameters)


def _curves(t: np.ndarray, slope: np.ndarray, rate: np.ndarray, shift: np.ndarray, weight: np.ndarray) -> Any:
    """t, 0 and 1; the sigmoids at these (N + 2, K); f and f' at t; m(1) - m(0). In float64: f is made of differences."""
    a, u, c, w = (
        np.abs(slope.astype(np.float64)),
        *(p.astype(np.float64) for p in (np.abs(rate), shift, np.abs(weight))),
    )
    t, k = np.concatenate([t, [0.0, 1.0]]), max(len(w), 1)
    s = np.multiply.outer(t, -u)
    s -= c
    with np.errstate(over="ignore"):  # then the sigmoid is 0
        np.exp(s, out=s)
    s += 1
    np.reciprocal(s, out=s)
    weighed = s * w  # each row summed by itself, so that f is 0 at 0
    m = a * t + weighed.sum(axis=1) / k
    weighed *= u
    weighed *= 1 - s
    span = m[-1] - m[-2]
    return t, s, (m[:-2] - m[-2]) / span, (a + weighed[:-2].sum(axis=1) / k) / span, span


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
    """What m at t, 0 and 1, and m' at t weigh in the gradient; then, with s1 and s2 the derivatives of the sigmoid,

    dslope = (t - f) dm + (1 - f') dm',  dweight = (s dm + s1 u dm') / K,  dshift = w (s1 dm + s2 u dm') / K and
    drate = w (s1 (t dm + dm') + s2 u t dm') / K, summed over t.
    """
    slope, rate, shift, weight, *outs = arrays
    t, s, f, f1, span = _curves(t.astype(np.float64), slope, rate, shift, weight)
    dm, dm1 = df / span, df1 / span
    of_slope = dm @ (t[:-2] - f) + dm1 @ (1 - f1)  # 0 of a straight line
    both = dm @ f + dm1 @ f1  # of m(0), less of m(1)
    dm, dm1 = np.concatenate([dm, [both - dm.sum(), -both]]), np.concatenate([dm1, [0.0, 0.0]])
    u, w, k = np.abs(rate.astype(np.float64)), np.abs(weight.astype(np.float64)), max(len(weight), 1)
    s1 = s * (1 - s)
    of_m, of_m1, of_rate = np.stack([dm, dm1, t * dm + dm1]) @ s1
    s1 *= 1 - 2 * s
    of_second, of_second_t = np.stack([dm1, t * dm1]) @ s1
    g = (
        of_slope, w * (of_rate + u * of_second_t) / k, w * (of_m + u * of_second) / k,
        (dm @ s + u * of_m1) / k,
    )  # fmt: skip
    for out, value, p in zip(outs, g, (slope, rate, None, weight), strict=True):
        out[...] = value if p is None else np.where(p < 0, -value, value)  # by |p|


@operation
def fourier_features(x: np.ndarray, exponents: tuple[int, ...]) -> tuple[np.ndarray, Any]:
    """[x, sin(2^n pi x) of each n, cos(2^n pi x) of each n] along the channels: fine detail in the open.   [VDM] appendix C

    x (N, ..., C) -> (N, ..., C (1 + 2 len(exponents))).
    """
    y = empty((*x.shape[:-1], x.shape[-1] * (1 + 2 * len(exponents))))
    call(_fourier_features, x, exponents, y)
    return y, (y, exponents)


def _fourier_features(x: np.ndarray, exponents: tuple[int, ...], y: np.ndarray) -> None:
    c, count = x.shape[-1], len(exponents)
    y[..., :c] = x
    for i, n in enumerate(exponents):
        angle = x * np.float32(2.0**n)  # no digit is lost, nor by taking it modulo 2
        angle -= 2 * np.rint(angle * np.float32(0.5))
        angle *= np.float32(np.pi)
        np.sin(angle, out=y[..., (1 + i) * c : (2 + i) * c])
        np.cos(angle, out=y[..., (1 + count + i) * c : (2 + count + i) * c])


@operation
def fourier_features_backward(dy: np.ndarray, saved: Any) -> np.ndarray:
    """dx = the part of x + sum_n 2^n pi (cos(2^n pi x) dsin_n - sin(2^n pi x) dcos_n)."""
    y, exponents = saved
    dx = empty((*y.shape[:-1], y.shape[-1] // (1 + 2 * len(exponents))))
    call(_fourier_features_backward, dy, y, exponents, dx)
    return dx


def _fourier_features_backward(dy: np.ndarray, y: np.ndarray, exponents: tuple[int, ...], dx: np.ndarray) -> None:
    c, count = dx.shape[-1], len(exponents)
    np.copyto(dx, dy[..., :c])
    for i, n in enumerate(exponents):
        sin, cos = (slice((1 + i + k) * c, (2 + i + k) * c) for k in (0, count))
        part = y[..., cos] * dy[..., sin]
        part -= y[..., sin] * dy[..., cos]
        part *= np.float32(2.0**n * np.pi)
        dx += part


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
