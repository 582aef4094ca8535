"""Noise at a level that is learned, gamma = log(sigma^2 / alpha^2) [VDM]: kernels/noise_level.cu.

Data, levels and parameters are float32, whatever the type of the network; dz and what goes into a network may be bfloat16.
"""

from __future__ import annotations

from typing import Any

from .per_sample import over_elements, scalar_or_array
from .runtime.context import THREADS, Array, blocks
from .samples import blocks_a_sample, launch_sums, results, values
from .structs import constant, struct
from .tensor_ops import Gradients, cast, dense

__all__ = [
    "diffuse", "diffuse_backward", "fourier_features", "fourier_features_backward", "levels_log_likelihood",
    "levels_log_likelihood_backward", "monotone", "monotone_backward", "posterior_step", "posterior_step_backward",
    "prior_kl", "prior_kl_backward",
]  # fmt: skip

SOURCE = "noise_level.cu"
DiffuseBackward = struct("noise_level.cu", "DiffuseBackward")
LevelsLogLikelihood = struct("noise_level.cu", "LevelsLogLikelihood")
Monotone = struct("noise_level.cu", "Monotone")
MonotoneBackward = struct("noise_level.cu", "MonotoneBackward")
FourierFeatures = struct("noise_level.cu", "FourierFeatures")
FourierFeaturesBackward = struct("noise_level.cu", "FourierFeaturesBackward")
PosteriorStep = struct("noise_level.cu", "PosteriorStep")
PosteriorStepBackward = struct("noise_level.cu", "PosteriorStepBackward")
MAX_EXPONENTS = constant("noise_level.cu", "MAX_EXPONENTS")


def diffuse(x: Array, eps: Array, gamma: Array) -> tuple[Array, Any]:
    """z = alpha x + sigma eps,  alpha^2 = sigmoid(-gamma),  sigma^2 = sigmoid(gamma).   [VDM] eqs. 1 and 3

    x, eps (N, ...), gamma (N,) -> (N, ...), all float32.
    """
    assert x.shape == eps.shape and gamma.shape == x.shape[:1], f"diffuse: {x.shape}, {eps.shape}, {gamma.shape}"
    x, eps, gamma = _float32(x, eps, gamma)
    z = x.context.empty(x.shape)
    over_elements(SOURCE, "diffuse", x, x, eps, gamma, z, x.size // x.shape[0], x.size)
    return z, (x, eps, gamma)


def diffuse_backward(dz: Array, saved: Any) -> Array:
    """dgamma = 1/2 alpha sigma sum dz (alpha eps - sigma x), since dalpha/dgamma = -alpha sigma^2 / 2.   -> (N,) float32"""
    x, eps, gamma = saved
    n = x.shape[0]
    (dgamma,) = launch_sums(
        x.context, SOURCE, "diffuse_backward", DiffuseBackward, n, x.size // n, ("out",), dz=values(dense(dz)), x=x,
        eps=eps, gamma=gamma,
    )  # fmt: skip
    return dgamma


def prior_kl(x: Array, gamma: Array) -> tuple[Array, Any]:
    """KL(N(alpha x, sigma^2) || N(0, 1)) = 1/2 sum (alpha^2 x^2 + sigma^2 - 1 - log sigma^2).   [VDM] eq. 11

    x (N, ...), gamma (N,) -> (N,) float32, in nats. What is saved is the derivative.
    """
    assert gamma.shape == x.shape[:1], f"prior_kl: {x.shape}, {gamma.shape}"
    x, gamma = _float32(x, gamma)
    context, n = x.context, x.shape[0]
    count = x.size // n
    parts, block = blocks_a_sample(n, count)
    partial, y, slope = context.empty((n, parts)), context.empty((n,)), context.empty((n,))
    context.launch(SOURCE, "square_sums", n * parts, block, x, partial, count, parts)
    context.launch(SOURCE, "prior_kl", blocks(n, THREADS), THREADS, partial, gamma, y, slope, n, count, parts)
    return y, slope


def prior_kl_backward(dy: Any, saved: Any) -> Array:
    """dgamma = -dy/2 alpha^2 (sigma^2 (sum x^2 - count) + count).   dy (N,) float32, or a number -> (N,)"""
    return _times_slope("prior_kl", dy, saved)


def levels_log_likelihood(x: Array, eps: Array, gamma: Array, bins: int) -> tuple[Array, Any]:
    """log p(x | z_0), z_0 = alpha x + sigma eps, each element one of `bins` levels v_k = 2k / (bins - 1) - 1, and

    p(v_k | z_0) in proportion to N(z_0; alpha v_k, sigma^2): a softmax of -1/2 ((x - v_k) e^(-gamma/2) + eps)^2,
    [VDM] eq. 8.

    x, eps (N, ...), gamma (N,) -> (N,) float32, in nats. What is saved is the derivative.
    """
    assert x.shape == eps.shape and gamma.shape == x.shape[:1], f"levels_log_likelihood: {x.shape}, {gamma.shape}"
    assert bins >= 2, f"levels_log_likelihood: expected at least 2 bins, got {bins}"
    x, eps, gamma = _float32(x, eps, gamma)
    n = x.shape[0]
    y, slope = launch_sums(
        x.context, SOURCE, "levels_log_likelihood", LevelsLogLikelihood, n, x.size // n, ("y", "slope"), x=x, eps=eps,
        gamma=gamma, bins=bins,
    )  # fmt: skip
    return y, slope


def levels_log_likelihood_backward(dy: Any, saved: Any) -> Array:
    """dgamma = dy/2 sum (u_o (x - v_o) - sum_k p_k u_k (x - v_k)) r.   dy (N,) float32, or a number -> (N,)"""
    return _times_slope("levels_log_likelihood", dy, saved)


def monotone(t: Array, slope: Array, rate: Array, shift: Array, weight: Array) -> tuple[tuple[Array, Array], Any]:
    """f(t) = (m(t) - m(0)) / (m(1) - m(0)),  m(t) = |slope| t + 1/K sum_k |weight_k| sigmoid(|rate_k| t + shift_k), and

    f'(t), rising from 0 at 0 to 1 at 1, whatever the parameters.   [VDM] appendix H
    t (N,) in [0, 1], data; slope (1,), rate, shift, weight (K,), K = 0 for a straight line -> f (N,), f' (N,); all float32.
    """
    assert t.ndim == 1 and slope.shape == (1,) and rate.shape == shift.shape == weight.shape, (
        f"monotone: {t.shape}, {slope.shape}, {rate.shape}, {shift.shape}, {weight.shape}"
    )
    types, context = tuple(a.dtype for a in (slope, rate, shift, weight)), t.context
    t, slope, rate, shift, weight = _float32(t, slope, rate, shift, weight)
    f, derivative, span = context.empty(t.shape), context.empty(t.shape), context.empty((1,))
    given = {"t": t, "slope": slope, "rate": rate, "shift": shift, "weight": weight, "f": f, "derivative": derivative,
             "span": span}  # fmt: skip
    block = min(THREADS, blocks(len(rate), 32) * 32)
    context.launch(SOURCE, "monotone", len(t), block, Monotone(K=len(rate), **given))
    return (f, derivative), (given, types)


def monotone_backward(dys: tuple[Array, Array], saved: Any) -> Gradients:
    """With S = m(1) - m(0):  df = (dm - dm(0) - f dS) / S,  df' = (dm' - f' dS) / S.   dys: of f and of f', (N,) each."""
    given, types = saved
    (df, dderivative), t, k = _float32(*dys), given["t"], len(given["rate"])
    g = {name: t.context.empty(given[name].shape) for name in ("slope", "rate", "shift", "weight")}
    t.context.launch(
        SOURCE, "monotone_backward", blocks(k + 1, THREADS // 32), THREADS,
        MonotoneBackward(
            **given, df=df, dderivative=dderivative, **{f"d{name}": d for name, d in g.items()}, samples=len(t), K=k
        ),
    )  # fmt: skip
    return {name: cast(d, dtype) for (name, d), dtype in zip(g.items(), types, strict=True)}


def fourier_features(x: Array, exponents: tuple[int, ...]) -> tuple[Array, Any]:
    """[x, sin(2^n pi x) of each n, cos(2^n pi x) of each n] along the channels: fine detail in the open.   [VDM] appendix C

    x (N, ..., C) -> (N, ..., C (1 + 2 len(exponents))) of its type: give it data in float32, whose fine detail is there.
    """
    assert len(exponents) <= MAX_EXPONENTS, f"fourier_features: expected at most {MAX_EXPONENTS}, got {exponents}"
    x, c = dense(x), x.shape[-1]
    y = x.context.empty((*x.shape[:-1], c * (1 + 2 * len(exponents))), x.dtype)
    given = FourierFeatures(x=values(x), y=results(y), exponent=exponents, count=len(exponents), C=c, n=y.size)
    x.context.launch(SOURCE, "fourier_features", blocks(y.size, THREADS), THREADS, given)
    return y, (x, exponents)


def fourier_features_backward(dy: Array, saved: Any) -> Array:
    """dx = the part of x + sum_n 2^n pi (cos(2^n pi x) dsin_n - sin(2^n pi x) dcos_n)."""
    x, exponents = saved
    dx = x.context.empty(x.shape, x.dtype)
    given = FourierFeaturesBackward(
        x=values(x), dy=values(dense(dy)), dx=results(dx), exponent=exponents, count=len(exponents), C=x.shape[-1],
        n=x.size,
    )  # fmt: skip
    x.context.launch(SOURCE, "fourier_features_backward", blocks(x.size, THREADS), THREADS, given)
    return dx


def posterior_step(log_alpha_bar: Array, logit: Array) -> tuple[tuple[Array, ...], Any]:
    """Of the step t whose beta = sigmoid(logit), after log alpha_bar_{t-1} < 0, all (N,) float32:

    gamma_t = log((1 - alpha_bar_t) / alpha_bar_t), for `diffuse`;  c0, ct, l of q(x_{t-1} | x_t, x_0) = N(c0 x_0 + ct x_t,
    e^l) [DDPM] eqs. 6 and 7;  sqrt(1 - beta) and sqrt(beta), of the reverse step [DPM].
    -> (gamma, c0, ct, l, root_alpha, root_beta)
    """
    assert log_alpha_bar.shape == logit.shape and logit.ndim == 1, f"posterior_step: {log_alpha_bar} and {logit}"
    types = log_alpha_bar.dtype, logit.dtype
    log_alpha_bar, logit = _float32(log_alpha_bar, logit)
    context, n = logit.context, len(logit)
    gamma, c0, ct, log_variance, root_alpha, root_beta = found = tuple(context.empty((n,)) for _ in range(6))
    given = PosteriorStep(
        log_alpha_bar=log_alpha_bar, logit=logit, gamma=gamma, c0=c0, ct=ct, log_variance=log_variance,
        root_alpha=root_alpha, root_beta=root_beta, n=n,
    )  # fmt: skip
    context.launch(SOURCE, "posterior_step", blocks(n, THREADS), THREADS, given)
    return found, (log_alpha_bar, logit, types)


def posterior_step_backward(dys: tuple[Array, ...], saved: Any) -> tuple[Array, Array]:
    """By the chain rule through logarithms: with h(L) = log(1 - e^L), h'(L) = -1 / expm1(-L); dlog alpha/dlogit = -beta,
    dlog beta/dlogit = 1 - beta.   dys: of the six -> dlog_alpha_bar (N,), dlogit (N,)"""
    log_alpha_bar, logit, types = saved
    dgamma, dc0, dct, dlog_variance, droot_alpha, droot_beta = _float32(*dys)
    context, n = logit.context, len(logit)
    dlog_alpha_bar, dlogit = context.empty((n,)), context.empty((n,))
    given = PosteriorStepBackward(
        log_alpha_bar=log_alpha_bar, logit=logit, dgamma=dgamma, dc0=dc0, dct=dct, dlog_variance=dlog_variance,
        droot_alpha=droot_alpha, droot_beta=droot_beta, dlog_alpha_bar=dlog_alpha_bar, dlogit=dlogit, n=n,
    )  # fmt: skip
    context.launch(SOURCE, "posterior_step_backward", blocks(n, THREADS), THREADS, given)
    return cast(dlog_alpha_bar, types[0]), cast(dlogit, types[1])


def _times_slope(name: str, dy: Any, slope: Array) -> Array:
    """dy times the derivative of one number a sample."""
    n, dgamma = len(slope), slope.context.empty(slope.shape)
    given, factor = scalar_or_array(name, n, dy)
    slope.context.launch(SOURCE, "times_slope", blocks(n, THREADS), THREADS, given, slope, dgamma, factor, n)
    return dgamma


def _float32(*arrays: Array) -> tuple[Array, ...]:
    """Each dense and in float32."""
    return tuple(cast(dense(a), "float32") for a in arrays)
