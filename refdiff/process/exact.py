"""Data for which everything is known: a mixture of Gaussians, its perfect denoiser and its log density at every t.

If x_0 ~ sum_k w_k N(m_k, C_k), then x_t ~ sum_k w_k N(a m_k, a^2 C_k + s^2 I), with a^2 = alpha_bar_t and s^2 = 1 - a^2,
and the noise expected at x_t is eps(x_t) = -s grad log q(x_t)  [ADM] eq. 11, [Tweedie] eq. 1.4. No network can do better.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .arrays import Time, steps
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

    def __post_init__(self) -> None:
        w, m, c = (np.asarray(a, np.float64) for a in (self.weights, self.means, self.covariances))
        if w.ndim != 1 or m.shape[:1] != w.shape or m.ndim != 2 or c.shape != (*m.shape, m.shape[1]):
            raise ValueError(
                f"expected weights (K,), means (K, D), covariances (K, D, D), came {w.shape}, {m.shape}, {c.shape}"
            )
        if not (np.all(w > 0) and abs(w.sum() - 1) < 1e-9):
            raise ValueError(f"weights: expected positive numbers that sum to 1, came {w}")
        values, vectors = np.linalg.eigh(c)
        if not np.allclose(c, c.swapaxes(1, 2)) or values.min() < -1e-9:
            raise ValueError("covariances: expected symmetric matrices without negative eigenvalues")
        for name, value in (
            ("weights", w),
            ("means", m),
            ("covariances", c),
            ("_values", values),
            ("_vectors", vectors),
        ):
            object.__setattr__(self, name, value)

    def log_density(self, schedule: Schedule, x: np.ndarray, t: Time) -> np.ndarray:
        """log q(x_t), t from 0.   x (N, D), t integer or (N,) -> (N,)."""
        logs, _ = self._components(schedule, x, t)
        top = logs.max(axis=1)
        return top + np.log(np.exp(logs - top[:, None]).sum(axis=1))

    def score(self, schedule: Schedule, x: np.ndarray, t: Time) -> np.ndarray:
        """grad log q(x_t) = -sum_k r_k (a^2 C_k + s^2 I)^-1 (x - a m_k), r_k the responsibilities.   (N, D) -> (N, D)."""
        logs, pulls = self._components(schedule, x, t)
        r = np.exp(logs - logs.max(axis=1, keepdims=True))
        return -np.einsum("nk,nkd->nd", r / r.sum(axis=1, keepdims=True), pulls)

    def eps(self, schedule: Schedule, x: np.ndarray, t: Time) -> np.ndarray:
        """E[eps | x_t] = -s grad log q(x_t), the perfect prediction.   x (N, D), t integer or (N,) -> (N, D)."""
        s = np.sqrt(schedule.one_minus_alpha_bar[steps(t, schedule.T)])
        return -s[..., None] * self.score(schedule, x, t)

    def _components(self, schedule: Schedule, x: np.ndarray, t: Time) -> tuple[np.ndarray, np.ndarray]:
        """log(w_k N(x; a m_k, S_k)) and S_k^-1 (x - a m_k), S_k = a^2 C_k + s^2 I.   -> (N, K), (N, K, D)."""
        x = np.asarray(x, np.float64)
        if x.ndim != 2 or x.shape[1] != self.means.shape[1]:
            raise ValueError(f"x: expected points (N, {self.means.shape[1]}), came shape {x.shape}")
        t = np.broadcast_to(steps(t, schedule.T, 0), (len(x),))
        a2, s2 = schedule.alpha_bar[t, None, None], schedule.one_minus_alpha_bar[t, None, None]
        values = a2 * self._values + s2  # type: ignore[attr-defined]
        along = np.einsum("nkd,kde->nke", x[:, None] - np.sqrt(a2) * self.means, self._vectors)  # type: ignore[attr-defined]
        square = (along**2 / values).sum(axis=-1)
        logs = np.log(self.weights) - 0.5 * (square + np.log(2 * np.pi * values).sum(axis=-1))
        return logs, np.einsum("nke,kde->nkd", along / values, self._vectors)  # type: ignore[attr-defined]
