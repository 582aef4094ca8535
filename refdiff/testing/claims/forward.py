"""Claims about the forward process, [DDPM] section 2."""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np
from hypothesis import strategies as st

from ...process import (
    Schedule,
    constant,
    posterior_variance,
    q_between_moments,
    q_moments,
    q_sample,
    q_step,
    q_step_moments,
)  # fmt: skip
from ..claim import claim
from ..measures import exact_alpha_bar, gauss_hermite, normal_logpdf, relative_error, standard_errors
from ..strategies import pairs, schedules, seeds, steps

with_step: Any = schedules(respaced=False).flatmap(lambda s: st.tuples(st.just(s), steps(s)))
with_pair: Any = schedules(respaced=False).flatmap(lambda s: st.tuples(st.just(s), pairs(s)))
points: Any = st.floats(-3, 3)


@claim(
    r"q(x_t \mid x_{t-1}) = \mathcal N\big(\sqrt{\alpha_t}\, x_{t-1},\; \beta_t I\big)",
    source="[DDPM] eq. 2", of=q_step, against="Gauss-Hermite quadrature over eps", bound=1e-13,
    case=with_step, x=points,
)  # fmt: skip
def a_single_step_has_the_mean_and_variance_of_its_gaussian(case: tuple[Schedule, int], x: float) -> float:
    """Integrating q_step over its noise gives mean sqrt(1 - beta_t) x and variance beta_t; of small noise upon x rounding
    leaves a deviation that is off by a last digit of x."""
    schedule, t = case
    beta = float(schedule.beta[t])

    def step(eps: np.ndarray) -> np.ndarray:
        return q_step(schedule, np.full_like(eps, x), t, eps)

    mean = gauss_hermite(step)
    second = gauss_hermite(lambda eps: (step(eps) - mean) ** 2)
    return max(
        relative_error(mean, np.sqrt(1 - beta) * x, scale=[x, 1]),
        relative_error(second, beta, scale=[beta, 0.1 * x * np.sqrt(beta)]),
    )


@claim(
    r"q(x_{1:T} \mid x_0) = \prod_{t=1}^T q(x_t \mid x_{t-1})",
    source="[DDPM] eq. 2", of=q_step_moments, against="the joint Gaussian's covariance matrix and its determinant",
    bound=1e-11, schedule=schedules(max_T=6), seed=seeds(),
)  # fmt: skip
def the_path_density_is_the_product_of_its_steps(schedule: Schedule, seed: int) -> float:
    """The sum of the steps' log densities is that of one Gaussian, Cov(x_i, x_j) = sqrt(abar_j / abar_i) (1 - abar_i).

    A last digit of each x counts as many deviations of its step as it is."""
    T, rng = schedule.T, np.random.default_rng(seed)
    x = np.empty(T + 1)
    x[0] = rng.standard_normal()
    total = 0.0
    for t in range(1, T + 1):
        x[t] = q_step(schedule, x[t - 1 : t], t, rng.standard_normal(1))[0]
        mean, variance = q_step_moments(schedule, x[t - 1 : t], t)
        total += float(normal_logpdf(x[t], mean[0], variance))
    log_abar = np.cumsum(np.log1p(-schedule.beta[1:]))
    abar, one_minus = np.exp(log_abar), -np.expm1(log_abar)
    low = np.minimum.outer(np.arange(T), np.arange(T))
    high = np.maximum.outer(np.arange(T), np.arange(T))
    covariance = np.sqrt(abar[high] / abar[low]) * one_minus[low]
    rest = x[1:] - np.sqrt(abar) * x[0]
    _, logdet = np.linalg.slogdet(2 * np.pi * covariance)
    joint = -0.5 * (rest @ np.linalg.solve(covariance, rest) + logdet)
    digits = 1e-4 * (np.abs(x[1:]) / np.sqrt(schedule.beta[1:])).sum()
    return relative_error(
        total, joint, scale=[joint, T * np.abs(np.log(np.linalg.eigvalsh(covariance))).max(), 1, digits]
    )


@claim(
    r"\alpha_t (1 - \alpha_{t-1}) + 1 - \alpha_t = 1 - \alpha_t \alpha_{t-1}",
    source="[DDPM] section 2", of=q_between_moments, against="50-digit arithmetic", bound=1e-14,
    case=schedules(max_T=200, respaced=False)
    .filter(lambda s: s.T > 1)
    .flatmap(lambda s: st.tuples(st.just(s), steps(s, first=2))),
)  # fmt: skip
def merging_two_steps_adds_their_noise(case: tuple[Schedule, int]) -> float:
    """The noise of step t-1, scaled by sqrt(alpha_t), and that of step t are together the noise of both at once."""
    schedule, t = case
    with mpmath.workdps(50):
        a, b = (1 - mpmath.mpf(float(schedule.beta[i])) for i in (t, t - 1))
        together = float(a * (1 - b) + 1 - a)
    _, variance = q_between_moments(schedule, np.ones(1), t - 2, t)
    return relative_error(variance, together)


@claim(
    r"q(x_t \mid x_k) = \mathcal N\big(\sqrt{\bar\alpha_t/\bar\alpha_k}\, x_k,\; (1 - \bar\alpha_t/\bar\alpha_k) I\big)",
    source="[VDM] appendix A", of=q_between_moments, against="50-digit arithmetic", bound=1e-14, case=with_pair,
)  # fmt: skip
def from_k_to_t_is_the_product_of_the_steps_between(case: tuple[Schedule, tuple[int, int]]) -> float:
    """Both coefficients, for every k <= t, even where alpha_bar_t / alpha_bar_k is all but 1."""
    schedule, (k, t) = case
    ratio = exact_alpha_bar(schedule.beta, k, t)
    mean, variance = q_between_moments(schedule, np.ones(1), k, t)
    with mpmath.workdps(50):
        expected = float(mpmath.sqrt(ratio)), float(1 - ratio)
    return max(relative_error(mean[0], expected[0]), relative_error(variance, expected[1]))


@claim(
    r"q(x_t \mid x_0) = \mathcal N\big(\sqrt{\bar\alpha_t}\, x_0,\; (1 - \bar\alpha_t) I\big)",
    source="[DDPM] eq. 4", of=q_moments, against="t single steps, moment by moment", bound=1e-13, case=with_step,
    x=points,
)  # fmt: skip
def the_closed_form_equals_t_single_steps(case: tuple[Schedule, int], x: float) -> float:
    """Mean and variance carried from step to step: m <- sqrt(alpha) m, v <- alpha v + beta."""
    schedule, t = case
    mean, variance = np.array([x]), 0.0
    for s in range(1, t + 1):
        mean, beta = q_step_moments(schedule, mean, s)
        variance = (1 - beta) * variance + beta
    closed_mean, closed_variance = q_moments(schedule, np.array([x]), t)
    return max(relative_error(closed_mean, mean), relative_error(closed_variance, variance))


@claim(
    r"x_t = \sqrt{\bar\alpha_t}\, x_0 + \sqrt{1 - \bar\alpha_t}\, \epsilon",
    source="[DDPM] eq. 4", of=q_sample, against="Monte Carlo over t single steps, in standard errors", bound=5.0,
    examples=6, case=schedules(max_T=20).flatmap(lambda s: st.tuples(st.just(s), steps(s))), seed=seeds(),
)  # fmt: skip
def sampled_steps_have_the_moments_of_the_closed_form(case: tuple[Schedule, int], seed: int) -> float:
    """20,000 walks of t noisy steps: their mean and their spread are those of q(x_t | x_0)."""
    schedule, t = case
    rng = np.random.default_rng(seed)
    x = np.full(20_000, 0.7)
    for s in range(1, t + 1):
        x = q_step(schedule, x, s, rng.standard_normal(len(x)))
    mean, variance = q_moments(schedule, np.array([0.7]), t)
    return max(standard_errors(x, mean[0]), standard_errors((x - mean[0]) ** 2, variance))


@claim(
    r"\beta_t = \beta \implies \bar\alpha_t = \alpha^t",
    source="[DDPM] section 2", of=constant, against="50-digit arithmetic", bound=1e-14,
    T=st.integers(1, 1000), beta=st.floats(1e-5, 0.02),
)  # fmt: skip
def constant_beta_makes_alpha_bar_a_power(T: int, beta: float) -> float:
    """alpha_bar_T = (1 - beta)^T."""
    with mpmath.workdps(50):
        power = (1 - mpmath.mpf(beta)) ** T
        expected = float(power), float(1 - power)
    schedule = constant(T, beta)
    return max(
        relative_error(schedule.alpha_bar[T], expected[0]), relative_error(schedule.one_minus_alpha_bar[T], expected[1])
    )


@claim(
    r"x = \mu + \sigma\epsilon,\ \epsilon \sim \mathcal N(0, I) \iff x \sim \mathcal N(\mu, \sigma^2 I)",
    source="[VAE] section 2.4", of=q_sample, against="the characteristic function, by quadrature", bound=1e-13,
    case=with_step, x=points, frequency=st.floats(0.1, 2),
)  # fmt: skip
def the_reparameterised_sample_has_the_gaussians_characteristic_function(
    case: tuple[Schedule, int], x: float, frequency: float
) -> float:
    """E[exp(i w x_t)] = exp(i w mu - w^2 sigma^2 / 2)."""
    schedule, t = case
    mean, variance = q_moments(schedule, np.array([x]), t)
    waves = gauss_hermite(lambda e: np.exp(1j * frequency * q_sample(schedule, np.full_like(e, x), t, e)))
    expected = np.exp(1j * frequency * mean[0] - frequency**2 * variance / 2)
    return relative_error([waves.real, waves.imag], [expected.real, expected.imag], scale=1)


@claim(
    r"\nabla_\mu\, \mathbb E[f(x)] = \mathbb E\big[f'(\mu + \sigma\epsilon)\big]"
    r" = \mathbb E\big[f(x)\,(x - \mu)/\sigma^2\big]",
    source="[VAE] section 2.4", of=q_sample, against="the derivative of E[sin x] = sin(mu) exp(-sigma^2 / 2)", bound=1e-11,
    case=with_step, x=points,
)  # fmt: skip
def pathwise_and_score_function_gradients_agree_in_expectation(case: tuple[Schedule, int], x: float) -> float:
    """For f = sin both equal cos(mu) exp(-sigma^2 / 2); the second divides by sigma, so its error is taken times sigma."""
    schedule, t = case
    mean, variance = q_moments(schedule, np.array([x]), t)
    expected = np.cos(mean[0]) * np.exp(-variance / 2)

    def x_t(eps: np.ndarray) -> np.ndarray:
        return q_sample(schedule, np.full_like(eps, x), t, eps)

    pathwise = gauss_hermite(lambda eps: np.cos(x_t(eps)))
    score = gauss_hermite(lambda eps: np.sin(x_t(eps)) * eps) / np.sqrt(variance)
    return max(
        relative_error(pathwise, expected, scale=1), relative_error(score, expected, scale=1) * np.sqrt(variance)
    )


@claim(
    r"\tilde\beta_t \le \beta_t",
    source="[DDPM] section 3.2", of=posterior_variance, against="50-digit arithmetic", bound=1e-14, case=with_step,
)  # fmt: skip
def knowing_the_data_never_widens_a_reverse_step(case: tuple[Schedule, int]) -> float:
    """beta_tilde_t / beta_t = (1 - abar_{t-1}) / (1 - abar_t), which is at most 1."""
    schedule, t = case
    with mpmath.workdps(50):
        before, now = (1 - exact_alpha_bar(schedule.beta, 0, s) for s in (t - 1, t))
        ratio = float(before / now)
    actual = float(posterior_variance(schedule, t) / schedule.beta[t])
    return relative_error(actual, ratio, scale=1) if actual <= 1 else np.inf
