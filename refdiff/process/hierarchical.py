"""The bound of a Markovian hierarchical variational autoencoder of T levels, x_0 the data and x_1 .. x_T the latents,

    q(x_{1:T} | x_0) = prod_t q(x_t | x_{t-1}),    p(x_{0:T}) = p(x_T) prod_t p(x_{t-1} | x_t),

of log densities that are given, along a path drawn from q, in three ways. Path by path their sums are one number, the joint
ratio; term by term they differ, and so do their variances.

    joint ratio   log p(x_{0:T}) / q(x_{1:T} | x_0)                                              `joint_ratio`
    consistency   -log p(x_0 | x_1),  log q(x_t | x_{t-1}) / p(x_t | x_{t+1}),
                  log q(x_T | x_{T-1}) / p(x_T)                                                  `consistency_terms`
    denoising     -log p(x_0 | x_1),  log q(x_{t-1} | x_t, x_0) / p(x_{t-1} | x_t),
                  log q(x_T | x_0) / p(x_T)                                                      `denoising_terms`

A log density is an array of any one shape, as a rule one number a sample (N,), in nats; the latents may be of any dimension.
The first way is a bound on log p(x_0) from below, the terms of the others, as everywhere here, are of one on -log p(x_0).
The third needs q(x_{t-1} | x_t, x_0), which an encoder has that is fixed, linear and Gaussian: `path_densities` has them
all for the forward process of diffusion. Wrong shapes or numbers of levels: ValueError.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from .arrays import Array, floating, full_precision, like, namespace, same_shape, sample_sum, two
from .forward import q_moments, q_step_moments
from .posterior import posterior_mean, posterior_variance
from .schedules import Schedule
from .variational_bound import ReverseStep

__all__ = [
    "PathDensities", "consistency_terms", "denoising_terms", "gaussian_log_density", "joint_ratio", "path_densities",
]  # fmt: skip


class PathDensities(NamedTuple):
    """Log densities along a path x_0, ..., x_T.   `joint_ratio(d.forward, d.reverse, d.prior)`

    forward     log q(x_t | x_{t-1}),       t = 1 .. T
    reverse     log p(x_{t-1} | x_t),       t = 1 .. T
    prior       log p(x_T)
    posterior   log q(x_{t-1} | x_t, x_0),  t = 2 .. T
    marginal    log q(x_T | x_0)
    """

    forward: tuple[Array, ...]
    reverse: tuple[Array, ...]
    prior: Array
    posterior: tuple[Array, ...]
    marginal: Array


def joint_ratio(forward: Sequence[Array], reverse: Sequence[Array], prior: Array) -> Array:
    """log p(x_T) + sum_t log p(x_{t-1} | x_t) - log q(x_t | x_{t-1}), whose mean over q is at most log p(x_0).

    [Luo22] section 'Hierarchical variational autoencoders'   forward, reverse: T arrays of prior's shape -> that shape
    """
    _levels(prior, len(forward), forward=forward, reverse=reverse)
    total = prior
    for p, q in zip(reverse, forward, strict=True):
        total = total + (p - q)
    return total


def consistency_terms(forward: Sequence[Array], reverse: Sequence[Array], prior: Array) -> Array:
    """Reconstruction, T - 1 consistency terms from t = 1 on, and prior matching; their sum is minus the joint ratio.

    [Luo22] eq. 45   forward, reverse: T arrays of prior's shape (...) -> (T + 1, ...). Only as a mean over x_{t-1}, x_t and
    x_{t+1} together is a consistency term what the bound needs: it is no divergence of q(x_t | x_{t-1}) averaged over its
    neighbours, since x_{t+1} was made of x_t.
    """
    _levels(prior, len(forward), forward=forward, reverse=reverse)
    above = [*reverse[1:], prior]
    terms = [-reverse[0], *(q - p for q, p in zip(forward, above, strict=True))]
    return namespace(prior).stack(terms)


def denoising_terms(posterior: Sequence[Array], reverse: Sequence[Array], marginal: Array, prior: Array) -> Array:
    """Reconstruction, T - 1 denoising matching terms from t = 2 on, and prior matching; their means are L_0, ..., L_T.

    [Luo22] eq. 58   posterior: T - 1 arrays, reverse: T, of prior's shape (...) -> (T + 1, ...). By Bayes' rule at each step
    their sum is minus the joint ratio, and `bound_terms` has all but the first integrated over x_{t-1}.
    """
    _levels(prior, len(reverse), reverse=reverse)
    _levels(prior, len(reverse) - 1, "one fewer than reverse", posterior=posterior)
    same_shape(prior=prior, marginal=marginal)
    terms = [-reverse[0], *(q - p for q, p in zip(posterior, reverse[1:], strict=True)), marginal - prior]
    return namespace(prior).stack(terms)


def gaussian_log_density(x: Array, mean: Array, log_variance: Array) -> Array:
    """log N(x; mean, e^log_variance) = -1/2 sum ((x - mean)^2 e^-log_variance + log_variance + log 2 pi), in nats.

    three of one shape (N, ...) -> (N,)
    """
    same_shape(x=x, mean=mean, log_variance=log_variance)
    full_precision("log_variance", log_variance)
    if not x.ndim:
        raise ValueError("x: expected samples (N, ...), got a single number; give it an axis")
    exponent = (x - mean) ** 2 * namespace(x).exp(-log_variance)
    return -0.5 * sample_sum(exponent + log_variance + math.log(2 * math.pi))


def path_densities(schedule: Schedule, reverse: ReverseStep, path: Sequence[Array]) -> PathDensities:
    """The log densities of a path x_0, ..., x_T with the forward process as encoder, N(0, I) as prior, and decoders

    p(x_{t-1} | x_t) = N(mean, e^log_variance), t = 1 too, where reverse(x_t, t) -> mean, log_variance.   [Luo22] section
    'Variational diffusion models'   path: T + 1 arrays of one shape (N, ...) -> log densities (N,)
    """
    if len(path) != schedule.T + 1:
        raise ValueError(
            f"path: expected x_0, ..., x_{schedule.T}, {schedule.T + 1} arrays, got {len(path)}; draw one a step"
        )
    same_shape(**{f"x_{t}": x for t, x in enumerate(path)})
    for t, x in enumerate(path):
        floating(f"x_{t}", x)
        full_precision(f"x_{t}", x)
    x0, last = path[0], path[-1]
    steps = range(1, schedule.T + 1)
    decoded = []
    for t in steps:
        mean, log_variance = two("reverse", "(mean, log variance), as of `fixed_reverse`", reverse(path[t], t))
        same_shape(**{f"x_{t - 1}": path[t - 1], "mean": mean, "log_variance": log_variance})
        decoded.append(gaussian_log_density(path[t - 1], mean, log_variance))
    forward = [_log_normal(path[t], *q_step_moments(schedule, path[t - 1], t)) for t in steps]
    posterior = [
        _log_normal(path[t - 1], posterior_mean(schedule, path[t], x0, t), like(posterior_variance(schedule, t), x0))
        for t in steps[1:]
    ]
    marginal = _log_normal(last, *q_moments(schedule, x0, schedule.T))
    return PathDensities(tuple(forward), tuple(decoded), _log_normal(last, 0.0, 1.0), tuple(posterior), marginal)


def _log_normal(x: Array, mean: Array, variance: float) -> Array:
    """log N(x; mean, variance I).   (N, ...) -> (N,)"""
    return -0.5 * sample_sum((x - mean) ** 2 / variance + math.log(2 * math.pi * variance))


def _levels(prior: Array, count: int, what: str = "one a level", **of_levels: Sequence[Array]) -> None:
    """ValueError unless each is a sequence of so many arrays of prior's shape."""
    floating("prior", prior)
    for name, arrays in of_levels.items():
        if what == "one a level" and not len(arrays):
            raise ValueError(f"{name}: expected at least one level, T >= 1, got none; give the log densities of each")
        if len(arrays) != count:
            raise ValueError(f"{name}: expected {count} arrays, {what}, got {len(arrays)}")
        same_shape(prior=prior, **{f"{name}_{i}": array for i, array in enumerate(arrays, 1)})
