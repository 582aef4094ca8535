"""Claims about Markovian hierarchical variational autoencoders: their bound written three ways, and the diffusion bound."""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np
from hypothesis import strategies as st

from ...process import (
    Schedule,
    consistency_terms,
    denoising_terms,
    joint_ratio,
    kl_gaussian,
    path_densities,
    q_sample,
    q_step,
    q_step_moments,
)
from ..chains import Chain, Encoder, Moments, every_path, evidence_and_gap, forward_moments, quadrature_terms
from ..claim import claim
from ..measures import normal_logpdf, relative_error
from ..strategies import every_schedule, schedules, seeds

small: Any = schedules(max_T=3)
points: Any = st.floats(-2, 2)
EVERY = every_schedule()


@claim(
    r"\log\frac{p(x_{0:T})}{q(x_{1:T} \mid x_0)} = \log p(x_0 \mid x_1)"
    r" - \sum_{t=1}^{T-1} \log\frac{q(x_t \mid x_{t-1})}{p(x_t \mid x_{t+1})}"
    r" - \log\frac{q(x_T \mid x_{T-1})}{p(x_T)}",
    source="[Luo22] eq. 45", of=consistency_terms, against="the two products of densities, in 50 digits", bound=1e-13,
    T=st.integers(1, 6), seed=seeds(),
)  # fmt: skip
def the_joint_ratio_is_reconstruction_consistency_and_prior_path_by_path(T: int, seed: int) -> float:
    """For any densities, of latents of any dimension: each draw by itself, before anything is averaged."""
    rng = np.random.default_rng(seed)
    forward, reverse = 3 * rng.standard_normal((2, T, 5))
    prior = 3 * rng.standard_normal(5)
    with mpmath.workdps(50):
        expected = []
        for n in range(5):
            p, q = (mpmath.fprod(mpmath.exp(mpmath.mpf(float(v))) for v in a[:, n]) for a in (reverse, forward))
            expected.append(float(mpmath.log(p * mpmath.exp(mpmath.mpf(float(prior[n]))) / q)))
    scale = np.abs(forward).sum(0) + np.abs(reverse).sum(0) + np.abs(prior)
    ratio, terms = joint_ratio(forward, reverse, prior), consistency_terms(forward, reverse, prior)
    return max(relative_error(ratio, expected, scale), relative_error(-terms.sum(0), expected, scale))


@claim(
    r"\log\frac{p(x_{0:T})}{q(x_{1:T} \mid x_0)} = \log p(x_0 \mid x_1)"
    r" - \sum_{t=2}^{T} \log\frac{q(x_{t-1} \mid x_t, x_0)}{p(x_{t-1} \mid x_t)} - \log\frac{q(x_T \mid x_0)}{p(x_T)}",
    source="[Luo22] eq. 58", of=denoising_terms, against="the joint ratio of the same path", bound=1e-13,
    schedule=schedules(max_T=50), seed=seeds(),
)  # fmt: skip
def the_joint_ratio_is_reconstruction_denoising_and_prior_path_by_path(schedule: Schedule, seed: int) -> float:
    """With the encoder fixed to the forward process, whose steps Bayes' rule turns round; samples of three elements.

    A last digit of each x counts as many deviations of its step as it is."""
    rng = np.random.default_rng(seed)
    path = [rng.standard_normal((4, 3))]
    for t in range(1, schedule.T + 1):
        path.append(q_step(schedule, path[-1], t, rng.standard_normal((4, 3))))
    d = path_densities(schedule, Chain.random(schedule.T, rng, bend=0.4).reverse, path)
    ratio, terms = (
        joint_ratio(d.forward, d.reverse, d.prior),
        denoising_terms(d.posterior, d.reverse, d.marginal, d.prior),
    )
    digits = 1e-2 * sum(np.abs(x).sum(1) / b**0.5 for x, b in zip(path[1:], schedule.beta[1:].tolist(), strict=True))
    scale = np.abs([*d.forward, *d.reverse, *d.posterior, d.prior, d.marginal]).sum(0) + digits
    return relative_error(-terms.sum(0), ratio, scale)


# In expectation: quadrature over all paths of a model in one dimension.


def decoded(chain: Chain, path: list[np.ndarray]) -> tuple[list[np.ndarray], np.ndarray]:
    """log p(x_{t-1} | x_t) of t = 1 .. T, and log p(x_T)."""
    moments = [chain.reverse(path[t], t) for t in range(1, len(path))]
    reverse = [normal_logpdf(x, m, np.exp(v)) for x, (m, v) in zip(path, moments, strict=False)]
    return reverse, normal_logpdf(path[-1], 0.0, 1.0)


def linear_step(encoder: Encoder) -> Moments:
    """As a function of x_{t-1} and t."""
    return lambda x, t: (encoder.a[t] * x + encoder.c[t], np.full_like(x, np.log(encoder.r[t])))


@claim(
    r"\mathbb E_q\Big[\log\frac{p(x_{0:T})}{q(x_{1:T} \mid x_0)}\Big]"
    r" = \log p(x_0) - \mathrm{KL}\big(q(x_{1:T} \mid x_0) \,\|\, p(x_{1:T} \mid x_0)\big)",
    source="[Luo22] section 'Hierarchical variational autoencoders'", of=joint_ratio, bound=1e-13,
    against="the joint Gaussians of all latents", T=st.integers(1, 3), x0=points, seed=seeds(),
)  # fmt: skip
def the_mean_joint_ratio_misses_log_p_by_the_divergence_of_paths(T: int, x0: float, seed: int) -> float:
    """For any linear encoder and decoder, T = 1, 2, 3, the mean over all paths by quadrature in T variables."""
    rng = np.random.default_rng(seed)
    encoder, chain = Encoder.random(T, rng), Chain.random(T, rng)
    path, forward, weight = every_path(linear_step(encoder), T, x0)
    mean = weight @ joint_ratio(forward, *decoded(chain, path))
    evidence, gap = evidence_and_gap(encoder, chain, x0)
    return relative_error(mean, evidence - gap, scale=abs(mean) + abs(evidence) + gap)


@claim(
    r"\mathbb E_q\Big[\log\frac{p(x_{0:T})}{q(x_{1:T} \mid x_0)}\Big] \le \log p(x_0)",
    source="[Luo22] section 'Hierarchical variational autoencoders'", of=joint_ratio, bound=0.0,
    against="log p(x_0) by numerical integration", examples=12, T=st.integers(1, 3), x0=points, seed=seeds(),
)  # fmt: skip
def the_mean_joint_ratio_is_never_above_log_p(T: int, x0: float, seed: int) -> float:
    """By how much it is, if it is; both ways bent by a sine, so that there is always a gap."""
    rng = np.random.default_rng(seed)
    encoder, chain = Chain.random(T, rng, bend=0.4), Chain.random(T, rng, bend=0.4)
    path, forward, weight = every_path(encoder.reverse, T, x0)
    return max(0.0, float(weight @ joint_ratio(forward, *decoded(chain, path)) - chain.log_density(x0)))


@claim(
    r"q(x_t \mid x_{t-1}) = \mathcal N(\sqrt{\alpha_t}\, x_{t-1}, \beta_t) \implies"
    r" -\mathbb E_q\Big[\log\frac{p(x_{0:T})}{q(x_{1:T} \mid x_0)}\Big] = L_0 + L_1 + \dots + L_T",
    source="[Luo22] section 'Variational diffusion models'", of=joint_ratio, bound=1e-12,
    against="`bound_terms`, each x_t by quadrature, on every kind of schedule, T = 1 and 2 too",
    name=st.sampled_from(sorted(EVERY)), x0=points, seed=seeds(),
)  # fmt: skip
def with_a_fixed_encoder_the_hierarchical_bound_is_the_diffusion_bound(name: str, x0: float, seed: int) -> float:
    """For any Gaussian decoders, bent by a sine: of the joint ratio each level in two variables, x_{t-1} and the noise of
    the step, and of the bound each level in one, its divergence in closed form.

    A last digit of x counts as many deviations of the narrowest step as it is, in the mean of their squares."""
    schedule = EVERY[name]
    chain = Chain.random(schedule.T, np.random.default_rng(seed), bend=0.4)
    z, w = np.polynomial.hermite_e.hermegauss(20)
    first, second = (a.ravel() for a in np.meshgrid(z, z))
    weight = np.outer(w, w).ravel() / w.sum() ** 2
    forward, reverse = [], []
    for t in range(1, schedule.T + 1):
        before = q_sample(schedule, np.full_like(first, x0), t - 1, first)
        now = q_step(schedule, before, t, second)
        mean, log_variance = chain.reverse(now, t)
        forward.append(weight @ normal_logpdf(now, *q_step_moments(schedule, before, t)))
        reverse.append(weight @ normal_logpdf(before, mean, np.exp(log_variance)))
    actual = joint_ratio(forward, reverse, weight @ normal_logpdf(now, 0.0, 1.0))
    expected = quadrature_terms(schedule, chain.reverse, x0, 20)
    digits = 1e-3 * (1 + abs(x0)) * (1 / schedule.beta[1:]).sum() ** 0.5
    return relative_error(-actual, expected.sum(), scale=np.abs(forward).sum() + np.abs(reverse).sum() + digits)


@claim(
    r"\mathbb E_q\Big[\log\frac{p(x_{0:T})}{q(x_{1:T} \mid x_0)}\Big] = -\sum \mathbb E_q[\text{consistency terms}]"
    r" = -\sum \mathbb E_q[\text{denoising terms}] = -(L_0 + \dots + L_T)",
    source="[Luo22] eqs. 45 and 58", of=path_densities, against="`bound_terms`, each x_t by quadrature", bound=1e-12,
    examples=15, schedule=small, x0=points, seed=seeds(),
)  # fmt: skip
def the_three_ways_have_one_mean_and_it_is_the_diffusion_bound(schedule: Schedule, x0: float, seed: int) -> float:
    """T = 1, 2, 3: over whole paths, by quadrature in T variables; of the denoising terms each by itself is L_t."""
    T = schedule.T
    chain = Chain.random(T, np.random.default_rng(seed), bend=0.4)

    path, _, weight = every_path(forward_moments(schedule), T, x0, 24)
    d = path_densities(schedule, chain.reverse, [x[:, None] for x in path])
    consistency = consistency_terms(d.forward, d.reverse, d.prior) @ weight
    denoising = denoising_terms(d.posterior, d.reverse, d.marginal, d.prior) @ weight
    expected = quadrature_terms(schedule, chain.reverse, x0, 24)
    digits = 1e-2 * (1 + abs(x0)) * (1 / schedule.beta[1:]).sum() ** 0.5
    scale = np.abs(consistency).sum() + np.abs(denoising).sum() + digits
    ratio = weight @ joint_ratio(d.forward, d.reverse, d.prior)
    sums = max(relative_error(-v, expected.sum(), scale) for v in (ratio, -consistency.sum(), -denoising.sum()))
    return max(sums, *(relative_error(a, e, scale) for a, e in zip(denoising, expected, strict=True)))


@claim(
    r"\mathbb E_{q(x_{t-1}, x_{t+1} \mid x_0)} \mathrm{KL}(q(x_t \mid x_{t-1}) \,\|\, p(x_t \mid x_{t+1}))"
    r" = \mathbb E_q\log\frac{q(x_t \mid x_{t-1})}{p(x_t \mid x_{t+1})}"
    r" + \frac{r_t}{v_{t+1}} \mathbb E_q\Big[\frac{d}{dx_t} \mathbb E[\mu_{t+1}(x_{t+1}) \mid x_t]\Big]",
    source="[Luo22] eq. 45", of=consistency_terms, bound=1e-12,
    against="quadrature over x_1, x_2 and x_3, and Stein's lemma for what the divergence adds", x0=points, seed=seeds(),
)  # fmt: skip
def no_encoder_makes_a_consistency_term_a_divergence_averaged_over_neighbours(x0: float, seed: int) -> float:
    """Of x_2 in T = 3, q(x_t|x_{t-1}) = N(m(x_{t-1}), r) bent by a sine, p(x_t|x_{t+1}) = N(g x_{t+1} + h, v), mu its mean:
    the divergence draws x_t anew, as if x_{t+1} had not been made of it, and loses their covariance, r E[g m'(x_t)]."""
    rng = np.random.default_rng(seed)
    encoder, chain = Chain.random(3, rng, bend=0.4), Chain.random(3, rng)
    path, forward, weight = every_path(encoder.reverse, 3, x0)
    _, x1, x2, x3 = path
    term = weight @ consistency_terms(forward, *decoded(chain, path))[2]
    averaged = weight @ kl_gaussian(*encoder.reverse(x1, 2), *chain.reverse(x3, 3))[0]
    slope = chain.g[3] * (encoder.g[3] + encoder.k[3] * (weight @ np.cos(x2)))
    expected = encoder.v[2] / chain.v[3] * slope
    return relative_error(averaged - term, expected, scale=abs(expected) + abs(averaged) + abs(term))
