"""Models in one dimension whose bound, and whose log p, are known by quadrature or in closed form: what claims test with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..process import (
    GaussianMixture,
    Schedule,
    bound_terms,
    fixed_reverse,
    kl_gaussian,
    predictor,
    q_between,
    q_sample,
    q_step_moments,
)
from .measures import normal_logpdf

__all__ = [
    "Chain", "Encoder", "Moments", "consistency_term", "every_path", "evidence_and_gap", "forward_moments",
    "gaussian_reverse", "hierarchical_bound", "quadrature_terms", "two_steps",
]  # fmt: skip

Moments = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]  # (x_{t-1}, t) -> mean and log variance of x_t


class Chain(NamedTuple):
    """p(x_{t-1} | x_t) = N(g_t x_t + h_t + k_t sin x_t, v_t), each (T+1,), index 0 unused; p(x_T) = N(0, 1)."""

    g: np.ndarray
    h: np.ndarray
    k: np.ndarray
    v: np.ndarray

    @classmethod
    def random(cls, T: int, rng: np.random.Generator, bend: float = 0.0) -> Chain:
        """Any coefficients; bend: the largest k_t, 0 for a linear model."""
        g, h, k = rng.uniform(0.5, 1.1, T + 1), 0.3 * rng.standard_normal(T + 1), bend * rng.uniform(-1, 1, T + 1)
        return cls(g, h, k, np.exp(rng.uniform(-3, 0, T + 1)))

    def reverse(self, x_t: np.ndarray, t: int) -> tuple[np.ndarray, np.ndarray]:
        """Mean and log variance of p(x_{t-1} | x_t)."""
        mean = self.g[t] * x_t + self.h[t] + self.k[t] * np.sin(x_t)
        return mean, np.full_like(x_t, np.log(self.v[t]))

    def log_density(self, x0: float) -> float:
        """log p(x_0), integrating x_T, ..., x_1 away by the trapezoid rule on [-12, 12]."""
        x = np.linspace(-12, 12, 801)
        p = np.exp(normal_logpdf(x, 0.0, 1.0)) * (x[1] - x[0])
        for t in range(len(self.g) - 1, 1, -1):
            mean, _ = self.reverse(x, t)
            p = np.exp(normal_logpdf(x[:, None], mean, self.v[t])) @ p * (x[1] - x[0])
        mean, _ = self.reverse(x, 1)
        return float(np.log(np.exp(normal_logpdf(np.array(x0), mean, self.v[1])) @ p))


def quadrature_terms(schedule: Schedule, reverse: Any, x0: float, nodes: int = 48) -> np.ndarray:
    """L_0, ..., L_T of one number x_0, in nats, each x_t integrated by Gauss-Hermite."""
    z, w = np.polynomial.hermite_e.hermegauss(nodes)
    return bound_terms(schedule, reverse, np.full(nodes, x0), lambda t: z, None, "nats") @ (w / w.sum())


def consistency_term(schedule: Schedule, reverse: Any, x_before: Any, x_after: Any, t: int) -> np.ndarray:
    """E[log q(x_t|x_{t-1}) - log p(x_t|x_{t+1})], x_t ~ q(x_t | x_{t-1}, x_{t+1}); for t = T, KL(q(x_T|x_{T-1}) || N(0, 1)).

    For t < T it is the divergence of q(x_t | x_{t-1}, x_{t+1}) from p(x_t|x_{t+1}) less that from q(x_t|x_{t-1}).
    """
    zero = np.zeros_like(x_before)
    mean, variance = q_step_moments(schedule, x_before, t)
    step = mean, zero + np.log(variance)
    if t == schedule.T:
        return kl_gaussian(*step, zero, zero)[0]
    alpha, beta, both = schedule.alpha, schedule.beta, schedule.between(t - 1, t + 1)[1]
    between = np.sqrt(alpha[t]) * beta[t + 1] * x_before + np.sqrt(alpha[t + 1]) * beta[t] * x_after
    middle = between / both, zero + np.log(beta[t] * beta[t + 1] / both)
    return kl_gaussian(*middle, *reverse(x_after, t + 1))[0] - kl_gaussian(*middle, *step)[0]


def two_steps(schedule: Schedule, x0: float, t: int, nodes: int = 32) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nodes x_{t-1}, x_{t+1} of q(x_{t-1}, x_{t+1} | x_0), x_t integrated away, and their weights.   three (nodes^2,)"""
    z, w = np.polynomial.hermite_e.hermegauss(nodes)
    one, other = (a.ravel() for a in np.meshgrid(z, z))
    x_before = q_sample(schedule, np.full_like(one, x0), t - 1, one)
    x_after = q_between(schedule, x_before, t - 1, min(t + 1, schedule.T), other)
    return x_before, x_after, np.outer(w, w).ravel() / w.sum() ** 2


def every_path(encoder: Moments, T: int, x0: float, nodes: int = 20) -> tuple[list[np.ndarray], list[Any], np.ndarray]:
    """x_0, ..., x_T at the nodes of Gauss-Hermite in T variables, log q of each step, and the weights.   each (nodes^T,)"""
    z, w = np.polynomial.hermite_e.hermegauss(nodes)
    eps = [a.ravel() for a in np.meshgrid(*[z] * T)]
    weight = np.prod([a.ravel() for a in np.meshgrid(*[w / w.sum()] * T)], axis=0)
    path, forward = [np.full_like(weight, x0)], []
    for t in range(1, T + 1):
        mean, log_variance = encoder(path[-1], t)
        path.append(mean + np.exp(0.5 * log_variance) * eps[t - 1])
        forward.append(normal_logpdf(path[-1], mean, np.exp(log_variance)))
    return path, forward, weight


def forward_moments(schedule: Schedule) -> Moments:
    """The forward process as an encoder, for `every_path`."""

    def moments(x: np.ndarray, t: int) -> tuple[np.ndarray, np.ndarray]:
        mean, variance = q_step_moments(schedule, x, t)
        return mean, np.full_like(x, np.log(variance))

    return moments


def gaussian_reverse(schedule: Schedule, mean: float, variance: float) -> Any:
    """The true p(x_{t-1} | x_t) of data N(mean, variance), a Gaussian, from the perfect denoiser."""
    exact = GaussianMixture(np.ones(1), np.full((1, 1), mean), np.full((1, 1, 1), variance))
    predict = predictor(schedule, lambda x, t: exact.eps(schedule, x.reshape(-1, 1), t).reshape(x.shape))
    of_mean = fixed_reverse(schedule, predict)

    def reverse(x_t: np.ndarray, t: int) -> tuple[np.ndarray, np.ndarray]:
        before = schedule.alpha_bar[t - 1] * variance + schedule.one_minus_alpha_bar[t - 1]
        now = schedule.alpha[t] * before + schedule.beta[t]
        return of_mean(x_t, t)[0], np.full_like(x_t, np.log(before * schedule.beta[t] / now))

    return reverse


class Encoder(NamedTuple):
    """q(z_t | z_{t-1}) = N(a_t z_{t-1} + c_t, r_t), z_0 the data; each (T+1,), index 0 unused."""

    a: np.ndarray
    c: np.ndarray
    r: np.ndarray

    @classmethod
    def random(cls, T: int, rng: np.random.Generator) -> Encoder:
        """Any coefficients."""
        return cls(rng.uniform(0.3, 1.1, T + 1), 0.3 * rng.standard_normal(T + 1), np.exp(rng.uniform(-2, 0, T + 1)))

    @classmethod
    def of_diffusion(cls, schedule: Schedule) -> Encoder:
        """The forward process."""
        return cls(np.sqrt(schedule.alpha), np.zeros(schedule.T + 1), schedule.beta)

    def moments(self, x0: float) -> tuple[np.ndarray, np.ndarray]:
        """Mean and covariance of z_0 = x_0, z_1, ..., z_T.   (T+1,), (T+1, T+1)"""
        n = len(self.a)
        mean, covariance = np.full(n, x0), np.zeros((n, n))
        for t in range(1, n):
            mean[t] = self.a[t] * mean[t - 1] + self.c[t]
            covariance[t, :t] = covariance[:t, t] = self.a[t] * covariance[t - 1, :t]
            covariance[t, t] = self.a[t] ** 2 * covariance[t - 1, t - 1] + self.r[t]
        return mean, covariance


def hierarchical_bound(encoder: Encoder, chain: Chain, x0: float) -> float:
    """E_q[log q(z_{1:T} | x_0) - log p(x_0, z_{1:T})], whose parts are all expectations of quadratic forms."""
    mean, s = encoder.moments(x0)
    bound = 0.5 * (mean[-1] ** 2 + s[-1, -1] + np.log(2 * np.pi))  # -E[log p(z_T)]
    for t in range(1, len(mean)):
        bound -= 0.5 * (1 + np.log(2 * np.pi * encoder.r[t]))
        square = (mean[t - 1] - chain.g[t] * mean[t] - chain.h[t]) ** 2
        square += s[t - 1, t - 1] - 2 * chain.g[t] * s[t - 1, t] + chain.g[t] ** 2 * s[t, t]
        bound += 0.5 * (square / chain.v[t] + np.log(2 * np.pi * chain.v[t]))
    return float(bound)


def evidence_and_gap(encoder: Encoder, chain: Chain, x0: float) -> tuple[float, float]:
    """log p(x_0) and KL(q(z_{1:T} | x_0) || p(z_{1:T} | x_0)), from the joint Gaussians."""
    T = len(chain.g) - 1
    # z_T = e_T, z_{t-1} = g_t z_t + h_t + sqrt(v_t) e_{t-1}: z = shift + mix e.
    mix, shift = np.zeros((T + 1, T + 1)), np.zeros(T + 1)
    mix[T, T] = 1
    for t in range(T, 0, -1):
        mix[t - 1], shift[t - 1] = chain.g[t] * mix[t], chain.g[t] * shift[t] + chain.h[t]
        mix[t - 1, t - 1] += chain.v[t] ** 0.5
    s = mix @ mix.T
    gain = s[1:, 0] / s[0, 0]
    mean, covariance = shift[1:] + gain * (x0 - shift[0]), s[1:, 1:] - np.outer(gain, s[0, 1:])
    q_mean, q_covariance = (m[1:] if m.ndim == 1 else m[1:, 1:] for m in encoder.moments(x0))
    inverse, apart = np.linalg.inv(covariance), q_mean - mean
    gap = np.trace(inverse @ q_covariance) + apart @ inverse @ apart - T
    gap += np.linalg.slogdet(covariance)[1] - np.linalg.slogdet(q_covariance)[1]
    return float(normal_logpdf(np.array(x0), shift[0], s[0, 0])), float(gap / 2)
