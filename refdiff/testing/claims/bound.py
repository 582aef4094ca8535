"""Claims about the variational bound on -log p(x_0): its parts, its decompositions, its weightings, its gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import mpmath
import numpy as np
from hypothesis import strategies as st

from ...process import (
    PREDICTIONS,
    GaussianMixture,
    Schedule,
    bound_terms,
    convert,
    decoder_log_likelihood,
    decoder_log_likelihood_backward,
    fixed_log_variance,
    fixed_reverse,
    kl_gaussian,
    kl_gaussian_backward,
    l_hybrid,
    l_hybrid_backward,
    l_simple,
    l_simple_backward,
    l_vlb_term,
    l_vlb_term_backward,
    l_weighted,
    l_weighted_backward,
    learned_log_variance,
    learned_log_variance_backward,
    linear,
    min_snr_weight,
    p2_weight,
    posterior_log_variance,
    posterior_mean,
    posterior_variance,
    predictor,
    prior_matching,
    q_between,
    q_moments,
    q_sample,
    q_step,
    q_step_moments,
    step_log_variance,
    step_variance,
    target,
    vlb_weight,
)  # fmt: skip
from ..claim import claim
from ..derivatives import backward_errors
from ..measures import exact_alpha_bar, gauss_hermite, normal_logpdf, relative, standard_errors
from ..strategies import schedules, seeds, steps

plain: Any = schedules(respaced=False)
with_step: Any = plain.flatmap(lambda s: st.tuples(st.just(s), steps(s)))
late: Any = plain.filter(lambda s: s.T > 1).flatmap(lambda s: st.tuples(st.just(s), steps(s, first=2)))
small: Any = schedules(max_T=4)
longer: Any = schedules(max_T=40).filter(lambda s: s.T > 1)
points: Any = st.floats(-2, 2)
laws: Any = st.sampled_from([(posterior_log_variance, posterior_variance), (step_log_variance, step_variance)])


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
    return relative(kl, gauss_hermite(log_ratio, m[0], np.exp(v[0] / 2)), scale=size)


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
        wanted = [
            float((mpmath.expm1(j - n) - (j - n) + (i - k) ** 2 * mpmath.exp(-n)) / 2)
            for i, j, k, n in zip(a, b, c, d, strict=True)
        ]
    return max(relative(came, w) for came, w in zip(kl, wanted, strict=True))


@claim(
    r"L_T = \mathrm{KL}(q(x_T \mid x_0) \,\|\, \mathcal N(0, I))"
    r" = \tfrac12\big(\bar\alpha_T x_0^2 - \bar\alpha_T - \log(1 - \bar\alpha_T)\big)",
    source="[DDPM] eq. 5", of=prior_matching, against="50-digit arithmetic", bound=1e-14, schedule=plain, seed=seeds(),
)  # fmt: skip
def the_prior_term_is_its_closed_form(schedule: Schedule, seed: int) -> float:
    """In nats of each whole sample of six elements, however small alpha_bar_T is."""
    x0 = np.random.default_rng(seed).uniform(-1, 1, (5, 6))
    with mpmath.workdps(50):
        abar = exact_alpha_bar(schedule.beta, 0, schedule.T)
        rest = -(abar + mpmath.log(1 - abar))
        wanted = [float(sum(abar * mpmath.mpf(float(x)) ** 2 + rest for x in row) / 2) for row in x0]
    return relative(prior_matching(schedule, x0, "nats"), wanted)


@claim(
    r"L_T = 9.70 \cdot 10^{-6}\ \text{bits per dimension for } \mathbb E[x_0^2] = \tfrac13,\ T = 1000,"
    r"\ \beta = 10^{-4} \dots 0.02",
    source="[DDPM] section 4", of=prior_matching, against="the known figure, to its digits", bound=5e-4, examples=1,
)  # fmt: skip
def the_prior_term_of_the_papers_schedule_is_all_but_nothing() -> float:
    """x_0 uniform on [-1, 1]: how little x_T remembers of it."""
    x0 = np.full((1, 3), 3**-0.5)
    return relative(prior_matching(linear(1000), x0), 9.70e-6)


@claim(
    r"\sum_{x_0} p(x_0 \mid x_1) = 1",
    source="[DDPM] eq. 13", of=decoder_log_likelihood, against="the sum over all bins", bound=1e-14,
    bins=st.integers(2, 300), mean=st.floats(-3, 3), log_variance=st.floats(-20, 10),
)  # fmt: skip
def the_decoders_bins_share_out_all_probability(bins: int, mean: float, log_variance: float) -> float:
    """Whatever the number of levels; the outermost bins are open."""
    x0 = np.linspace(-1, 1, bins)
    log_mass, _ = decoder_log_likelihood(x0, np.full(bins, mean), np.full(bins, log_variance), bins)
    return relative(np.exp(log_mass).sum(), 1)


@claim(
    r"p(x_0 \mid x_1) = \int_{\delta_-(x_0)}^{\delta_+(x_0)} \mathcal N(x; \mu, \sigma^2)\, dx",
    source="[DDPM] eq. 13", of=decoder_log_likelihood, against="the complementary error function, in 50 digits",
    bound=1e-14, bins=st.sampled_from([2, 17, 256]), log_sigma=st.floats(-5, 3), seed=seeds(),
)  # fmt: skip
def the_decoders_log_mass_is_exact_far_out_in_the_tails(bins: int, log_sigma: float, seed: int) -> float:
    """Also where the mass is below 1e-10000, and where a bin is so short that its ends have the same tail."""
    rng = np.random.default_rng(seed)
    level = np.append(rng.integers(0, bins, 4), [0, bins - 1])
    mean = rng.uniform(-1, 1, 6)
    log_variance = np.full(6, 2 * log_sigma)
    came, _ = decoder_log_likelihood(2 * level / (bins - 1) - 1, mean, log_variance, bins)
    wanted = []
    with mpmath.workdps(50):
        sigma = mpmath.exp(mpmath.mpf(float(log_variance[0])) / 2)

        def above(z: Any) -> Any:
            return mpmath.erfc(z / mpmath.sqrt(2)) / 2

        for k, m in zip(level.tolist(), mean.tolist(), strict=True):
            low, high = ((mpmath.mpf(2 * k + side) / (bins - 1) - 1 - mpmath.mpf(m)) / sigma for side in (-1, 1))
            low, high = low if k else -mpmath.inf, high if k < bins - 1 else mpmath.inf
            mass = above(low) - above(high) if low + high > 0 else above(-high) - above(-low)
            wanted.append(float(mpmath.log(mass)))
    # The edges are rounded, which moves the log mass by that times distance over variance.
    slope = 1 + np.abs(2 * level / (bins - 1) - 1 - mean) * np.exp(-2 * log_sigma)
    return max(relative(c, w, scale=abs(w) + a) for c, w, a in zip(came, wanted, slope, strict=True))


# The bound and its decompositions, for a model in one dimension.


class Chain(NamedTuple):
    """p(x_{t-1} | x_t) = N(g_t x_t + h_t + k_t sin x_t, v_t), each (T+1,), index 0 unused; p(x_T) = N(0, 1)."""

    g: np.ndarray
    h: np.ndarray
    k: np.ndarray
    v: np.ndarray

    @classmethod
    def random(cls, T: int, rng: np.random.Generator, bend: float = 0.0) -> Chain:
        g, h, k = rng.uniform(0.5, 1.1, T + 1), 0.3 * rng.standard_normal(T + 1), bend * rng.uniform(-1, 1, T + 1)
        return cls(g, h, k, np.exp(rng.uniform(-3, 0, T + 1)))

    def reverse(self, x_t: np.ndarray, t: int) -> tuple[np.ndarray, np.ndarray]:
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
    return relative(one.sum(), np.sum(other), scale=np.abs(other).sum() + np.abs(one).sum())


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
    wanted = chain.g[t + 1] * np.sqrt(schedule.alpha[t + 1]) * schedule.beta[t] / chain.v[t + 1]
    return relative(apart - right, wanted, scale=wanted + abs(apart) + abs(right))


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
    """Bayes' rule at each step leaves log q(x_t|x_0) - log q(x_{t-1}|x_0), of which only the last marginal survives."""
    rng = np.random.default_rng(seed)
    x = [rng.standard_normal(3)]
    for t in range(1, schedule.T + 1):
        x.append(q_step(schedule, x[-1], t, rng.standard_normal(3)))
    steps_ = np.array([normal_logpdf(x[t], *q_step_moments(schedule, x[t - 1], t)) for t in range(1, schedule.T + 1)])
    rest = [normal_logpdf(x[-1], *q_moments(schedule, x[0], schedule.T))]
    for t in range(2, schedule.T + 1):
        rest.append(normal_logpdf(x[t - 1], posterior_mean(schedule, x[t], x[0], t), posterior_variance(schedule, t)))
    return relative(
        np.sum(rest, axis=0), steps_.sum(axis=0), scale=np.abs(steps_).sum(axis=0) + np.abs(rest).sum(axis=0)
    )


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
        wanted = float(mpmath.log((1 - exact_alpha_bar(schedule.beta, 0, T)) / mpmath.mpf(float(schedule.beta[T]))) / 2)
    return relative(difference, wanted, scale=wanted + gauss_hermite(averaged)) if wanted > 0 else np.inf


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
    wanted = 0.5 * np.log(2 * np.pi * np.e * variance) + 0.5 * (
        last_variance - 1 - np.log(last_variance) + last_mean**2
    )
    return relative(terms.sum(), wanted, scale=np.abs(terms).sum() + abs(wanted))


# Variational autoencoders, of which the diffusion model is one.


class Encoder(NamedTuple):
    """q(z_t | z_{t-1}) = N(a_t z_{t-1} + c_t, r_t), z_0 the data; each (T+1,), index 0 unused."""

    a: np.ndarray
    c: np.ndarray
    r: np.ndarray

    @classmethod
    def random(cls, T: int, rng: np.random.Generator) -> Encoder:
        return cls(rng.uniform(0.3, 1.1, T + 1), 0.3 * rng.standard_normal(T + 1), np.exp(rng.uniform(-2, 0, T + 1)))

    @classmethod
    def of_diffusion(cls, schedule: Schedule) -> Encoder:
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
    came = reconstruction - to_prior + to_posterior
    return relative(came, evidence, scale=abs(reconstruction) + to_prior + to_posterior + abs(evidence))


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
    return relative(bound - gap, -evidence, scale=abs(bound) + gap + abs(evidence)) if gap >= 0 else np.inf


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
    came = quadrature_terms(schedule, chain.reverse, x0)
    evidence, gap = evidence_and_gap(encoder, chain, x0)
    scale = np.abs(came).sum() + gap + abs(evidence)
    of_case = relative(came.sum(), hierarchical_bound(encoder, chain, x0), scale)
    return max(of_case, relative(came.sum() - gap, -evidence, scale))


# L_{t-1} as a weighted squared error, and the losses made of that.


@claim(
    r"L_{t-1} = \mathrm{KL}(q(x_{t-1} \mid x_t, x_0) \,\|\, p(x_{t-1} \mid x_t))",
    source="[DDPM] eq. 5", of=l_vlb_term, against="50-digit arithmetic, from beta", bound=1e-14, case=late, seed=seeds(),
)  # fmt: skip
def a_denoising_term_is_the_divergence_from_the_posterior(case: tuple[Schedule, int], seed: int) -> float:
    """For any mean and log variance of p near the posterior's, relative to what rounding the mean must do."""
    schedule, t = case
    x0, eps, off, more = np.random.default_rng(seed).standard_normal((4, 6, 1))
    x_t, sigma = q_sample(schedule, x0, t, eps), np.sqrt(posterior_variance(schedule, t))
    mean = posterior_mean(schedule, x_t, x0, t) + sigma * off
    log_variance = fixed_log_variance(schedule, x_t, t) + more
    came, _ = l_vlb_term(schedule, x0, x_t, t, mean, log_variance, unit="nats")
    wanted = []
    with mpmath.workdps(50):
        before, now = (exact_alpha_bar(schedule.beta, 0, s) for s in (t - 1, t))
        beta = mpmath.mpf(float(schedule.beta[t]))
        of_x0, of_xt = mpmath.sqrt(before) * beta / (1 - now), mpmath.sqrt(1 - beta) * (1 - before) / (1 - now)
        variance = beta * (1 - before) / (1 - now)
        for a, b, m, lv in zip(x0[:, 0], x_t[:, 0], mean[:, 0], log_variance[:, 0], strict=True):
            square = (
                variance + (of_x0 * mpmath.mpf(float(a)) + of_xt * mpmath.mpf(float(b)) - mpmath.mpf(float(m))) ** 2
            )
            lv = mpmath.mpf(float(lv))
            wanted.append(float((lv - mpmath.log(variance) + square * mpmath.exp(-lv) - 1) / 2))
    rounding = np.abs(off) * (np.abs(x0) + np.abs(x_t)) * sigma * np.exp(-log_variance)
    return relative(
        came, wanted, scale=np.abs(wanted) + rounding[:, 0] + np.abs(log_variance[:, 0]) * abs(np.expm1(-more[:, 0]))
    )


@claim(
    r"L_{t-1} = w\, \|y - \hat y\|^2 + \mathrm{const},\quad"
    r" w_\mu = \frac{1}{2\sigma_t^2},\ w_\epsilon = \frac{\beta_t^2}{2\sigma_t^2 \alpha_t (1 - \bar\alpha_t)},"
    r"\ w_{x_0} = \frac{\bar\alpha_{t-1}\beta_t^2}{2\sigma_t^2 (1 - \bar\alpha_t)^2}",
    source="[DDPM] eqs. 8 and 12", of=vlb_weight, against="the divergence itself, for y of every kind of prediction",
    bound=1e-13, case=late, kind=st.sampled_from(PREDICTIONS), law=laws, seed=seeds(), examples=60,
)  # fmt: skip
def a_denoising_term_is_a_weighted_squared_error(case: tuple[Schedule, int], kind: str, law: Any, seed: int) -> float:
    """L_{t-1} of a wrong prediction less that of the right one, for either fixed variance."""
    (schedule, t), (log_variance, variance) = case, law
    x0, eps, off = np.random.default_rng(seed).standard_normal((3, 20, 1))
    x_t, right = q_sample(schedule, x0, t, eps), target(schedule, kind, x0, eps, t)
    weight, sigma2 = float(vlb_weight(schedule, t, kind, variance)), float(variance(schedule, t))
    wrong = right + off / np.sqrt(weight)  # so that L_{t-1} is about 1
    at = fixed_log_variance(schedule, x_t, t, log_variance)

    def term(y: np.ndarray) -> np.ndarray:
        return l_vlb_term(schedule, x0, x_t, t, convert(schedule, x_t, t, y, kind, "mu"), at, unit="nats")[0]

    # Of the prediction a last digit is lost, of mu as many as its size has above sigma.
    lost = 1 + (np.abs(x0) + np.abs(x_t)) / np.sqrt(sigma2) + np.sqrt(weight) * np.abs(wrong)
    wanted = weight * (wrong - right) ** 2
    return relative(term(wrong) - term(right), wanted[:, 0], scale=wanted + 2 * np.abs(off) * lost + term(right).mean())


@claim(
    r"w_\epsilon = \frac{\beta_t^2}{2\sigma_t^2\, \alpha_t\, (1 - \bar\alpha_t)}",
    source="[DDPM] eq. 12", of=vlb_weight, against="50-digit arithmetic, for both fixed variances", bound=1e-14, case=late,
)  # fmt: skip
def the_weight_of_the_error_of_eps_is_the_papers(case: tuple[Schedule, int]) -> float:
    """With sigma_t^2 = beta_t, and with the posterior's."""
    schedule, t = case
    with mpmath.workdps(50):
        before, now = (exact_alpha_bar(schedule.beta, 0, s) for s in (t - 1, t))
        beta = mpmath.mpf(float(schedule.beta[t]))
        wanted = [float(beta**2 / (2 * s2 * (1 - beta) * (1 - now))) for s2 in (beta, beta * (1 - before) / (1 - now))]
    return max(
        relative(vlb_weight(schedule, t, "eps", v), w)
        for v, w in zip((step_variance, posterior_variance), wanted, strict=True)
    )


@claim(
    r"w_{x_0} = \tfrac12\big(\mathrm{SNR}(t-1) - \mathrm{SNR}(t)\big),\quad"
    r" \mathrm{SNR}(t) = \frac{\bar\alpha_t}{1 - \bar\alpha_t}",
    source="[VDM] section 4", of=vlb_weight, against="50-digit arithmetic", bound=1e-14, case=late,
)  # fmt: skip
def the_weight_of_the_error_of_x0_is_half_the_loss_of_signal(case: tuple[Schedule, int]) -> float:
    """For sigma_t^2 the posterior's variance."""
    schedule, t = case
    with mpmath.workdps(50):
        before, now = (exact_alpha_bar(schedule.beta, 0, s) for s in (t - 1, t))
        wanted = float((before / (1 - before) - now / (1 - now)) / 2)
    return relative(vlb_weight(schedule, t, "x0"), wanted)


@claim(
    r"L_{\mathrm{simple}} = \mathbb E\Big[\frac{1}{w_t} L_{t-1}\Big],\quad"
    r" \mathbb E[w_t\,\|\epsilon - \hat\epsilon\|^2] = \mathbb E[L_{t-1}]",
    source="[DDPM] eq. 14", of=l_weighted, against="the denoising terms, t drawn for each sample", bound=1e-13,
    schedule=longer, seed=seeds(),
)  # fmt: skip
def the_simple_loss_is_the_bound_reweighted(schedule: Schedule, seed: int) -> float:
    """With the posterior's variance, where no constant is left: each L_{t-1} a dimension over its weight, averaged."""
    rng = np.random.default_rng(seed)
    t = rng.integers(2, schedule.T + 1, 12)
    x0, eps, eps_hat = rng.standard_normal((3, 12, 5))
    x_t, weight = q_sample(schedule, x0, t, eps), vlb_weight(schedule, t)
    mean, at = convert(schedule, x_t, t, eps_hat, "eps", "mu"), fixed_log_variance(schedule, x_t, t)
    term = l_vlb_term(schedule, x0, x_t, t, mean, at, unit="nats")[0] / 5
    lost = 1 + (1 / np.sqrt(weight * posterior_variance(schedule, t))).max()  # digits of mu above its error
    simple = relative(l_simple(eps_hat, eps)[0], (term / weight).mean())
    return max(simple, relative(l_weighted(eps_hat, eps, weight)[0], term.mean())) / lost


@claim(
    r"w_{x_0} = \min(\mathrm{SNR}, \gamma),\quad w_\epsilon = \min(\mathrm{SNR}, \gamma) / \mathrm{SNR},\quad"
    r" w_v = \min(\mathrm{SNR}, \gamma) / (\mathrm{SNR} + 1)",
    source="[MinSNR]", of=min_snr_weight, against="50-digit arithmetic, and one denoiser's losses in all three", bound=1e-13,
    case=with_step, gamma=st.floats(0.5, 20), seed=seeds(),
)  # fmt: skip
def min_snr_weights_make_one_loss_of_every_prediction(case: tuple[Schedule, int], gamma: float, seed: int) -> float:
    """Weights as published, and the weighted losses of eps_hat, x0_hat and v_hat of one denoiser are equal."""
    schedule, t = case
    with mpmath.workdps(50):
        abar = exact_alpha_bar(schedule.beta, 0, t)
        snr = abar / (1 - abar)
        held = min(snr, mpmath.mpf(gamma))
        wanted = {"x0": float(held), "eps": float(held / snr), "v": float(held / (snr + 1))}
    came = {kind: min_snr_weight(schedule, t, kind, gamma) for kind in wanted}
    x0, eps, off = np.random.default_rng(seed).standard_normal((3, 8))
    x_t = q_sample(schedule, x0, t, eps)
    right = target(schedule, "v", x0, eps, t)
    losses = []
    for kind in wanted:
        y_hat, y = (convert(schedule, x_t, t, v, "v", kind) for v in (right + off, right))
        losses.append(float(l_weighted(y_hat, y, came[kind])[0]))
    # x0 and eps come from v by multiplying, but the error of each is smaller than v's by a factor.
    small_part = min(schedule.alpha_bar[t], schedule.one_minus_alpha_bar[t]) ** 0.5
    return max(
        *(relative(came[kind], wanted[kind]) for kind in wanted),
        *(relative(loss, losses[-1]) * small_part for loss in losses),
    )


@claim(
    r"w_\epsilon = (k + \mathrm{SNR}(t))^{-\gamma}",
    source="[P2]", of=p2_weight, against="50-digit arithmetic", bound=1e-14, case=with_step,
    gamma=st.floats(0, 2), k=st.floats(0.1, 2),
)  # fmt: skip
def p2_weights_fall_with_the_signal(case: tuple[Schedule, int], gamma: float, k: float) -> float:
    """For eps as published; for x_0 times the SNR, since an error of eps is sqrt(SNR) times that of x_0."""
    schedule, t = case
    with mpmath.workdps(50):
        abar = exact_alpha_bar(schedule.beta, 0, t)
        snr = abar / (1 - abar)
        wanted = float((k + snr) ** -mpmath.mpf(gamma)), float(snr * (k + snr) ** -mpmath.mpf(gamma))
    return max(
        relative(p2_weight(schedule, t, kind, gamma, k), w) for kind, w in zip(("eps", "x0"), wanted, strict=True)
    )


@claim(
    r"\log\sigma_t^2 = \tfrac{1+v}{2} \log\beta_t + \tfrac{1-v}{2} \log\tilde\beta_t",
    source="[IDDPM] eq. 15", of=learned_log_variance, against="50-digit arithmetic", bound=1e-14, case=late,
    v=st.floats(-1, 1),
)  # fmt: skip
def learned_log_variances_lie_between_the_two_extremes(case: tuple[Schedule, int], v: float) -> float:
    """And at v = -1 and 1 are they."""
    schedule, t = case
    with mpmath.workdps(50):
        before, now = (exact_alpha_bar(schedule.beta, 0, s) for s in (t - 1, t))
        high = mpmath.log(mpmath.mpf(float(schedule.beta[t])))
        low = high + mpmath.log((1 - before) / (1 - now))
        wanted = [float(high * (1 + mpmath.mpf(u)) / 2 + low * (1 - mpmath.mpf(u)) / 2) for u in (-1.0, v, 1.0)]
    came, _ = learned_log_variance(schedule, np.array([-1.0, v, 1.0]), t)
    inside = posterior_log_variance(schedule, t) <= came[1] <= step_log_variance(schedule, t) * (1 - 1e-15)
    return relative(came, wanted, scale=np.abs(wanted) + 1) if inside else np.inf


@claim(
    r"L_{\mathrm{hybrid}} = L_{\mathrm{simple}} + \lambda L_{\mathrm{vlb}}",
    source="[IDDPM] eq. 16", of=l_hybrid, against="the simple loss and all terms of the bound, one by one", bound=1e-13,
    schedule=schedules(max_T=20), weight=st.floats(1e-3, 1), bins=st.sampled_from([None, 17]), seed=seeds(),
)  # fmt: skip
def the_hybrid_loss_of_every_t_once_is_the_simple_loss_and_the_bound(
    schedule: Schedule, weight: float, bins: int | None, seed: int
) -> float:
    """One image, shown at t = 1 .. T: what is missing of the bound is L_T, which no network changes."""
    rng, T = np.random.default_rng(seed), schedule.T
    x0 = np.repeat(rng.integers(0, 17, (1, 3)) / 8 - 1, T, axis=0)
    t, eps = np.arange(1, T + 1), rng.standard_normal((T, 3))
    output = np.concatenate([eps + 0.3 * rng.standard_normal((T, 3)), rng.uniform(-1, 1, (T, 3))], axis=1)
    came, _ = l_hybrid(schedule, "eps", x0, eps, t, output, weight, bins)

    def reverse(x_t: np.ndarray, t: int) -> tuple[np.ndarray, np.ndarray]:
        eps_hat, v = output[t - 1 : t, :3], output[t - 1 : t, 3:]
        return convert(schedule, x_t, t, eps_hat, "eps", "mu"), learned_log_variance(schedule, v, t)[0]

    terms = bound_terms(schedule, reverse, x0[:1], lambda t: eps[t - 1 : t], bins)[:-1]
    wanted = l_simple(output[:, :3], eps)[0] + weight * terms.sum()
    return relative(came, wanted, scale=l_simple(output[:, :3], eps)[0] + weight * np.abs(terms).sum())


# Gradients.


def objectives(
    schedule: Schedule, rng: np.random.Generator, bins: int | None
) -> dict[str, tuple[Callable, Callable, tuple]]:
    """Forward, backward and inputs of each objective that is differentiated."""
    t = np.append(rng.integers(1, schedule.T + 1, 4), 1)
    x0, eps = rng.integers(0, 17, (5, 4)) / 8 - 1, rng.standard_normal((5, 4))
    x_t = q_sample(schedule, x0, t, eps)
    sigma = np.exp(0.5 * fixed_log_variance(schedule, x_t, t))
    mean = posterior_mean(schedule, x_t, x0, t) + sigma * rng.standard_normal((5, 4))
    log_variance = 2 * np.log(sigma) + 0.5 * rng.standard_normal((5, 4))
    weight = p2_weight(schedule, t)
    return {
        "l_weighted": (lambda y: l_weighted(y, eps, weight), l_weighted_backward, (eps + rng.standard_normal((5, 4)),)),
        "kl_gaussian": (kl_gaussian, kl_gaussian_backward, tuple(rng.standard_normal((4, 5, 4)))),
        "decoder": (
            lambda m, l: decoder_log_likelihood(x0, m, l, bins),
            decoder_log_likelihood_backward,
            (x0 + np.exp(rng.uniform(-4, 1)) * rng.standard_normal((5, 4)), rng.uniform(-8, 2, (5, 4))),
        ),
        "l_vlb_term": (
            lambda m, l: l_vlb_term(schedule, x0, x_t, t, m, l, bins),
            l_vlb_term_backward,
            (mean, log_variance),
        ),
        "learned_log_variance": (
            lambda v: learned_log_variance(schedule, v, t),
            learned_log_variance_backward,
            (rng.standard_normal((5, 4)),),
        ),
    }


@claim(
    r"\nabla L\ \text{of } L_w,\ \mathrm{KL},\ \log p(x_0 \mid x_1),\ L_{t-1},\ \log\sigma_t^2(v)",
    source="[ComplexStep]", of=l_vlb_term_backward, against="complex-step derivatives", bound=1e-13, examples=60,
    which=st.sampled_from(["l_weighted", "kl_gaussian", "decoder", "l_vlb_term", "learned_log_variance"]),
    schedule=schedules(), bins=st.sampled_from([None, 17]), seed=seeds(),
)  # fmt: skip
def the_gradient_of_every_objective_is_its_derivative(
    which: str, schedule: Schedule, bins: int | None, seed: int
) -> float:
    """By mean and by log variance where there are both, t drawn for each sample, t = 1 among them."""
    rng = np.random.default_rng(seed)
    return max(backward_errors(*objectives(schedule, rng, bins)[which], rng).values())


@claim(
    r"\nabla_{\hat\epsilon} L_{\mathrm{hybrid}} = \nabla_{\hat\epsilon} L_{\mathrm{simple}},\quad"
    r" \nabla_v L_{\mathrm{hybrid}} = \lambda \nabla_v L_{\mathrm{vlb}}",
    source="[IDDPM] section 3.1", of=l_hybrid_backward, against="complex steps, and the simple loss's own gradient",
    bound=1e-13, schedule=schedules(), kind=st.sampled_from(["eps", "x0", "v"]), bins=st.sampled_from([None, 17]),
    seed=seeds(),
)  # fmt: skip
def only_the_variance_learns_from_the_hybrid_losss_bound(
    schedule: Schedule, kind: str, bins: int | None, seed: int
) -> float:
    """In the bound the predicted mean counts as a constant, so that its noisy gradient is not followed."""
    rng = np.random.default_rng(seed)
    t = np.append(rng.integers(1, schedule.T + 1, 3), 1)
    x0, eps = rng.integers(0, 17, (4, 3)) / 8 - 1, rng.standard_normal((4, 3))
    right = target(schedule, kind, x0, eps, t)
    output = np.concatenate([right + 0.1 * rng.standard_normal((4, 3)), rng.uniform(-1, 1, (4, 3))], axis=1)

    def forward(y: np.ndarray) -> Any:
        return l_hybrid(schedule, kind, x0, eps, t, y, 0.1, bins)

    simple = l_simple_backward(np.float64(1), l_simple(output[:, :3], right)[1])
    gradient = l_hybrid_backward(np.float64(1), forward(output)[1])
    return max(*backward_errors(forward, l_hybrid_backward, (output,), rng).values(), relative(gradient[:, :3], simple))
