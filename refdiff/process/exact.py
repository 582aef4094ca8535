"""Data for which everything is known: a mixture of Gaussians, its perfect denoiser and its log density at every t.

If x_0 ~ sum_k w_k N(m_k, C_k), then x_t ~ sum_k w_k N(a m_k, a^2 C_k + s^2 I), with a^2 = alpha_bar_t and s^2 = 1 - a^2,
and the noise expected at x_t is eps(x_t) = -s grad log q(x_t)  [ADM] eq. 11, [Tweedie] eq. 1.4. No network can do better.
In each component x_0 given x_t is Gaussian, with S_k = a^2 C_k + s^2 I and r_k(x_t) the share of x_t that is component k's:

    x_0 | x_t ~ sum_k r_k N(m_k + a C_k S_k^-1 (x_t - a m_k), s^2 C_k S_k^-1)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ..random import POINTS, Key, Sequence, normal, uniform
from .arrays import Time, one_a_sample, steps
from .forward import q_sample
from .posterior import posterior_mean_coefficients, posterior_variance, step_variance
from .schedules import Schedule

__all__ = ["GaussianMixture"]


@dataclass(frozen=True, eq=False)
class GaussianMixture:
    """weights (K,) positive, summing to 1; means (K, D); covariances (K, D, D) symmetric, eigenvalues >= 0.

    ValueError otherwise, and for x of another shape than (N, D). All methods take and return NumPy float64.
    """

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray
    _values: np.ndarray = field(init=False, repr=False)  # the covariances' eigenvalues (K, D) ...
    _vectors: np.ndarray = field(init=False, repr=False)  # ... and eigenvectors, columns of (K, D, D)

    def __post_init__(self) -> None:
        w, m, c = (np.asarray(a, np.float64) for a in (self.weights, self.means, self.covariances))
        if w.ndim != 1 or m.shape[:1] != w.shape or m.ndim != 2 or c.shape != (*m.shape, m.shape[1]):
            raise ValueError(
                f"expected weights (K,), means (K, D), covariances (K, D, D), got {w.shape}, {m.shape}, {c.shape}"
            )
        if not (np.all(w > 0) and abs(w.sum() - 1) < 1e-9):
            raise ValueError(f"weights: expected positive numbers that sum to 1, got {w}")
        values, vectors = np.linalg.eigh(c)
        if not np.allclose(c, c.swapaxes(1, 2)) or values.min() < -1e-9:
            raise ValueError("covariances: expected symmetric matrices without negative eigenvalues")
        for name, value in (
            ("weights", w),
            ("means", m),
            ("covariances", c),
            ("_values", values.clip(0)),
            ("_vectors", vectors),
        ):
            object.__setattr__(self, name, value)

    def sample(self, n: int, seed: int = 0) -> np.ndarray:
        """n points x_0, each a pure function of the seed and its number.   -> (n, D). ValueError for n < 1."""
        if n < 1:
            raise ValueError(f"n: expected at least one point, got {n}")
        sample_ids, D = np.arange(n), self.means.shape[1]
        k = np.searchsorted(np.cumsum(self.weights)[:-1], uniform(Sequence(seed, POINTS, 0), sample_ids))
        z = normal(Sequence(seed, POINTS, 1), sample_ids, (D,), np.float64)
        return self.means[k] + np.einsum("nde,ne->nd", self._vectors[k], np.sqrt(self._values[k]) * z)

    def log_density(self, schedule: Schedule, x: np.ndarray, t: Time) -> np.ndarray:
        """log q(x_t), t from 0.   x (N, D), t integer or (N,) -> (N,)."""
        return _log_sum(self._components(schedule, x, t)[1])

    def score(self, schedule: Schedule, x: np.ndarray, t: Time) -> np.ndarray:
        """grad log q(x_t) = -sum_k r_k S_k^-1 (x - a m_k), t from 0.   (N, D), t integer or (N,) -> (N, D)."""
        r, _, projected, variances = self._components(schedule, x, t)
        return -np.einsum("nk,nke,kde->nd", r, projected / variances, self._vectors)

    def eps(self, schedule: Schedule, x: np.ndarray, t: Time) -> np.ndarray:
        """E[eps | x_t] = -s grad log q(x_t), the perfect prediction.   x (N, D), t integer or (N,) -> (N, D)."""
        s = np.sqrt(schedule.one_minus_alpha_bar[steps(t, schedule.T)])
        return -s[..., None] * self.score(schedule, x, t)

    def x0(self, schedule: Schedule, x: np.ndarray, t: Time) -> np.ndarray:
        """E[x_0 | x_t] = sum_k r_k (m_k + a C_k S_k^-1 (x - a m_k)), also where a = 0.   (N, D), t () or (N,) -> (N, D)."""
        r, mean, _ = self._given(schedule, x, t)
        return np.einsum("nk,nkd->nd", r, mean)

    def v(self, schedule: Schedule, x: np.ndarray, t: Time) -> np.ndarray:
        """E[v | x_t] = a E[eps | x_t] - s E[x_0 | x_t].   [PD] appendix D   x (N, D), t integer or (N,) -> (N, D)."""
        t = steps(t, schedule.T)
        a, s = np.sqrt(schedule.alpha_bar[t])[..., None], np.sqrt(schedule.one_minus_alpha_bar[t])[..., None]
        return a * self.eps(schedule, x, t) - s * self.x0(schedule, x, t)

    def x0_error(self, schedule: Schedule, x: np.ndarray, t: Time) -> np.ndarray:
        """E[|x_0 - E[x_0 | x_t]|^2 | x_t] = sum_k r_k (tr s^2 C_k S_k^-1 + |mean_k - mean|^2): no prediction errs less.

        x (N, D), t integer or (N,) -> (N,).
        """
        r, mean, variance = self._given(schedule, x, t)
        away = mean - np.einsum("nk,nkd->nd", r, mean)[:, None]
        return (r * (variance + (away**2).sum(axis=-1))).sum(axis=-1)

    def log_posterior(self, schedule: Schedule, x: np.ndarray, t: Time, y: int | tuple[int, ...]) -> np.ndarray:
        """log p(y | x_t) = log sum_{k in y} r_k, what a perfect classifier says; y: the components of a class.

        x (N, D), t integer or (N,), from 0 -> (N,). ValueError for y that are no components.
        """
        own, others = self._class(y)
        logs = self._components(schedule, x, t)[1]
        return -np.logaddexp(0.0, _log_sum(logs[:, others]) - _log_sum(logs[:, own]))

    def dlog_posterior(self, schedule: Schedule, x: np.ndarray, t: Time, y: int | tuple[int, ...]) -> np.ndarray:
        """grad log p(y | x_t) = sum_k (q_k - r_k) grad log N(x_t; a m_k, S_k), q_k: the share of k among y, 0 outside.

        Of k in y the difference is q_k times the share of all others. x (N, D), t integer or (N,), from 0 -> (N, D).
        ValueError for y that are no components.
        """
        own, others = self._class(y)
        r, logs, projected, variances = self._components(schedule, x, t)
        share = -r
        share[:, own] = np.exp(logs[:, own] - _log_sum(logs[:, own])[:, None]) * r[:, others].sum(axis=1, keepdims=True)
        return -np.einsum("nk,nke,kde->nd", share, projected / variances, self._vectors)

    def only(self, y: int | tuple[int, ...]) -> GaussianMixture:
        """The data of the class of these components, p(x_0 | y). ValueError for y that are no components."""
        own, _ = self._class(y)
        weights = self.weights[own]
        return GaussianMixture(weights / weights.sum(), self.means[own], self.covariances[own])

    def bound(
        self,
        schedule: Schedule,
        variance: Callable[[Schedule, Time], np.ndarray] = step_variance,
        n: int = 2000,
        seed: int = 0,
    ) -> np.ndarray:
        """The terms L_0, ..., L_T of L_vlb for the perfect denoiser, in nats a sample.   [DDPM] eq. 5   -> (T+1,)

        The reverse steps are N(posterior mean with E[x_0 | x_t], variance(schedule, t) I), the last of them,
        p(x_0 | x_1), included, so the variance must be above 0 there too: `step_variance`, or the exponential of
        `posterior_log_variance`. The sum is at least the entropy E[-log p(x_0)], whatever the schedule and variance.

        The expectation over x_0 and each x_t is exact for one component; for more, over x_t a mean of n samples.
        """
        T, D = schedule.T, self.means.shape[1]
        t = np.arange(1, T + 1)
        chosen = np.asarray(variance(schedule, t))
        if not np.all(chosen > 0):
            raise ValueError("variance: expected values above 0 at every step; at t = 1 the posterior's is 0")
        n = n if len(self.weights) > 1 else 1  # with one component x0_error is the same at every x
        x, sample_ids = self.sample(n, seed), np.arange(n)
        z = (normal(Key(seed, i).under("mixture")("eps"), sample_ids, (D,), np.float64) for i in t.tolist())
        error = np.array([self.x0_error(schedule, q_sample(schedule, x, i, e), i).mean() for i, e in enumerate(z, 1)])
        of_x0, _ = posterior_mean_coefficients(schedule, t)
        terms = 0.5 * of_x0**2 * error / chosen
        terms[0] += 0.5 * D * np.log(2 * np.pi * chosen[0])
        ratio = posterior_variance(schedule, t[1:]) / chosen[1:]
        terms[1:] += 0.5 * D * (ratio - 1 - np.log(ratio))
        a2, s2 = schedule.alpha_bar[T], schedule.one_minus_alpha_bar[T]
        square = self.weights @ (self._values.sum(axis=1) + (self.means**2).sum(axis=1))  # E|x_0|^2
        return np.append(terms, 0.5 * (a2 * square - D * (a2 + (np.log1p(-a2) if a2 < 0.5 else np.log(s2)))))

    def _class(self, y: int | tuple[int, ...]) -> tuple[list[int], list[int]]:
        """The components of a class, and the others."""
        own = [y] if isinstance(y, int | np.integer) else list(y)
        if not own or len(set(own)) < len(own) or not set(own) <= set(range(len(self.weights))):
            raise ValueError(f"y: expected components from 0 to {len(self.weights) - 1}, each once, got {y}")
        return own, [k for k in range(len(self.weights)) if k not in own]

    def _components(
        self, schedule: Schedule, x: np.ndarray, t: Time
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """r_k and log(w_k N(x; a m_k, S_k)), (N, K); x - a m_k and the variances of S_k along the axes of C_k, (N, K, D)."""
        x = np.asarray(x, np.float64)
        if x.ndim != 2 or x.shape[1] != self.means.shape[1]:
            raise ValueError(f"x: expected points (N, {self.means.shape[1]}), got shape {x.shape}")
        t = steps(t, schedule.T, 0)
        one_a_sample(t.shape, x, "x")
        t = np.broadcast_to(t, (len(x),))
        a2, s2 = schedule.alpha_bar[t, None, None], schedule.one_minus_alpha_bar[t, None, None]
        variances = a2 * self._values + s2
        projected = np.einsum("nkd,kde->nke", x[:, None] - np.sqrt(a2) * self.means, self._vectors)
        square = (projected**2 / variances).sum(axis=-1)
        logs = np.log(self.weights) - 0.5 * (square + np.log(2 * np.pi * variances).sum(axis=-1))
        r = np.exp(logs - logs.max(axis=1, keepdims=True))
        return r / r.sum(axis=1, keepdims=True), logs, projected, variances

    def _given(self, schedule: Schedule, x: np.ndarray, t: Time) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """r_k (N, K), and the mean (N, K, D) and the sum of the variances (N, K) of x_0 given x_t and component k."""
        r, _, projected, variances = self._components(schedule, x, t)
        t = steps(t, schedule.T)[..., None, None]
        a, s2 = np.sqrt(schedule.alpha_bar[t]), schedule.one_minus_alpha_bar[t]
        gain = self._values / variances
        mean = self.means + a * np.einsum("nke,kde->nkd", gain * projected, self._vectors)
        return r, mean, (s2 * gain).sum(axis=-1)


def _log_sum(logs: np.ndarray) -> np.ndarray:
    """log sum_k exp(logs_k), of none minus infinity.   (N, K) -> (N,)"""
    if not logs.shape[1]:
        return np.full(len(logs), -np.inf)
    top = logs.max(axis=1)
    return top + np.log(np.exp(logs - top[:, None]).sum(axis=1))
