"""A term of the variational bound for a variance that is learned, [IDDPM] eqs. 15 and 16, as one operation.

With d = (1 + v) half_gap the log variance is that of the posterior and d. A divergence does not change when both
distributions are scaled, so with the means' difference in units of the posterior's deviation, r = exp(-l / 2),

    KL(N(m, e^l) || N(m', e^(l + d))) = KL(N(r (m - m'), 1) || N(0, e^d)):   d enters as it is, not as a difference.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...process import (
    decoder_log_likelihood,
    decoder_log_likelihood_backward,
    kl_gaussian,
    kl_gaussian_backward,
)
from .per_sample import stop

__all__ = ["variational_term", "variational_term_backward"]


def variational_term(
    v: np.ndarray,
    mean: np.ndarray,
    x0: np.ndarray,
    posterior_mean: np.ndarray,
    log_variance: np.ndarray,
    half_gap: np.ndarray,
    first: np.ndarray,
    bins: int | None,
) -> tuple[np.ndarray, Any]:
    """L_{t-1} of each sample for the variance that v stands for, L_0 where t = 1, in bits per dimension. [DDPM] eq. 5

    v, mean (of p(x_{t-1} | x_t)), x0, posterior_mean (N, ..., C); of t, all (N,) and cast to v's real dtype:
    log_variance, log beta_tilde_t; half_gap, (log beta_t - log beta_tilde_t) / 2; first, 1 where t = 1, else 0. bins:
    of `decoder_log_likelihood`, None for the log density -> (N,).

    [IDDPM] section 3.1 holds the mean still: only v gets a gradient. ValueError for x0 off the levels of `bins`.
    """
    assert v.shape == mean.shape == x0.shape == posterior_mean.shape, (
        f"variational_term: {v.shape}, {mean.shape}, {x0.shape}, {posterior_mean.shape}"
    )
    assert log_variance.shape == half_gap.shape == first.shape == v.shape[:1], "variational_term: a number a sample"
    column = (-1, *[1] * (v.ndim - 1))
    log_variance, half_gap, first = (
        stop(a).astype(v.real.dtype).reshape(column) for a in (log_variance, half_gap, first)
    )
    mean, x0, posterior_mean = stop(mean), stop(x0), stop(posterior_mean)
    gap, zero = (1 + v) * half_gap, np.zeros(v.shape, v.dtype)
    kl, of_kl = kl_gaussian((posterior_mean - mean) * np.exp(-0.5 * log_variance), zero, zero, gap)
    log_mass, of_mass = decoder_log_likelihood(x0, mean, log_variance + gap, bins)
    scale = len(v) / (v.size * math.log(2))
    term = np.where(first != 0, -log_mass, kl)
    return term.reshape(len(v), -1).sum(axis=1) * scale, (of_kl, of_mass, half_gap, first, scale)


def variational_term_backward(dterm: Any, saved: Any) -> np.ndarray:
    """dv = half_gap times the gradient of the log variance: that of the divergence, or of minus the log mass.

    dterm (N,) or a number -> (N, ..., C).
    """
    of_kl, of_mass, half_gap, first, scale = saved
    gap = of_kl[0]
    d = np.asarray(dterm, gap.dtype).reshape(-1, *[1] * (gap.ndim - 1)) * scale + np.zeros(gap.shape, gap.dtype)
    _, _, _, of_divergence = kl_gaussian_backward(d, of_kl)
    _, of_decoder = decoder_log_likelihood_backward(-d, of_mass)
    return half_gap * np.where(first != 0, of_decoder, of_divergence)
