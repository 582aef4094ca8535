"""Claims about the posterior of the forward process, [DDPM] eqs. 6 and 7, and about the predictions made of it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import mpmath
import numpy as np
from hypothesis import strategies as st

from ...process import (
    PREDICTIONS,
    Schedule,
    convert,
    posterior_log_variance,
    posterior_mean,
    posterior_mean_coefficients,
    posterior_mean_from_eps,
    posterior_variance,
    q_between_moments,
    q_moments,
    q_sample,
    score_from_eps,
    target,
    x0_from_eps,
)  # fmt: skip
from ..claim import claim
from ..measures import exact_alpha_bar, normal_logpdf, relative_error
from ..strategies import pairs, schedules, seeds, steps

with_step: Any = schedules(respaced=False).flatmap(lambda s: st.tuples(st.just(s), steps(s)))
with_pair: Any = schedules(respaced=False).flatmap(lambda s: st.tuples(st.just(s), pairs(s, strict=True)))
inner_pair: Any = with_pair.filter(lambda case: case[1][0] > 0)
points: Any = st.floats(-2, 2)


@claim(
    r"q(x_s \mid x_t, x_0) = \frac{q(x_t \mid x_s)\, q(x_s \mid x_0)}{q(x_t \mid x_0)}",
    source="[DDPM] eq. 6", of=posterior_mean, against="the three densities themselves", bound=1e-12, case=inner_pair,
    x0=points, z=points, where=st.floats(-3, 3),
)  # fmt: skip
def bayes_rule_holds_with_all_three_gaussians(
    case: tuple[Schedule, tuple[int, int]], x0: float, z: float, where: float
) -> float:
    """log N(x_s; posterior) = log q(x_t|x_s) + log q(x_s|x_0) - log q(x_t|x_0), at any x_s within three deviations; a last
    digit of the points counts as many deviations as it is."""
    schedule, (s, t) = case
    data = np.array([x0])
    x_t = q_sample(schedule, data, t, np.array([z]))
    mean, variance = posterior_mean(schedule, x_t, data, t, s), float(posterior_variance(schedule, t, s))
    x_s = mean + where * np.sqrt(variance)
    likelihood = normal_logpdf(x_t, *q_between_moments(schedule, x_s, s, t))
    prior, evidence = (
        normal_logpdf(x_s, *q_moments(schedule, data, s)),
        normal_logpdf(x_t, *q_moments(schedule, data, t)),
    )
    actual = normal_logpdf(x_s, mean, variance)
    digit = 1e-3 * (abs(x0) + np.abs(x_t) + np.abs(x_s)) * (1 + abs(z) + abs(where)) / np.sqrt(variance)
    return relative_error(
        actual, likelihood + prior - evidence, 1 + abs(likelihood) + abs(prior) + abs(evidence) + digit
    )


@claim(
    r"\log q(x_t \mid x_s) + \log q(x_s \mid x_0) = -\tfrac12 A x_s^2 + B x_s + \mathrm{const},\quad"
    r" \tilde\beta = 1/A,\ \tilde\mu = B/A",
    source="[DDPM] eq. 7", of=posterior_mean_coefficients, against="coefficients of the square, in 50-digit arithmetic",
    bound=1e-14, case=inner_pair,
)  # fmt: skip
def completing_the_square_gives_mean_and_variance_coefficient_by_coefficient(
    case: tuple[Schedule, tuple[int, int]],
) -> float:
    """A = alpha_{t|s} / beta_{t|s} + 1 / (1 - abar_s), and
    B = sqrt(alpha_{t|s}) / beta_{t|s} x_t + sqrt(abar_s) / (1 - abar_s) x_0."""
    schedule, (s, t) = case
    with mpmath.workdps(50):
        alpha, abar = exact_alpha_bar(schedule.beta, s, t), exact_alpha_bar(schedule.beta, 0, s)
        a = alpha / (1 - alpha) + 1 / (1 - abar)
        of_xt, of_x0 = mpmath.sqrt(alpha) / (1 - alpha) / a, mpmath.sqrt(abar) / (1 - abar) / a
        expected = [float(of_x0), float(of_xt), float(1 / a)]
    actual = [*posterior_mean_coefficients(schedule, t, s), posterior_variance(schedule, t, s)]
    return max(relative_error(c, w) for c, w in zip(actual, expected, strict=True))


@claim(
    r"\tilde\mu = \int x_s\, q(x_s \mid x_t, x_0)\, dx_s,\quad"
    r" \tilde\beta = \int (x_s - \tilde\mu)^2 q(x_s \mid x_t, x_0)\, dx_s",
    source="[DDPM] eq. 7", of=posterior_variance, against="quadrature of the unnormalised product of densities",
    bound=1e-12, case=inner_pair, x0=points, z=points,
)  # fmt: skip
def the_posterior_is_what_quadrature_of_bayes_rule_gives(
    case: tuple[Schedule, tuple[int, int]], x0: float, z: float
) -> float:
    """The trapezoid rule on 4,001 points over 12 deviations of the narrower factor, exact for such integrands but for as
    many deviations as a last digit of the points is."""
    schedule, (s, t) = case
    data = np.array([x0])
    x_t = q_sample(schedule, data, t, np.array([z]))
    alpha, beta = (float(a) for a in schedule.between(s, t))
    of_prior, of_likelihood = float(schedule.one_minus_alpha_bar[s]), beta / alpha
    # The grid is centred on the narrower factor and wide enough for where the product can lie.
    if of_prior < of_likelihood:
        centre, sd = np.sqrt(schedule.alpha_bar[s]) * x0, np.sqrt(of_prior)
    else:
        centre, sd = float(x_t[0]) / np.sqrt(alpha), np.sqrt(of_likelihood)
    grid = centre + sd * np.linspace(-14, 14, 4001)
    log = normal_logpdf(x_t[0], np.sqrt(alpha) * grid, beta) + normal_logpdf(
        grid, np.sqrt(schedule.alpha_bar[s]) * x0, schedule.one_minus_alpha_bar[s]
    )
    weight = np.exp(log - log.max())
    weight /= weight.sum()
    shift = (weight * (grid - centre)).sum()
    variance = (weight * (grid - centre - shift) ** 2).sum()
    actual = float(posterior_mean(schedule, x_t, data, t, s)[0])
    lost = 1 + 1e-3 * (abs(x0) + abs(float(x_t[0]))) / np.sqrt(min(of_prior, of_likelihood))
    return (
        max(
            relative_error(actual - centre, shift, scale=sd),
            relative_error(posterior_variance(schedule, t, s), variance),
        )
        / lost
    )


@claim(
    r"\tilde\mu_t = \frac{1}{\sqrt{\alpha_t}}\Big(x_t - \frac{\beta_t}{\sqrt{1-\bar\alpha_t}}\,\epsilon\Big)",
    source="[DDPM] eq. 11", of=posterior_mean_from_eps, against="the form in x_0 and x_t, with x_t made of both",
    bound=1e-12, case=with_pair, seed=seeds(),
)  # fmt: skip
def the_eps_form_of_the_mean_is_its_x0_form(case: tuple[Schedule, tuple[int, int]], seed: int) -> float:
    """For any earlier step s: the same mean, whether given the data or the noise."""
    schedule, (s, t) = case
    x0, eps = np.random.default_rng(seed).standard_normal((2, 20))
    x_t = q_sample(schedule, x0, t, eps)
    alpha, beta = schedule.between(s, t)
    scale = (np.abs(x_t) + beta / np.sqrt(schedule.one_minus_alpha_bar[t]) * np.abs(eps)) / np.sqrt(alpha)
    return relative_error(
        posterior_mean_from_eps(schedule, x_t, eps, t, s), posterior_mean(schedule, x_t, x0, t, s), scale
    )


@claim(
    r"x_0 = \frac{x_t - \sqrt{1-\bar\alpha_t}\,\epsilon}{\sqrt{\bar\alpha_t}}",
    source="[DDPM] eq. 15", of=x0_from_eps, against="the x_0 from which x_t was made", bound=1e-14, case=with_step,
    seed=seeds(),
)  # fmt: skip
def the_data_come_back_from_x_t_and_its_noise(case: tuple[Schedule, int], seed: int) -> float:
    """Relative to the sizes of the two terms that are subtracted."""
    schedule, t = case
    x0, eps = np.random.default_rng(seed).standard_normal((2, 20))
    x_t = q_sample(schedule, x0, t, eps)
    a, s = np.sqrt(schedule.alpha_bar[t]), np.sqrt(schedule.one_minus_alpha_bar[t])
    return relative_error(x0_from_eps(schedule, x_t, t, eps), x0, scale=np.abs(x0) + 2 * s / a * np.abs(eps))


@claim(
    r"\int q(x_s \mid x_t, x_0)\, q(x_t \mid x_0)\, dx_t = q(x_s \mid x_0)",
    source="[DDIM] appendix B", of=posterior_mean_coefficients, against="the marginal's mean and variance, 50 digits",
    bound=1e-14, case=with_pair,
)  # fmt: skip
def the_posterior_composed_with_the_marginal_is_the_earlier_marginal(case: tuple[Schedule, tuple[int, int]]) -> float:
    """Mean: c_0 + c_t sqrt(abar_t) = sqrt(abar_s). Variance: c_t^2 (1 - abar_t) + beta tilde = 1 - abar_s."""
    schedule, (s, t) = case
    of_x0, of_xt = posterior_mean_coefficients(schedule, t, s)
    with mpmath.workdps(50):
        before, now = exact_alpha_bar(schedule.beta, 0, s), exact_alpha_bar(schedule.beta, 0, t)
        root, rest, root_now, rest_now = (
            float(v) for v in (mpmath.sqrt(before), 1 - before, mpmath.sqrt(now), 1 - now)
        )
    mean = relative_error(of_x0 + of_xt * root_now, root)
    return max(mean, relative_error(of_xt**2 * rest_now + posterior_variance(schedule, t, s), rest))


@claim(
    r"\log\tilde\beta_1 := \log\tilde\beta_2",
    source="[IDDPM] section 3.1", of=posterior_log_variance, against="50-digit arithmetic", bound=1e-13,
    case=with_step.filter(lambda case: case[0].T > 1),
)  # fmt: skip
def the_log_variance_is_finite_at_every_step(case: tuple[Schedule, int]) -> float:
    """log of beta_t (1 - abar_{t-1}) / (1 - abar_t), with the value of t = 2 at t = 1."""
    schedule, t = case
    u = max(t, 2)
    with mpmath.workdps(50):
        before, now = (1 - exact_alpha_bar(schedule.beta, 0, s) for s in (u - 1, u))
        expected = float(mpmath.log(mpmath.mpf(float(schedule.beta[u])) * before / now))
    return relative_error(posterior_log_variance(schedule, t), expected, scale=[1, expected])


def _reverse_step_nongaussianity(beta: float) -> float:
    """KL(q(x_0 | x_1) || N(its mean, its variance)) for data at -1 and 1 blurred by 0.3, averaged over x_1."""
    x0 = np.linspace(-3, 3, 1201)
    prior = np.exp(-0.5 * ((x0 - 1) / 0.3) ** 2) + np.exp(-0.5 * ((x0 + 1) / 0.3) ** 2)
    x1 = np.linspace(-3.5, 3.5, 301)
    joint = prior * np.exp(normal_logpdf(x1[:, None], np.sqrt(1 - beta) * x0, beta))
    weight = joint.sum(axis=1)
    q = joint / weight[:, None]
    mean = (q * x0).sum(axis=1, keepdims=True)
    variance = (q * (x0 - mean) ** 2).sum(axis=1, keepdims=True)
    log_fit = normal_logpdf(x0, mean, variance) + np.log(x0[1] - x0[0])
    kl = np.where(q > 1e-300, q * (np.log(np.maximum(q, 1e-300)) - log_fit), 0).sum(axis=1)
    return float((weight * kl).sum() / weight.sum())


@claim(
    r"q(x_{t-1} \mid x_t) = \int q(x_{t-1} \mid x_t, x_0)\, q(x_0 \mid x_t)\, dx_0"
    r"\ \text{is not Gaussian, but tends to one as } \beta_t \to 0",
    source="[DPM] section 2.2", of=posterior_mean, against="quadrature of Bayes' rule for a mixture of two", bound=1.0,
    examples=1,
)  # fmt: skip
def without_x0_the_reverse_step_is_not_gaussian_until_beta_is_small() -> float:
    """Its divergence from the Gaussian of its own mean and variance is above 0.02 nats at beta = 0.5, and falls by more
    than four for each quartering of beta. The error is the largest of the ratios that must be below 1."""
    divergence = [_reverse_step_nongaussianity(0.5 / 4**i) for i in range(4)]
    falls = [4 * b / a for a, b in pairwise(divergence[1:])]
    return max(0.02 / divergence[0], *falls, divergence[1] / divergence[0])


@claim(
    r"\nabla_{x_t} \log q(x_t \mid x_0) = -\epsilon / \sqrt{1 - \bar\alpha_t}",
    source="[ADM] eq. 11", of=score_from_eps, against="a complex step through the log density", bound=1e-13, case=with_step,
    seed=seeds(),
)  # fmt: skip
def the_score_is_minus_eps_over_sigma(case: tuple[Schedule, int], seed: int) -> float:
    """The derivative of log N(x_t; sqrt(abar_t) x_0, 1 - abar_t) at the x_t made of x_0 and eps."""
    schedule, t = case
    x0, eps = np.random.default_rng(seed).standard_normal((2, 20))
    x_t = q_sample(schedule, x0, t, eps)
    mean, variance = q_moments(schedule, x0, t)
    derivative = (-0.5 * (x_t + 1e-30j - mean) ** 2 / variance).imag / 1e-30
    scale = (np.abs(x_t) + np.abs(mean)) / variance
    return relative_error(score_from_eps(schedule, x_t, t, eps), derivative, scale)


@claim(
    r"\epsilon,\ x_0,\ v,\ \nabla\log q,\ \tilde\mu\ \text{say the same of } x_t",
    source="[PD] appendix D", of=convert, against="each kind made from x_0 and eps directly", bound=1e-13, case=with_step,
    source_kind=st.sampled_from(PREDICTIONS), target_kind=st.sampled_from(PREDICTIONS), seed=seeds(), examples=80,
)  # fmt: skip
def every_prediction_converts_into_every_other(
    case: tuple[Schedule, int], source_kind: str, target_kind: str, seed: int
) -> float:
    """All twenty conversions; the error is relative to the amplification that dividing by a small coefficient must bring."""
    schedule, t = case
    x0, eps = np.random.default_rng(seed).standard_normal((2, 50))
    x_t = q_sample(schedule, x0, t, eps)
    given, expected = (target(schedule, kind, x0, eps, t) for kind in (source_kind, target_kind))
    actual = convert(schedule, x_t, t, given, source_kind, target_kind)
    # d target / d source, and d target / d x_t: what rounding the inputs does to the result.
    step = 1e-3
    by_given = (convert(schedule, x_t, t, given + step, source_kind, target_kind) - actual) / step
    by_x = (convert(schedule, x_t + step, t, given, source_kind, target_kind) - actual) / step
    scale = np.abs(expected) + np.abs(by_given) * np.abs(given) + np.abs(by_x) * np.abs(x_t)
    return relative_error(actual, expected, scale)


@claim(
    r"p(x_{t-1} \mid x_t, x_0) \to \delta(x_{t-1} - x_0)\ \text{at } t = 1",
    source="[DDPM] section 3.4", of=posterior_mean, against="the data themselves", bound=1e-15,
    schedule=schedules(terminal=True), seed=seeds(),
)  # fmt: skip
def at_t_1_the_posterior_is_the_data(schedule: Schedule, seed: int) -> float:
    """Mean x_0 and variance 0: which is why the last step adds no noise."""
    x_t, x0 = np.random.default_rng(seed).standard_normal((2, 30))
    return max(relative_error(posterior_mean(schedule, x_t, x0, 1), x0), float(posterior_variance(schedule, 1)))
