"""Claims about the variational bound on -log p(x_0): its parts, its decompositions, variational autoencoders."""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np
from hypothesis import strategies as st

from ...process import (
    Schedule,
    bound_terms,
    decoder_log_likelihood,
    kl_gaussian,
    l_vlb_term,
    linear,
    posterior_mean,
    posterior_variance,
    prior_matching,
    q_moments,
    q_sample,
    q_step,
    q_step_moments,
)
from ..chains import (
    Chain,
    Encoder,
    consistency_term,
    evidence_and_gap,
    gaussian_reverse,
    hierarchical_bound,
    quadrature_terms,
    two_steps,
)
from ..claim import claim
from ..measures import exact_alpha_bar, gauss_hermite, normal_logpdf, relative_error, standard_errors
from ..strategies import schedules, seeds

plain: Any = schedules(respaced=False)
small: Any = schedules(max_T=4)
longer: Any = schedules(max_T=40).filter(lambda s: s.T > 1)
points: Any = st.floats(-2, 2)


# The parts: two Gaussians, the prior, the decoder.


@claim(
    r"\mathrm{KL}(\mathcal N(m, v) \,\|\, \mathcal N(m', v'))"
    r" = \tfrac12\Big(\log\frac{v'}{v} + \frac{v + (m - m')^2}{v'} - 1\Big)",
    source="[VAE] appendix B", of=kl_gaussian, against="Gauss-Hermite quadrature of the log ratio of the densities",
    bound=1e-14, seed=seeds(),
)  # fmt: skip
def the_divergence_of_two_gaussians_is_its_integral(seed: int) -> float:
    """E[log N(x; m, v) - log N(x; m', v')] for x ~ N(m, v), relative to the size of what is integrated."""
    m, v, other_m, other_v = np.random.default_rng(seed).standard_normal((4, 1))
    kl, _ = kl_gaussian(m, v, other_m, other_v)

    def log_ratio(x: np.ndarray) -> np.ndarray:
        return normal_logpdf(x, m, np.exp(v)) - normal_logpdf(x, other_m, np.exp(other_v))

    size = gauss_hermite(lambda x: abs(log_ratio(x)), m[0], np.exp(v[0] / 2))
    return relative_error(kl[0], gauss_hermite(log_ratio, m[0], np.exp(v[0] / 2)), scale=size)


@claim(
    r"\mathrm{KL}(\mathcal N(m, e^{\ell}) \,\|\, \mathcal N(m', e^{\ell'}))"
    r" = \tfrac12\big(e^{d} - 1 - d + (m - m')^2 e^{-\ell'}\big),\quad d = \ell - \ell'",
    source="[VAE] appendix B", of=kl_gaussian, against="50-digit arithmetic, the two as close as 1e-9", bound=1e-14,
    apart=st.floats(-9, 1), seed=seeds(),
)  # fmt: skip
def the_divergence_is_exact_when_the_two_all_but_agree(apart: float, seed: int) -> float:
    """Means and log variances within about 10^apart of each other."""
    rng = np.random.default_rng(seed)
    m, lv = rng.standard_normal((2, 10))
    other_m, other_lv = np.array([m, lv]) + 10**apart * rng.standard_normal((2, 10))
    kl, _ = kl_gaussian(m, lv, other_m, other_lv)
    with mpmath.workdps(50):
        a, b, c, d = ([mpmath.mpf(float(e)) for e in x] for x in (m, lv, other_m, other_lv))
        expected = [
            float((mpmath.expm1(j - n) - (j - n) + (i - k) ** 2 * mpmath.exp(-n)) / 2)
            for i, j, k, n in zip(a, b, c, d, strict=True)
        ]
    return max(relative_error(actual, w) for actual, w in zip(kl, expected, strict=True))


@claim(
    r"L_T = \mathrm{KL}(q(x_T \mid x_0) \,\|\, \mathcal N(0, I))"
    r" = \tfrac12\big(\bar\alpha_T x_0^2 - \bar\alpha_T - \log(1 - \bar\alpha_T)\big)",
    source="[DDPM] eq. 5", of=prior_matching, against="50-digit arithmetic", bound=1e-14, schedule=plain, seed=seeds(),
)  # fmt: skip
def the_prior_term_is_its_closed_form(schedule: Schedule, seed: int) -> float:
    """In nats of each sample of six elements, down to samples of 1e-8, where only alpha_bar_T^2 / 4 is left."""
    x0 = np.random.default_rng(seed).uniform(-1, 1, (9, 6)) * 10.0 ** -np.arange(9)[:, None]
    with mpmath.workdps(50):
        abar = exact_alpha_bar(schedule.beta, 0, schedule.T)
        rest = -(abar + mpmath.log(1 - abar))
        expected = [float(sum(abar * mpmath.mpf(float(x)) ** 2 + rest for x in row) / 2) for row in x0]
    return max(relative_error(c, w) for c, w in zip(prior_matching(schedule, x0, "nats"), expected, strict=True))


@claim(
    r"L_T = 9.70 \cdot 10^{-6}\ \text{bits per dimension for } \mathbb E[x_0^2] = \tfrac13,\ T = 1000,"
    r"\ \beta = 10^{-4} \dots 0.02",
    source="[DDPM] section 4", of=prior_matching, against="the known figure, to its digits", bound=5e-4, examples=1,
)  # fmt: skip
def the_prior_term_of_the_papers_schedule_is_all_but_nothing() -> float:
    """x_0 uniform on [-1, 1]: how little x_T remembers of it."""
    x0 = np.full((1, 3), 3**-0.5)
    return relative_error(prior_matching(linear(1000), x0), [9.70e-6])


@claim(
    r"\sum_{x_0} p(x_0 \mid x_1) = 1",
    source="[DDPM] eq. 13", of=decoder_log_likelihood, against="the sum over all bins", bound=1e-14,
    bins=st.integers(2, 300), mean=st.floats(-3, 3), log_variance=st.floats(-20, 10),
)  # fmt: skip
def the_decoders_bins_share_out_all_probability(bins: int, mean: float, log_variance: float) -> float:
    """Whatever the number of levels; the outermost bins are open."""
    x0 = np.linspace(-1, 1, bins)
    log_mass, _ = decoder_log_likelihood(x0, np.full(bins, mean), np.full(bins, log_variance), bins)
    return relative_error(np.exp(log_mass).sum(), 1)


@claim(
    r"p(x_0 \mid x_1) = \int_{\delta_-(x_0)}^{\delta_+(x_0)} \mathcal N(x; \mu, \sigma^2)\, dx",
    source="[DDPM] eq. 13", of=decoder_log_likelihood, against="the complementary error function, in 50 digits",
    bound=1e-14, bins=st.sampled_from([2, 17, 256]), log_ratio=st.floats(-6, 6), seed=seeds(),
)  # fmt: skip
def the_decoders_log_mass_is_exact_far_out_in_the_tails(bins: int, log_ratio: float, seed: int) -> float:
    """Deviations from e^-6 to e^6 half bins, means from the middle of the bin to hundreds of deviations away from it:
    also where the mass is below 1e-10000, and where a bin is so short that its ends have the same tail."""
    rng = np.random.default_rng(seed)
    level = np.concatenate([rng.integers(0, bins, 8), [0, 0, bins - 1, bins - 1]])
    log_sigma = log_ratio - np.log(bins - 1)
    off = rng.standard_normal(12) * 10 ** rng.uniform(-1, 2, 12)
    mean = 2 * level / (bins - 1) - 1 + np.exp(log_sigma) * off
    log_variance = np.full(12, 2 * log_sigma)
    actual, _ = decoder_log_likelihood(2 * level / (bins - 1) - 1, mean, log_variance, bins)
    expected = []
    with mpmath.workdps(50):
        sigma = mpmath.exp(mpmath.mpf(float(log_variance[0])) / 2)

        def above(z: Any) -> Any:
            return mpmath.erfc(z / mpmath.sqrt(2)) / 2

        for k, m in zip(level.tolist(), mean.tolist(), strict=True):
            low, high = ((mpmath.mpf(2 * k + side) / (bins - 1) - 1 - mpmath.mpf(m)) / sigma for side in (-1, 1))
            low, high = low if k else -mpmath.inf, high if k < bins - 1 else mpmath.inf
            mass = above(low) - above(high) if low + high > 0 else above(-high) - above(-low)
            expected.append(float(mpmath.log(mass)))
    # The edges are rounded, which moves the log mass by that times distance over variance.
    slope = (1 + np.abs(mean)) * (1 + np.abs(off)) * np.exp(-log_sigma)
    return max(relative_error(c, w, scale=abs(w) + a) for c, w, a in zip(actual, expected, slope, strict=True))


# The bound and its decompositions, for a model in one dimension.


@claim(
    r"-\log p(x_0) \le L_{\mathrm{vlb}} = L_0 + L_1 + \dots + L_T",
    source="[DDPM] eq. 5", of=bound_terms, against="log p(x_0) by numerical integration of a nonlinear model", bound=1e-12,
    examples=15, schedule=small, x0=points, seed=seeds(),
)  # fmt: skip
def the_bound_is_never_below_minus_log_p(schedule: Schedule, x0: float, seed: int) -> float:
    """By how much it is below, if it is: for means bent by a sine there is always a gap."""
    chain = Chain.random(schedule.T, np.random.default_rng(seed), bend=0.4)
    terms = quadrature_terms(schedule, chain.reverse, x0)
    return max(0.0, -chain.log_density(x0) - terms.sum()) / np.abs(terms).sum()


@claim(
    r"\mathbb E_q\Big[\sum_t L_{t-1}\Big] \text{ with denoising terms } q(x_{t-1} \mid x_t, x_0)"
    r" = \text{ with consistency terms } \mathbb E_{q(x_{t-1}, x_t, x_{t+1} \mid x_0)}"
    r"\log\frac{q(x_t \mid x_{t-1})}{p(x_t \mid x_{t+1})}",
    source="[Luo22] eqs. 45 and 58", of=l_vlb_term, against="each other, by quadrature in one and two variables",
    bound=1e-13, schedule=small, x0=points, seed=seeds(),
)  # fmt: skip
def both_decompositions_of_the_bound_have_one_value(schedule: Schedule, x0: float, seed: int) -> float:
    """Reconstruction, prior and denoising matching; or reconstruction, E[KL(q(x_T|x_{T-1}) || p)] and consistency."""
    chain = Chain.random(schedule.T, np.random.default_rng(seed), bend=0.4)
    one = quadrature_terms(schedule, chain.reverse, x0)
    other = [one[0]]
    for t in range(1, schedule.T + 1):
        x_before, x_after, weight = two_steps(schedule, x0, t)
        other.append(weight @ consistency_term(schedule, chain.reverse, x_before, x_after, t))
    return relative_error(one.sum(), np.sum(other), scale=np.abs(other).sum() + np.abs(one).sum())


@claim(
    r"\mathbb E_{q(x_{t-1}, x_{t+1} \mid x_0)} \mathrm{KL}(q(x_t \mid x_{t-1}) \,\|\, p(x_t \mid x_{t+1}))"
    r" = \text{the consistency term} + \frac{g_{t+1} \sqrt{\alpha_{t+1}}\, \beta_t}{v_{t+1}}",
    source="[Luo22] eq. 45", of=kl_gaussian, bound=1e-13,
    against="the right term by quadrature, for p(x_t|x_{t+1}) = N(g x_{t+1} + h, v)",
    case=longer.flatmap(lambda s: st.tuples(st.just(s), st.integers(1, s.T - 1))), x0=points, seed=seeds(),
)  # fmt: skip
def a_consistency_term_is_no_divergence_averaged_over_its_neighbours(
    case: tuple[Schedule, int], x0: float, seed: int
) -> float:
    """A divergence draws x_t given x_{t-1} alone, as if x_{t+1} were not made of it. What that adds is E[x_t x_{t+1}]'s
    missing part over v: for the true reverse process and small beta about one nat, at each step, in each dimension."""
    schedule, t = case
    chain = Chain.random(schedule.T, np.random.default_rng(seed))
    x_before, x_after, weight = two_steps(schedule, x0, t)
    mean, variance = q_step_moments(schedule, x_before, t)
    apart = weight @ kl_gaussian(mean, np.full_like(mean, np.log(variance)), *chain.reverse(x_after, t + 1))[0]
    right = weight @ consistency_term(schedule, chain.reverse, x_before, x_after, t)
    expected = chain.g[t + 1] * np.sqrt(schedule.alpha[t + 1]) * schedule.beta[t] / chain.v[t + 1]
    digits = 1e-3 * (1 + abs(x0)) / np.sqrt(min(schedule.beta[t : t + 2]))  # a last digit of x, in deviations
    return relative_error(apart - right, expected, scale=expected + abs(apart) + abs(right) + digits)


@claim(
    r"\sum_t \mathrm{Var}\big[L_{t-1}(x_t)\big]"
    r" < \sum_t \mathrm{Var}\Big[\log\frac{q(x_t \mid x_{t-1})}{p(x_t \mid x_{t+1})}\Big]",
    source="[Luo22] section 'Variational diffusion models'", of=l_vlb_term, bound=1.0, examples=10,
    against="sample variances over 4,000 paths", schedule=longer, seed=seeds(),
)  # fmt: skip
def the_consistency_form_has_the_larger_variance(schedule: Schedule, seed: int) -> float:
    """For the true reverse process of data N(0.3, 0.5), each term drawn by itself, as in training: the ratio, below 1.

    A denoising term needs one x_t, the other three neighbours. (Summed along one path their noises cancel, and the
    order may turn round.)"""
    rng = np.random.default_rng(seed)
    x = [0.3 + 0.5**0.5 * rng.standard_normal(4000)]
    for t in range(1, schedule.T + 1):
        x.append(q_step(schedule, x[-1], t, rng.standard_normal(4000)))
    reverse = gaussian_reverse(schedule, 0.3, 0.5)
    denoising, consistency = [], []
    for t in range(1, schedule.T + 1):
        mean, log_variance = reverse(x[t], t)
        denoising.append(l_vlb_term(schedule, x[0], x[t], t, mean, log_variance, None, "nats")[0])
        mean, log_variance = reverse(x[t + 1], t + 1) if t < schedule.T else (0.0, np.zeros(1))
        forward = normal_logpdf(x[t], *q_step_moments(schedule, x[t - 1], t))
        consistency.append(forward - normal_logpdf(x[t], mean, np.exp(log_variance)))
    one, other = [*denoising, prior_matching(schedule, x[0], "nats")], [denoising[0], *consistency]
    if not standard_errors(np.sum(one, axis=0) - np.sum(other, axis=0), 0.0) <= 5:
        return np.inf  # they must estimate one thing
    return float(np.var(one, axis=1).sum() / np.var(other, axis=1).sum())


@claim(
    r"\sum_{t=1}^T \log q(x_t \mid x_{t-1})"
    r" = \log q(x_T \mid x_0) + \sum_{t=2}^T \log q(x_{t-1} \mid x_t, x_0)",
    source="[DDPM] appendix A", of=posterior_mean, against="the forward steps themselves, on a random path", bound=1e-13,
    schedule=schedules(max_T=50), seed=seeds(),
)  # fmt: skip
def the_marginals_telescope_out_of_the_path_density(schedule: Schedule, seed: int) -> float:
    """Bayes' rule at each step leaves log q(x_t|x_0) - log q(x_{t-1}|x_0); their sum telescopes to the last marginal.

    A last digit of each x counts as many deviations of its step as it is."""
    rng = np.random.default_rng(seed)
    x = [rng.standard_normal(3)]
    for t in range(1, schedule.T + 1):
        x.append(q_step(schedule, x[-1], t, rng.standard_normal(3)))
    steps_ = np.array([normal_logpdf(x[t], *q_step_moments(schedule, x[t - 1], t)) for t in range(1, schedule.T + 1)])
    rest = [normal_logpdf(x[-1], *q_moments(schedule, x[0], schedule.T))]
    for t in range(2, schedule.T + 1):
        rest.append(normal_logpdf(x[t - 1], posterior_mean(schedule, x[t], x[0], t), posterior_variance(schedule, t)))
    digits = 1e-2 * (np.abs(x[1:]) / np.sqrt(schedule.beta[1:, None])).sum(axis=0)
    scale = np.abs(steps_).sum(axis=0) + np.abs(rest).sum(axis=0) + digits
    return relative_error(np.sum(rest, axis=0), steps_.sum(axis=0), scale)


@claim(
    r"\mathbb E_{x_{T-1}}\,\mathrm{KL}(q(x_T \mid x_{T-1}) \,\|\, p) - \mathrm{KL}(q(x_T \mid x_0) \,\|\, p)"
    r" = \tfrac12 \log\frac{1 - \bar\alpha_T}{\beta_T} > 0",
    source="[Luo22] eqs. 45 and 58", of=prior_matching, against="quadrature over x_{T-1}, and 50-digit arithmetic",
    bound=1e-14, schedule=plain.filter(lambda s: s.T > 1), x0=points,
)  # fmt: skip
def the_two_prior_terms_belong_to_two_decompositions_and_differ(schedule: Schedule, x0: float) -> float:
    """By the information that x_T has of x_{T-1} beyond x_0: 2.0 nats a dimension for the paper's schedule."""
    T = schedule.T

    def averaged(z: np.ndarray) -> np.ndarray:
        mean, variance = q_step_moments(schedule, q_sample(schedule, np.full_like(z, x0), T - 1, z), T)
        return kl_gaussian(mean, np.full_like(z, np.log(variance)), 0 * z, 0 * z)[0]

    difference = gauss_hermite(averaged) - prior_matching(schedule, np.full((1, 1), x0), "nats")[0]
    with mpmath.workdps(50):
        expected = float(
            mpmath.log((1 - exact_alpha_bar(schedule.beta, 0, T)) / mpmath.mpf(float(schedule.beta[T]))) / 2
        )
    return relative_error(difference, expected, scale=expected + gauss_hermite(averaged)) if expected > 0 else np.inf


@claim(
    r"\mathbb E_{x_0}[L_{\mathrm{vlb}}] = H(x_0) + \mathrm{KL}(q(x_T) \,\|\, \mathcal N(0, 1))"
    r"\ \text{when } p(x_{t-1} \mid x_t) = q(x_{t-1} \mid x_t)",
    source="[DDPM] section 3.2", of=bound_terms, against="the entropy of the data, in closed form", bound=1e-11, examples=15,
    schedule=schedules(max_T=50), mean=points, variance=st.floats(0.05, 2),
)  # fmt: skip
def for_gaussian_data_the_bound_of_the_true_reverse_process_is_exact(
    schedule: Schedule, mean: float, variance: float
) -> float:
    """Nothing is lost but that x_T is not quite N(0, 1): with the perfect denoiser, and the variance that is right."""
    z, w = np.polynomial.hermite_e.hermegauss(6)
    x0, noise = (a.ravel() for a in np.meshgrid(mean + variance**0.5 * z, z))
    weight = np.outer(w, w).ravel() / w.sum() ** 2
    terms = (
        bound_terms(schedule, gaussian_reverse(schedule, mean, variance), x0, lambda t: noise, None, "nats") @ weight
    )
    last_mean, last_variance = schedule.alpha_bar[-1] ** 0.5 * mean, 1 + schedule.alpha_bar[-1] * (variance - 1)
    expected = 0.5 * np.log(2 * np.pi * np.e * variance) + 0.5 * (
        last_variance - 1 - np.log(last_variance) + last_mean**2
    )
    return relative_error(terms.sum(), expected, scale=np.abs(terms).sum() + abs(expected))


# Variational autoencoders: the diffusion model is one.


@claim(
    r"\log p(x) = \mathbb E_{q(z \mid x)}[\log p(x \mid z)] - \mathrm{KL}(q(z \mid x) \,\|\, p(z))"
    r" + \mathrm{KL}(q(z \mid x) \,\|\, p(z \mid x))",
    source="[VAE] eqs. 1 and 3", of=kl_gaussian, against="the exact evidence of a linear model", bound=1e-14,
    x=points, seed=seeds(),
)  # fmt: skip
def the_bound_of_a_variational_autoencoder_misses_the_divergence_to_the_posterior(x: float, seed: int) -> float:
    """z ~ N(0, 1), x | z ~ N(w z + b, s), so x ~ N(b, w^2 + s) and z | x ~ N(w (x - b) / (w^2 + s), s / (w^2 + s))."""
    w, b, s, mean, log_variance = np.random.default_rng(seed).standard_normal((5, 1))
    s, zero = np.exp(s), np.zeros(1)
    reconstruction = gauss_hermite(
        lambda z: normal_logpdf(np.array(x), w * z + b, s), mean[0], np.exp(log_variance[0] / 2)
    )
    to_prior, _ = kl_gaussian(mean, log_variance, zero, zero)
    to_posterior, _ = kl_gaussian(mean, log_variance, w * (x - b) / (w**2 + s), np.log(s / (w**2 + s)))
    evidence = normal_logpdf(np.array([x]), b, w**2 + s)
    actual = reconstruction - to_prior + to_posterior
    return relative_error(actual, evidence, scale=abs(reconstruction) + to_prior + to_posterior + abs(evidence))


@claim(
    r"\log p(x) = \mathbb E_{q(z_{1:T} \mid x)}\Big[\log\frac{p(x, z_{1:T})}{q(z_{1:T} \mid x)}\Big]"
    r" + \mathrm{KL}(q(z_{1:T} \mid x) \,\|\, p(z_{1:T} \mid x))",
    source="[Luo22] section 'Hierarchical variational autoencoders'", of=l_vlb_term, bound=1e-13,
    against="the joint Gaussians of all latents", T=st.integers(1, 5), x0=points, seed=seeds(),
)  # fmt: skip
def the_bound_of_a_markovian_hierarchical_autoencoder_misses_the_same(T: int, x0: float, seed: int) -> float:
    """For any linear encoder z_{t-1} -> z_t and decoder z_t -> z_{t-1}."""
    rng = np.random.default_rng(seed)
    encoder, chain = Encoder.random(T, rng), Chain.random(T, rng)
    (evidence, gap), bound = evidence_and_gap(encoder, chain, x0), hierarchical_bound(encoder, chain, x0)
    return relative_error(bound - gap, -evidence, scale=abs(bound) + gap + abs(evidence)) if gap >= 0 else np.inf


@claim(
    r"q(z_t \mid z_{t-1}) = \mathcal N(\sqrt{\alpha_t}\, z_{t-1}, \beta_t) \implies"
    r" -\mathrm{ELBO} = L_0 + \dots + L_T",
    source="[DDPM] eq. 5", of=bound_terms, against="the bound of a hierarchical autoencoder, and its gap", bound=1e-11,
    schedule=small, x0=points, seed=seeds(),
)  # fmt: skip
def a_diffusion_model_is_a_hierarchical_autoencoder_with_a_fixed_encoder(
    schedule: Schedule, x0: float, seed: int
) -> float:
    """The terms together are E_q[log q(x_{1:T}|x_0) - log p(x_{0:T})], and miss -log p(x_0) by the divergence of paths."""
    chain, encoder = Chain.random(schedule.T, np.random.default_rng(seed)), Encoder.of_diffusion(schedule)
    actual = quadrature_terms(schedule, chain.reverse, x0)
    evidence, gap = evidence_and_gap(encoder, chain, x0)
    scale = np.abs(actual).sum() + gap + abs(evidence)
    of_case = relative_error(actual.sum(), hierarchical_bound(encoder, chain, x0), scale)
    return max(of_case, relative_error(actual.sum() - gap, -evidence, scale))
