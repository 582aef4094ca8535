"""Claims about Gaussian-mixture data, for which the perfect denoiser, log p(x) and the bound are known."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import mpmath
import numpy as np
from hypothesis import strategies as st

from ...process import (
    SCHEDULES,
    GaussianMixture,
    Schedule,
    constant,
    posterior_log_variance,
    q_sample,
    step_variance,
)
from ...random import Key, normal
from ..claim import claim
from ..measures import exact_alpha_bar, normal_logpdf, relative_error, standard_errors
from ..strategies import schedules, seeds, steps

with_step: Any = schedules(respaced=False).flatmap(lambda s: st.tuples(st.just(s), steps(s)))


def _mixture(seed: int, D: int, K: int | None = None) -> GaussianMixture:
    """Of up to three components with full covariances, eigenvalues from 0.05 on."""
    rng = np.random.default_rng(seed)
    K = K or int(rng.integers(1, 4))
    roots = 0.4 * rng.standard_normal((K, D, D))
    weights = 0.9 * rng.dirichlet(np.full(K, 5.0)) + 0.1 / K
    return GaussianMixture(weights, rng.standard_normal((K, D)), roots @ roots.swapaxes(1, 2) + 0.05 * np.eye(D))


def _log_normal(x: Any, mean: np.ndarray, covariance: np.ndarray) -> Any:
    """log N(x; mean, covariance) of one point in mpmath."""
    spread, away = mpmath.matrix(covariance.tolist()), mpmath.matrix(list(x - mean))
    power = (away.T * mpmath.lu_solve(spread, away))[0]
    return -(power + mpmath.log(mpmath.det(2 * mpmath.pi * spread))) / 2


def _log_q(data: GaussianMixture, schedule: Schedule, t: int, x: np.ndarray) -> Any:
    """log q(x_t) of one point x (D,) of mpf, by solving and by determinants; mpmath.mpf."""
    abar = exact_alpha_bar(schedule.beta, 0, t)
    exact = np.frompyfunc(mpmath.mpf, 1, 1)
    spreads = abar * exact(data.covariances) + (1 - abar) * np.eye(len(x), dtype=int)
    means = mpmath.sqrt(abar) * exact(data.means)
    terms = zip(data.weights.tolist(), means, spreads, strict=True)
    return mpmath.log(mpmath.fsum(w * mpmath.exp(_log_normal(x, m, s)) for w, m, s in terms))


@claim(
    r"q(x_t) = \sum_k w_k\, \mathcal N\big(x_t;\ \sqrt{\bar\alpha_t}\, m_k,\ \bar\alpha_t C_k + (1 - \bar\alpha_t) I\big)",
    source="[DDPM] eq. 4", of=GaussianMixture.log_density, against="50-digit arithmetic", bound=1e-13, case=with_step,
    seed=seeds(), D=st.integers(1, 3),
)  # fmt: skip
def the_log_density_of_a_mixture_is_its_formula(case: tuple[Schedule, int], seed: int, D: int) -> float:
    """At a point about where x_t lies; relative to 1 + |log q|."""
    (schedule, t), data = case, _mixture(seed, D)
    x = 1.5 * np.random.default_rng(seed).standard_normal(D)
    with mpmath.workdps(50):
        expected = float(_log_q(data, schedule, t, x))
    return relative_error(data.log_density(schedule, x[None], t), [expected], scale=1 + abs(expected))


@claim(
    r"\int q(x_t)\, dx_t = 1",
    source="[DDPM] eq. 4", of=GaussianMixture.log_density, against="the trapezoid rule in the plane", bound=1e-9,
    case=with_step, seed=seeds(), examples=10,
)  # fmt: skip
def the_density_of_a_mixture_integrates_to_one(case: tuple[Schedule, int], seed: int) -> float:
    """At every t, over ten standard deviations beyond the means."""
    (schedule, t), data = case, _mixture(seed, 2)
    reach = np.abs(data.means).max() + 10 * np.sqrt(max(1.0, np.linalg.eigvalsh(data.covariances).max()))
    line, width = np.linspace(-reach, reach, 281, retstep=True)
    grid = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    return abs(float(np.exp(data.log_density(schedule, grid, t)).sum() * width**2) - 1)


@claim(
    r"\nabla \log q(x_t) = -\sum_k r_k\, S_k^{-1} \big(x_t - \sqrt{\bar\alpha_t}\, m_k\big)",
    source="[ADM] eq. 11", of=GaussianMixture.score, against="central differences of log q in 50-digit arithmetic",
    bound=1e-12, case=with_step, seed=seeds(), examples=15,
)  # fmt: skip
def the_score_of_a_mixture_is_the_gradient_of_its_log_density(case: tuple[Schedule, int], seed: int) -> float:
    """Steps of 1e-15, so the differences are right to 1e-30; and eps = -sqrt(1 - abar_t) score."""
    (schedule, t), data = case, _mixture(seed, 2)
    x, h = 1.5 * np.random.default_rng(seed).standard_normal(2), mpmath.mpf("1e-15")
    with mpmath.workdps(50):
        exact = np.frompyfunc(mpmath.mpf, 1, 1)(x)
        axes = [np.array([h, 0 * h]), np.array([0 * h, h])]
        up_down = [(_log_q(data, schedule, t, exact + e), _log_q(data, schedule, t, exact - e)) for e in axes]
        expected = np.array([float((up - down) / (2 * h)) for up, down in up_down])
        deviation = float(mpmath.sqrt(1 - exact_alpha_bar(schedule.beta, 0, t)))
    score = relative_error(data.score(schedule, x[None], t)[0], expected, scale=[1, *expected])
    return max(score, relative_error(data.eps(schedule, x[None], t)[0], -deviation * expected, scale=[1, *expected]))


@claim(
    r"\nabla \log p(y \mid x_t) = \nabla \log \frac{\sum_{k \in y} w_k\, q_k(x_t)}{\sum_k w_k\, q_k(x_t)}",
    source="[ADM] eq. 14", of=GaussianMixture.dlog_posterior,
    against="central differences of log p(y | x_t) in 50-digit arithmetic", bound=1e-12, case=with_step, seed=seeds(),
    examples=15,
)  # fmt: skip
def the_exact_classifier_of_a_mixture_has_this_gradient(case: tuple[Schedule, int], seed: int) -> float:
    """Of a class of two components of three; and log p(y | x_t) itself, and the mixture of the class alone."""
    (schedule, t), data, y = case, _mixture(seed, 2, 3), (0, 2)
    x, h, own = 1.5 * np.random.default_rng(seed).standard_normal(2), mpmath.mpf("1e-15"), data.only(y)
    prior = data.weights[0] + data.weights[2]
    with mpmath.workdps(50):
        exact = np.frompyfunc(mpmath.mpf, 1, 1)(x)
        axes = [np.array([h, 0 * h]), np.array([0 * h, h])]

        def log_p(x: np.ndarray) -> Any:
            return mpmath.log(prior) + _log_q(own, schedule, t, x) - _log_q(data, schedule, t, x)

        expected = np.array([float((log_p(exact + e) - log_p(exact - e)) / (2 * h)) for e in axes])
        value = float(log_p(exact))
    size = [1, *expected, *own.score(schedule, x[None], t)[0]]
    gradient = relative_error(data.dlog_posterior(schedule, x[None], t, y)[0], expected, scale=size)
    return max(gradient, relative_error(data.log_posterior(schedule, x[None], t, y), [value], scale=1 + abs(value)))


@claim(
    r"\mathbb E[x_0 \mid x_t] = \frac{x_t + (1 - \bar\alpha_t)\, \nabla \log q(x_t)}{\sqrt{\bar\alpha_t}}",
    source="[Tweedie] eq. 1.4", of=GaussianMixture.x0, against="the mean of x_0 given x_t, component by component",
    bound=1e-12, case=with_step, seed=seeds(), D=st.integers(1, 4),
)  # fmt: skip
def tweedies_formula_gives_the_mean_of_the_data(case: tuple[Schedule, int], seed: int, D: int) -> float:
    """Times sqrt(abar_t), and relative to the sizes of the terms: of pure noise, the formula subtracts x_t from x_t."""
    (schedule, t), data = case, _mixture(seed, D)
    x = 1.5 * np.random.default_rng(seed).standard_normal((20, D))
    a, s2 = np.sqrt(schedule.alpha_bar[t]), schedule.one_minus_alpha_bar[t]
    pull = s2 * data.score(schedule, x, t)
    return relative_error(a * data.x0(schedule, x, t), x + pull, scale=np.abs(x) + np.abs(pull))


@claim(
    r"\mathbb E[f(x_0) \mid x_t] = \frac{\int f(x_0)\, q(x_t \mid x_0)\, q(x_0)\, dx_0}"
    r"{\int q(x_t \mid x_0)\, q(x_0)\, dx_0}",
    source="[ADM] eq. 11", of=GaussianMixture.v, against="quadrature over the data", bound=1e-9, case=with_step,
    seed=seeds(), where=st.floats(-2, 2),
)  # fmt: skip
def the_perfect_denoisers_are_expectations_over_the_data(case: tuple[Schedule, int], seed: int, where: float) -> float:
    """x_0, v = sqrt(abar_t) eps - sqrt(1 - abar_t) x_0, and the variance of x_0, each expected given x_t."""
    (schedule, t), data = case, _mixture(seed, 1)
    a, s = np.sqrt(schedule.alpha_bar[t]), np.sqrt(schedule.one_minus_alpha_bar[t])
    x_t = np.array([[where]])
    low, high = -16.0, 16.0
    for _ in range(6):  # close in on where the product of the densities lies
        x0 = np.linspace(low, high, 4001)
        prior = np.log(np.maximum(_density_on_a_line(data, x0), 1e-300))
        log = prior - ((where - a * x0) / s) ** 2 / 2
        inside = x0[log > log.max() - 60]
        low, high = inside[0] - (x0[1] - x0[0]), inside[-1] + (x0[1] - x0[0])
    weight = np.exp(log - log.max())
    weight /= weight.sum()
    mean = weight @ x0
    actual = [f(schedule, x_t, t).item() for f in (data.x0, data.v, data.x0_error)]
    eps = (where - a * mean) / s
    return relative_error(
        actual, [mean, a * eps - s * mean, weight @ (x0 - mean) ** 2], scale=[1, mean, (abs(where) + a) / s]
    )


def _density_on_a_line(data: GaussianMixture, x: np.ndarray) -> np.ndarray:
    """q(x_0) for D = 1, from the formula.   (N,) -> (N,)"""
    parts = zip(data.weights, data.means[:, 0], data.covariances[:, 0, 0], strict=True)
    return np.sum([w * np.exp(normal_logpdf(x, m, c)) for w, m, c in parts], axis=0)


@claim(
    r"\mathbb E\big[(\epsilon - \hat\epsilon(x_t))\, g(x_t)\big] = 0 \quad\text{for every } g",
    source="[ADM] eq. 11", of=GaussianMixture.eps, against="Monte Carlo, in standard errors", bound=5.0, seed=seeds(),
    schedule=schedules(), examples=16,
)  # fmt: skip
def the_perfect_prediction_leaves_an_error_that_x_t_does_not_explain(schedule: Schedule, seed: int) -> float:
    """For g = 1, each coordinate, its sine and its square, on 4,000 samples, spread over all t."""
    data, n = _mixture(seed, 2), 4000
    t = 1 + np.arange(n) % schedule.T
    eps = normal(Key(seed)("eps"), np.arange(n), (2,), np.float64)
    x_t = q_sample(schedule, data.sample(n, seed), t, eps)
    g = np.concatenate([np.ones((n, 1)), x_t, np.sin(2 * x_t), x_t**2], axis=1)
    left = eps - data.eps(schedule, x_t, t)
    return standard_errors(left[:, :, None] * g[:, None, :], 0.0)


@claim(
    r"x_0 = m_k + C_k^{1/2} z,\quad k \sim w,\ z \sim \mathcal N(0, I)",
    source="[BoxMuller]", of=GaussianMixture.sample, against="the mixture's moments, in standard errors", bound=5.0,
    seed=seeds(), examples=8,
)  # fmt: skip
def samples_of_a_mixture_have_its_moments(seed: int) -> float:
    """First and second moments, and the third of each coordinate, of 4,000 samples."""
    data = _mixture(seed, 2)
    w, m, c = data.weights, data.means, data.covariances
    x = data.sample(4000, seed)
    second = np.einsum("k,kde->de", w, c + m[:, :, None] * m[:, None, :])
    third = w @ (m**3 + 3 * m * np.diagonal(c, axis1=1, axis2=2))
    return max(
        standard_errors(x, w @ m),
        standard_errors(x[:, :, None] * x[:, None, :], second),
        standard_errors(x**3, third),
    )


def _schedule(name: str, T: int) -> Schedule:
    """That schedule in T steps with as much noise in all for every T."""
    if name in ("cosine", "sigmoid"):
        return SCHEDULES[name](T)
    return (
        constant(T, 10 / T) if name == "constant" else SCHEDULES[name](T, 0.1 / T, (20 if name == "linear" else 40) / T)
    )


def _entropy(covariance: np.ndarray) -> float:
    """E[-log N(x; m, C)] = log det(2 pi e C) / 2."""
    return 0.5 * float(np.linalg.slogdet(2 * np.pi * np.e * covariance)[1])


@claim(
    r"\mathbb E[L_{\mathrm{vlb}}] - \mathbb E[-\log p(x_0)] = \mathrm{KL}\big(q(x_{0:T})\,\|\,p(x_{0:T})\big) \ge 0",
    source="[DDPM] eq. 3", of=GaussianMixture.bound, against="the KL of two joint Gaussians of all x_0 .. x_T", bound=1e-9,
    schedule=schedules(max_T=8), mean=st.floats(-2, 2), c=st.floats(0.05, 3), small=st.booleans(),
)  # fmt: skip
def the_gap_of_the_bound_is_the_divergence_of_whole_paths(
    schedule: Schedule, mean: float, c: float, small: bool
) -> float:
    """For one Gaussian everything is linear: both path measures are Gaussians, built here step by step."""
    T, data = schedule.T, GaussianMixture(np.ones(1), np.array([[mean]]), np.array([[[c]]]))

    def chosen(schedule: Schedule, t: Any) -> np.ndarray:
        return np.exp(posterior_log_variance(schedule, t)) if small else step_variance(schedule, t)

    variance = chosen(schedule, np.arange(1, T + 1))
    # q forwards: x_t = sqrt(alpha_t) x_{t-1} + noise. p backwards: x_{t-1} = slope x_t + offset + noise. As z = A x + b.
    q_rows, p_rows, q_shift, p_shift = np.eye(T + 1), np.eye(T + 1), np.zeros(T + 1), np.zeros(T + 1)
    q_rows[0, 0], q_shift[0] = 1 / np.sqrt(c), -mean / np.sqrt(c)
    for t in range(1, T + 1):
        beta = schedule.beta[t]
        q_rows[t, t - 1], q_rows[t, t] = -np.sqrt(schedule.alpha[t] / beta), 1 / np.sqrt(beta)
        a2, s2, before = schedule.alpha_bar[t], schedule.one_minus_alpha_bar[t], schedule.alpha_bar[t - 1]
        gain = np.sqrt(a2) * c / (a2 * c + s2)  # E[x_0 | x_t] = mean + gain (x_t - a mean)
        of_x0 = np.sqrt(before) * beta / s2
        of_xt = np.sqrt(schedule.alpha[t]) * schedule.one_minus_alpha_bar[t - 1] / s2
        slope, offset, sd = of_x0 * gain + of_xt, of_x0 * mean * (1 - gain * np.sqrt(a2)), np.sqrt(variance[t - 1])
        p_rows[t - 1, t - 1], p_rows[t - 1, t], p_shift[t - 1] = 1 / sd, -slope / sd, -offset / sd
    back = p_rows @ np.linalg.inv(q_rows)
    away = p_shift - back @ q_shift
    log_ratio = np.log(np.diag(q_rows)).sum() - np.log(np.diag(p_rows)).sum()
    kl = log_ratio + 0.5 * ((back**2).sum() + away @ away - (T + 1))
    gap = data.bound(schedule, chosen).sum() - _entropy(np.array([[c]]))
    return relative_error(gap, kl, scale=1 + (back**2).sum()) if gap >= -1e-12 else np.inf


@claim(
    r"\mathbb E[L_{\mathrm{vlb}}] \to \mathbb E[-\log p(x_0)] \quad\text{as } T \to \infty",
    source="[VDM] section 4", of=GaussianMixture.bound, against="the entropy, and half the gap at half as many steps",
    bound=1.0, seed=seeds(),
    kind=st.sampled_from(sorted(SCHEDULES)), examples=9,
)  # fmt: skip
def the_gap_of_the_bound_is_positive_and_falls_with_the_number_of_steps(seed: int, kind: str) -> float:
    """For one Gaussian in the plane, on every schedule with T = 100, 200, 400 and as much noise in all: twice the
    steps must take the gap to less than 0.6 of itself (half, as T grows), and leave it above 0. The error is the larger
    ratio over 0.6."""
    data = _mixture(seed, 2, K=1)
    gaps = [data.bound(_schedule(kind, T)).sum() - _entropy(data.covariances[0]) for T in (100, 200, 400)]
    return max(b / a for a, b in pairwise(gaps)) / 0.6 if min(gaps) > 0 else np.inf


@claim(
    r"q(x_0) = \mathcal N(0, I),\ \sigma_t^2 = \beta_t \implies \mathbb E[L_{\mathrm{vlb}}] = \mathbb E[-\log p(x_0)]",
    source="[DDPM] section 3.2", of=GaussianMixture.bound, against="the entropy D / 2 log(2 pi e)", bound=1e-13,
    schedule=schedules(max_T=100), D=st.integers(1, 4),
)  # fmt: skip
def for_standard_normal_data_the_bound_with_beta_is_tight(schedule: Schedule, D: int) -> float:
    """In any number of steps: beta_t is the variance of q(x_{t-1} | x_t) itself."""
    data = GaussianMixture(np.ones(1), np.zeros((1, D)), np.eye(D)[None])
    terms = data.bound(schedule)
    return relative_error(terms.sum(), D / 2 * np.log(2 * np.pi * np.e), scale=np.abs(terms))


@claim(
    r"L_{t-1} = \tfrac D2 \Big(\tfrac{\tilde\beta_t}{\sigma_t^2} - 1 - \log\tfrac{\tilde\beta_t}{\sigma_t^2}\Big)"
    r" + \frac{\bar\alpha_{t-1} \beta_t^2}{2 \sigma_t^2 (1 - \bar\alpha_t)^2}\, \mathbb E|x_0 - \hat x_0|^2",
    source="[DDPM] eq. 8", of=GaussianMixture.bound, against="quadrature over x_t, in standard errors", bound=5.0,
    seed=seeds(), schedule=schedules(max_T=40).filter(lambda s: s.beta[1] > 1e-4), examples=8,
)  # fmt: skip
def the_bound_of_a_mixture_is_that_of_quadrature_and_lies_above_the_entropy(schedule: Schedule, seed: int) -> float:
    """For two components on the line, the mean of 20 runs of 120 samples; infinite were the gap negative. (For smaller
    beta_1 the gap is below what quadrature can tell.)"""
    data, T = _mixture(seed, 1, K=2), schedule.T
    runs = np.array([data.bound(schedule, n=120, seed=seed + i) for i in range(20)])
    x, width = np.linspace(-12, 12, 4001, retstep=True)
    expected = runs[0].copy()
    for t in range(1, T + 1):
        beta, s2, before = schedule.beta[t], schedule.one_minus_alpha_bar[t], schedule.alpha_bar[t - 1]
        density = np.exp(data.log_density(schedule, x[:, None], t))
        error = width * density @ data.x0_error(schedule, x[:, None], t)
        weight = before * beta / (2 * s2**2)
        ratio = schedule.one_minus_alpha_bar[t - 1] / s2
        expected[t - 1] = weight * error + 0.5 * (ratio - 1 - np.log(ratio) if t > 1 else np.log(2 * np.pi * beta))
    q = _density_on_a_line(data, x)
    gap = expected.sum() + width * q @ np.log(np.maximum(q, 1e-300))
    return standard_errors(runs.sum(axis=1), expected.sum()) if gap > 0 else np.inf
