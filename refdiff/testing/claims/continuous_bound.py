"""Claims about the bound in continuous time: its terms at both ends, and the whole of it, [VDM]."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from ...process import (
    ContinuousSchedule,
    diffusion_loss,
    prior_loss,
    prior_matching,
    q_moments,
    q_sample_at,
    reconstruction_loss,
)
from ..claim import claim
from ..measures import gauss_hermite, normal_logpdf, relative_error
from ..strategies import continuous_schedules, seeds
from .continuous import times_and_weights

plain: Any = continuous_schedules()


@claim(
    r"\mathrm{KL}(q(z_1 \mid x) \,\|\, \mathcal N(0, I)) = \tfrac12 \textstyle\sum (\alpha_1^2 x^2 + \sigma_1^2 - 1 - \log"
    r" \sigma_1^2)",
    source="[VDM] eqs. 1 and 11", of=prior_loss, against="Gauss-Hermite quadrature, and prior_matching", bound=1e-11,
    schedule=plain, x=st.floats(-2, 2), eps=st.floats(-3, 3),
)  # fmt: skip
def the_prior_loss_is_the_last_divergence(schedule: ContinuousSchedule, x: float, eps: float) -> float:
    """Relative to the size of what is integrated and 0.01 nats; z_t itself has its mean and deviation."""
    mean, sd = float(schedule.alpha(1.0)) * x, float(schedule.sigma(1.0))
    one, discrete = np.full((1, 1), x), schedule.discretised(3)
    z = float(q_sample_at(schedule, one, 1.0, np.full((1, 1), eps))[0, 0])
    of_moments, variance = q_moments(discrete, one, 4)
    off = abs(z - (float(of_moments[0, 0]) + variance**0.5 * eps)) / (1 + abs(z))

    def log_ratio(v: np.ndarray) -> np.ndarray:
        return normal_logpdf(v, mean, sd**2) - normal_logpdf(v, 0.0, 1.0)

    actual, size = prior_loss(schedule, one), gauss_hermite(lambda v: abs(log_ratio(v)), mean, sd)
    quadrature = relative_error(actual[0], gauss_hermite(log_ratio, mean, sd), scale=size + 1e-2)
    return max(off, quadrature, relative_error(actual, prior_matching(discrete, one, "nats"), scale=1e-3 + actual))


@claim(
    r"p(x \mid z_0) = \prod_i p(x_i \mid z_{0,i}),\qquad p(v_k \mid z_0) \propto \mathcal N(z_0; \alpha_0 v_k, \sigma_0^2)",
    source="[VDM] eq. 8", of=reconstruction_loss, against="Bayes over all levels, each with the density of z_0", bound=1e-11,
    schedule=plain, bins=st.integers(2, 40), seed=seeds(),
)  # fmt: skip
def the_decoder_of_levels_is_bayes_over_them(schedule: ContinuousSchedule, bins: int, seed: int) -> float:
    """With no level preferred beforehand; in nats, beside the size of the logarithms."""
    rng = np.random.default_rng(seed)
    levels = np.linspace(-1, 1, bins)
    x, eps = levels[rng.integers(bins, size=(3, 2))], rng.standard_normal((3, 2))
    z = q_sample_at(schedule, x, 0.0, eps)
    log = normal_logpdf(z[..., None], float(schedule.alpha(0.0)) * levels, float(schedule.one_minus_alpha_bar(0.0)))
    own = normal_logpdf(z, float(schedule.alpha(0.0)) * x, float(schedule.one_minus_alpha_bar(0.0)))
    most = log.max(axis=-1)
    expected = (most + np.log(np.exp(log - most[..., None]).sum(axis=-1)) - own).sum(axis=1)
    actual = reconstruction_loss(schedule, x, eps, bins)
    return float(np.max(np.abs(actual - expected) / (1 + np.abs(own).sum(axis=1) + 1 / schedule.sigma(0.0))))


@claim(
    r"-\mathrm{VLB} = \log K + \mathrm{KL}(q(z_1) \,\|\, p(z_1))",
    source="[VDM] eqs. 8, 11 and 17", of=diffusion_loss, against="the entropy, all expectations by quadrature", bound=1e-8,
    examples=5, schedule=plain.filter(lambda s: s.gamma(1.0) - s.gamma(0.0) < 15), bins=st.integers(2, 4),
)  # fmt: skip
def of_the_perfect_denoiser_the_bound_is_the_entropy(schedule: ContinuousSchedule, bins: int) -> float:
    """Of K levels, as likely each: reconstruction, diffusion and prior loss together, whatever the ends are; what is above
    the entropy is the divergence of z_1 from the normal distribution. In nats."""
    levels = np.linspace(-1, 1, bins)
    eps, step = np.linspace(-9, 9, 1201, retstep=True)
    density = step * np.exp(normal_logpdf(eps, 0.0, 1.0))

    def over_eps(f: Any) -> Any:
        """E f(x, eps) of each level with each eps.   f (n, 1), (n, 1) -> (n,)"""
        x, e = (a.reshape(-1, 1) for a in np.broadcast_arrays(levels[:, None], eps))
        return float((np.asarray(f(x, e)).reshape(bins, -1) @ density).mean())

    def squared_error(t: float) -> float:
        a, s = float(schedule.alpha(t)), float(schedule.sigma(t))

        def f(x: np.ndarray, e: np.ndarray) -> np.ndarray:
            z = a * x + s * e
            log = normal_logpdf(z, a * levels, s**2)
            w = np.exp(log - log.max(axis=1, keepdims=True))
            e_hat = (z - a * (w @ levels / w.sum(axis=1))[:, None]) / s
            return diffusion_loss(schedule, t, e, e_hat)

        return over_eps(f)

    t, w = times_and_weights()
    diffusion = float(w @ [squared_error(u) for u in t.tolist()])
    reconstruction = over_eps(lambda x, e: reconstruction_loss(schedule, x, e, bins))
    prior = float(prior_loss(schedule, levels[:, None]).mean())
    a, s = float(schedule.alpha(1.0)), float(schedule.sigma(1.0))

    def marginal_ratio(x: np.ndarray, e: np.ndarray) -> np.ndarray:
        z = a * x + s * e
        log = normal_logpdf(z, a * levels, s**2)
        most = log.max(axis=1)
        return most + np.log(np.exp(log - most[:, None]).mean(axis=1)) - normal_logpdf(z, 0.0, 1.0)[:, 0]

    return abs(diffusion + reconstruction + prior - np.log(bins) - over_eps(marginal_ratio))
