"""Logarithms of Gaussian and Bernoulli likelihoods, divergences, and what makes a bound of them differentiable [VAE]:
kernels/likelihood.cu.

Any array may be float32 or bfloat16 by itself; arithmetic and numbers of one a sample are float32; a gradient has the type
of what it is the gradient of. What is saved is what was given.
"""

from __future__ import annotations

from typing import Any

from .per_sample import scalar_or_array
from .runtime.context import THREADS, Array, blocks
from .samples import launch_sums, like, one_a_sample, results, values
from .structs import struct
from .tensor_ops import cast, dense

__all__ = [
    "bernoulli_log_likelihood", "bernoulli_log_likelihood_backward", "gaussian_kl", "gaussian_kl_backward",
    "gaussian_log_likelihood", "gaussian_log_likelihood_backward", "log_mean_exp", "log_mean_exp_backward",
    "reparameterise", "reparameterise_backward",
]  # fmt: skip

SOURCE = "likelihood.cu"
GaussianLogLikelihood = struct("likelihood.cu", "GaussianLogLikelihood")
GaussianLogLikelihoodBackward = struct("likelihood.cu", "GaussianLogLikelihoodBackward")
GaussianKL = struct("likelihood.cu", "GaussianKL")
GaussianKLBackward = struct("likelihood.cu", "GaussianKLBackward")
Reparameterise = struct("likelihood.cu", "Reparameterise")
ReparameteriseBackward = struct("likelihood.cu", "ReparameteriseBackward")
BernoulliLogLikelihood = struct("likelihood.cu", "BernoulliLogLikelihood")
BernoulliLogLikelihoodBackward = struct("likelihood.cu", "BernoulliLogLikelihoodBackward")
LogMeanExp = struct("likelihood.cu", "LogMeanExp")
LogMeanExpBackward = struct("likelihood.cu", "LogMeanExpBackward")


def gaussian_log_likelihood(x: Array, mean: Array, log_variance: Array) -> tuple[Array, Any]:
    """log N(x; mean, e^l) = -1/2 sum ((x - mean)^2 e^-l + l + log 2 pi).   [VAE] appendix C.2

    x, mean (N, ...), log_variance l (N, ...) or (N,) -> (N,) float32.
    """
    assert x.shape == mean.shape, f"gaussian_log_likelihood: {x.shape} and {mean.shape}"
    x, mean, log_variance = dense(x), dense(mean), dense(log_variance)
    n = x.shape[0]
    (y,) = launch_sums(
        x.context, SOURCE, "gaussian_log_likelihood", GaussianLogLikelihood, n, x.size // n, ("out",), x=values(x),
        mean=values(mean), log_variance=values(log_variance, one_a_sample(log_variance, x)),
    )  # fmt: skip
    return y, (x, mean, log_variance)


def gaussian_log_likelihood_backward(dy: Any, saved: Any) -> tuple[Array, Array, Array]:
    """With z = (x - mean) e^(-l/2):  dx = -dy z e^(-l/2),  dmean = dy z e^(-l/2),  dl = dy (z^2 - 1) / 2.

    dy (N,) float32, or a number.
    """
    x, mean, log_variance = saved
    n, shared = x.shape[0], one_a_sample(log_variance, x)
    given, factor = scalar_or_array("gaussian_log_likelihood", n, dy)
    dx, dmean = (a.context.empty(a.shape, a.dtype) for a in (x, mean))
    dlog = None if shared else x.context.empty(x.shape, log_variance.dtype)
    sums = launch_sums(
        x.context, SOURCE, "gaussian_log_likelihood_backward", GaussianLogLikelihoodBackward, n, x.size // n,
        ("shared",) if shared else (), x=values(x), mean=values(mean), log_variance=values(log_variance, shared), dy=given,
        factor=factor, dx=results(dx), dmean=results(dmean), dlog=results(dlog),
    )  # fmt: skip
    return dx, dmean, like(sums[0], log_variance) if dlog is None else dlog


def gaussian_kl(
    mean: Array, log_variance: Array, mean_p: Array | None = None, log_variance_p: Array | None = None
) -> tuple[Array, Any]:
    """KL(N(mean, e^l) || N(mean_p, e^lp)) = 1/2 sum (expm1(d) - d + (mean - mean_p)^2 e^-lp), d = l - lp.   [VAE] appendix B

    mean, mean_p (N, ...), log variances (N, ...) or (N,); without mean_p and log_variance_p the second is N(0, 1) -> (N,)
    float32.
    """
    assert (mean_p is None) == (log_variance_p is None), "gaussian_kl: both of the second distribution, or neither"
    assert mean_p is None or mean_p.shape == mean.shape, f"gaussian_kl: {mean} and {mean_p}"
    saved = tuple(None if a is None else dense(a) for a in (mean, log_variance, mean_p, log_variance_p))
    n = mean.shape[0]
    (y,) = launch_sums(
        mean.context, SOURCE, "gaussian_kl", GaussianKL, n, mean.size // n, ("out",), **_distributions(saved)
    )
    return y, saved


def gaussian_kl_backward(dy: Any, saved: Any) -> tuple[Array, Array, Array | None, Array | None]:
    """With z = (mean - mean_p) e^(-lp/2):  dmean = dy z e^(-lp/2) = -dmean_p,  dl = dy expm1(d) / 2,
    dlp = -dy (expm1(d) + z^2) / 2.   dy (N,) float32, or a number. None for what was not given."""
    mean, log, mean_p, log_p = saved
    n, (given, factor) = mean.shape[0], scalar_or_array("gaussian_kl", mean.shape[0], dy)
    dmean, dmean_p, dlog, dlog_p = _whole(mean, mean), _whole(mean_p, mean), _whole(log, mean), _whole(log_p, mean)
    alone = {name: a for name, a in (("shared", log), ("shared_p", log_p)) if one_a_sample(a, mean)}
    sums = launch_sums(
        mean.context, SOURCE, "gaussian_kl_backward", GaussianKLBackward, n, mean.size // n, tuple(alone), dy=given,
        factor=factor, dmean=results(dmean), dlog=results(dlog), dmean_p=results(dmean_p), dlog_p=results(dlog_p),
        **_distributions(saved),
    )  # fmt: skip
    summed = {name: like(d, a) for (name, a), d in zip(alone.items(), sums, strict=True)}
    dlog, dlog_p = summed.get("shared", dlog), summed.get("shared_p", dlog_p)
    assert dmean is not None and dlog is not None
    return dmean, dlog, dmean_p, dlog_p


def reparameterise(mean: Array, log_variance: Array, eps: Array) -> tuple[Array, Any]:
    """z = mean + e^(l/2) eps, so that eps ~ N(0, 1) makes z ~ N(mean, e^l).   [VAE] section 2.4

    mean, eps (N, ...), log_variance l (N, ...) or (N,) -> (N, ...) of mean's type. eps is data: it has no gradient.
    """
    assert mean.shape == eps.shape, f"reparameterise: {mean.shape} and {eps.shape}"
    mean, log_variance, eps = dense(mean), dense(log_variance), dense(eps)
    z = mean.context.empty(mean.shape, mean.dtype)
    mean.context.launch(
        SOURCE, "reparameterise", blocks(mean.size, THREADS), THREADS,
        Reparameterise(
            mean=values(mean), log_variance=values(log_variance, one_a_sample(log_variance, mean)), eps=values(eps),
            z=results(z), count=mean.size // mean.shape[0], n=mean.size,
        ),
    )  # fmt: skip
    return z, (mean.dtype, log_variance, eps)


def reparameterise_backward(dz: Array, saved: Any) -> tuple[Array, Array]:
    """dmean = dz,  dl = dz e^(l/2) eps / 2."""
    dtype, log_variance, eps = saved
    dz, n, shared = dense(dz), eps.shape[0], one_a_sample(log_variance, eps)
    dlog = None if shared else dz.context.empty(dz.shape, log_variance.dtype)
    sums = launch_sums(
        dz.context, SOURCE, "reparameterise_backward", ReparameteriseBackward, n, dz.size // n,
        ("shared",) if shared else (), dz=values(dz), log_variance=values(log_variance, shared), eps=values(eps),
        dlog=results(dlog),
    )  # fmt: skip
    return cast(dz, dtype), like(sums[0], log_variance) if dlog is None else dlog


def bernoulli_log_likelihood(x: Array, logits: Array) -> tuple[Array, Any]:
    """sum x log p + (1 - x) log(1 - p) = sum x l - log(1 + e^l),  p = 1 / (1 + e^-l).   [VAE] appendix C.1

    x in [0, 1], logits l, (N, ...) both -> (N,) float32. x is data: it has no gradient.
    """
    assert x.shape == logits.shape, f"bernoulli_log_likelihood: {x.shape} and {logits.shape}"
    x, logits, n = dense(x), dense(logits), x.shape[0]
    (y,) = launch_sums(
        x.context, SOURCE, "bernoulli_log_likelihood", BernoulliLogLikelihood, n, x.size // n, ("out",), x=values(x),
        logits=values(logits),
    )  # fmt: skip
    return y, (x, logits)


def bernoulli_log_likelihood_backward(dy: Any, saved: Any) -> Array:
    """dl = dy (x - p).   dy (N,) float32, or a number."""
    x, logits = saved
    given, factor = scalar_or_array("bernoulli_log_likelihood", x.shape[0], dy)
    dlogits = x.context.empty(x.shape, logits.dtype)
    x.context.launch(
        SOURCE, "bernoulli_log_likelihood_backward", blocks(x.size, THREADS), THREADS,
        BernoulliLogLikelihoodBackward(
            x=values(x), logits=values(logits), dy=given, factor=factor, dlogits=results(dlogits),
            count=x.size // x.shape[0], n=x.size,
        ),
    )  # fmt: skip
    return dlogits


def log_mean_exp(x: Array) -> tuple[Array, Any]:
    """y_n = log(1/K sum_k exp(x_nk)), shifted by the largest x_nk so that nothing overflows.   [IWAE] eq. 8

    x (N, K) -> (N,) float32.
    """
    assert x.ndim == 2, f"log_mean_exp: expected (N, K), got {x.shape}"
    x, (rows, K) = dense(x), x.shape
    y, kept = x.context.empty((rows,)), x.context.empty((rows, 2))
    x.context.launch(
        SOURCE, "log_mean_exp", blocks(rows, THREADS // 32), THREADS,
        LogMeanExp(x=values(x), y=y, kept=kept, rows=rows, K=K),
    )  # fmt: skip
    return y, (x, kept)


def log_mean_exp_backward(dy: Any, saved: Any) -> Array:
    """dx_nk = dy_n p_nk,  p = softmax(x): the normalised importance weights.   dy (N,) float32, or a number."""
    x, kept = saved
    given, factor = scalar_or_array("log_mean_exp", x.shape[0], dy)
    dx = x.context.empty(x.shape, x.dtype)
    x.context.launch(
        SOURCE, "log_mean_exp_backward", blocks(x.size, THREADS), THREADS,
        LogMeanExpBackward(x=values(x), dy=given, kept=kept, dx=results(dx), factor=factor, K=x.shape[1], n=x.size),
    )  # fmt: skip
    return dx


def _whole(a: Array | None, x: Array) -> Array | None:
    """Room for the gradient of each element of a; none where it is not given, or one number a sample beside x."""
    return None if a is None or one_a_sample(a, x) else a.context.empty(a.shape, a.dtype)


def _distributions(saved: tuple[Array | None, ...]) -> dict[str, Any]:
    """The two of `gaussian_kl` as fields of a struct."""
    mean, log, mean_p, log_p = saved
    assert mean is not None
    return {
        "mean": values(mean), "log_variance": values(log, one_a_sample(log, mean)), "mean_p": values(mean_p),
        "log_p": values(log_p, one_a_sample(log_p, mean)),
    }  # fmt: skip
