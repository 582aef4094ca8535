"""Claims about the flow, and about the published samplers: each run held against its paper's own lines and coordinates."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ...process import (
    GaussianMixture,
    Schedule,
    classifier_guidance,
    ddim,
    dpmpp_2m,
    dpmpp_2s,
    euler,
    final,
    flow_log_likelihood,
    heun,
    predictor,
)  # fmt: skip
from ..claim import claim
from ..measures import relative_error, standard_errors
from ..orders import even_log_sigma
from ..strategies import schedules, seeds, timesteps

with_run: Any = schedules(max_T=60).flatmap(lambda s: st.tuples(st.just(s), timesteps(s)))
Denoise = Callable[[np.ndarray, int], np.ndarray]


def _mixture(seed: int, D: int = 2, K: int = 2) -> GaussianMixture:
    rng = np.random.default_rng(seed)
    roots = 0.5 * rng.standard_normal((K, D, D))
    weights = rng.uniform(0.2, 1, K)
    return GaussianMixture(
        weights / weights.sum(), rng.standard_normal((K, D)), roots @ roots.swapaxes(1, 2) + 0.1 * np.eye(D)
    )


@claim(
    r"d\bar x = \epsilon_\theta\, d\sigma \iff \partial_\sigma\, p(\bar x; \sigma) = -\nabla \cdot"
    r" \big(p(\bar x; \sigma)\, \hat\epsilon\big),\quad \bar x = \frac{x}{\sqrt{\bar\alpha}},\ \sigma^2 ="
    r" \frac{1 - \bar\alpha}{\bar\alpha}",
    source="[DDIM] eq. 14, [SDE] eq. 13, section 4.3", of=euler, against="the density of a mixture, by Liouville's equation",
    bound=1e-7, seed=seeds(), sigma=st.floats(0.1, 20), examples=15,
)  # fmt: skip
def the_flow_carries_the_density_of_the_data_along(seed: int, sigma: float) -> float:
    """The velocity is what a short step of Euler's does, divided by its length; both sides by central differences of fourth
    order, in units of their size. A flow that moved the points otherwise, such as by the whole score, would not do."""
    data, h = _mixture(seed), 1e-3
    at = sigma * (1 + h * np.arange(-2, 3))
    schedule = _through(at)
    rng = np.random.default_rng(seed)
    y = data.sample(12, seed) + sigma * rng.standard_normal((12, 2))

    def density(y: np.ndarray, t: int) -> np.ndarray:
        a = np.sqrt(schedule.alpha_bar[t])
        return np.exp(data.log_density(schedule, a * y, t)) * a**2

    def current(y: np.ndarray) -> np.ndarray:
        """p times the velocity at sigma, the middle of the five."""
        x = np.sqrt(schedule.alpha_bar[3]) * y
        s, stepped = next(iter(euler(schedule, predictor(schedule, partial(data.eps, schedule)), x, [2, 3])))
        velocity = (stepped / np.sqrt(schedule.alpha_bar[s]) - y) / (at[1] - at[2])
        return density(y, 3)[:, None] * velocity

    weights = np.array([1, -8, 0, 8, -1]) / 12
    change = sum(w * density(y, t) for t, w in enumerate(weights, 1)) / (h * sigma)
    step = 2e-3 * (1 + sigma)
    inflow = 0.0
    for i in range(2):
        unit = np.eye(2)[i]
        inflow = (
            inflow
            - sum(w * current(y + k * step * unit)[:, i] for k, w in zip(range(-2, 3), weights, strict=True)) / step
        )
    return relative_error(change, inflow, density(y, 3) / sigma)


def _through(sigma: np.ndarray) -> Schedule:
    """The schedule whose sigma are these."""
    from ...process import from_alpha_bar

    return from_alpha_bar(np.append(1.0, 1 / (1 + sigma**2)))


@claim(
    r"\nabla \cdot f = \mathbb E\big[e^\top (\nabla f)\, e\big],\quad \mathbb E[e] = 0,\ \mathrm{Cov}(e) = I",
    source="[SDE] eq. 40", of=flow_log_likelihood, against="the exact divergence", bound=1e-6, seed=seeds(),
    normal=st.booleans(), examples=2,
)  # fmt: skip
def random_directions_give_the_likelihood_on_average(seed: int, normal: bool) -> float:
    """Directions at right angles, turned at random, of length sqrt(D), have that mean exactly, so D of them leave no error;
    100 estimates of one random direction each have it within 5 standard errors. D = 3, 64 steps."""
    data, schedule, rng = _mixture(seed, D=3), even_log_sigma(65, 0.03, 10.0), np.random.default_rng(seed)
    predict, x0 = predictor(schedule, partial(data.eps, schedule)), data.sample(1, seed)
    turned, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    probes = rng.standard_normal((1, 100, 3)) if normal else rng.choice([-1.0, 1.0], (1, 100, 3))
    exact, of_frame = (
        flow_log_likelihood(schedule, predict, x0, range(1, 66), e) for e in (None, 3**0.5 * turned[:, None])
    )
    many = flow_log_likelihood(schedule, predict, np.repeat(x0, 100, axis=0), range(1, 66), probes)
    return float(np.abs(of_frame - exact).max()) if standard_errors(many, exact) <= 5 else np.inf


# --- the algorithms, in their papers' notation ---


def _edm_heun(D: Denoise, x: np.ndarray, sigma: list[float]) -> np.ndarray:
    """Algorithm 1 with s(t) = 1 and sigma(t) = t: d_i = (x_i - D(x_i; t_i)) / t_i, and a mean of two slopes unless t = 0."""
    for i, (now, to) in enumerate(pairwise(sigma)):
        d = (x - D(x, i)) / now
        ahead = x + (to - now) * d
        if to:
            d = d / 2 + (ahead - D(ahead, i + 1)) / (2 * to)
        x = x + (to - now) * d
    return x


def _dpmpp_2m(D: Denoise, x: np.ndarray, a: list[float], s: list[float]) -> np.ndarray:
    """Algorithm 2, of indices 0 .. M: r_i = h_{i-1} / h_i, the first step and the last, to sigma = 0, of first order."""
    lam = [math.log(p / q) if q else math.inf for p, q in zip(a, s, strict=True)]
    old = x
    for i in range(1, len(a)):
        h, guess = lam[i] - lam[i - 1], D(x, i - 1)
        d = guess
        if 1 < i < len(a) - 1:
            r = (lam[i - 1] - lam[i - 2]) / h
            d = (1 + 1 / (2 * r)) * guess - 1 / (2 * r) * old
        x, old = s[i] / s[i - 1] * x - a[i] * (math.exp(-h) - 1) * d, guess
    return x


@claim(
    r"d_i = \frac{x_i - D(x_i; \sigma_i)}{\sigma_i},\quad x_{i+1} = x_i + (\sigma_{i+1} - \sigma_i)\, \tfrac12 (d_i + d_i')",
    source="[EDM] algorithm 1", of=heun, against="the paper's lines in its own coordinates, x / sqrt(alpha_bar)",
    bound=1e-11, case=with_run, seed=seeds(),
)  # fmt: skip
def heuns_sampler_is_algorithm_1_of_its_paper(case: tuple[Schedule, Any], seed: int) -> float:
    """Over any schedule and any of its steps, with the perfect denoiser of a mixture."""
    schedule, chosen = case
    data, x = _mixture(seed), np.random.default_rng(seed).standard_normal((5, 2))
    t = [*reversed(chosen.tolist()), 0]
    a = [math.sqrt(schedule.alpha_bar[i]) for i in t]
    sigma = [math.sqrt(schedule.one_minus_alpha_bar[i] / schedule.alpha_bar[i]) for i in t]
    expected = _edm_heun(lambda y, i: data.x0(schedule, a[i] * y, t[i]), x / a[0], sigma)
    return _end(heun, schedule, data, x, chosen, expected)


@claim(
    r"D_i = \Big(1 + \frac{1}{2 r_i}\Big) x_\theta(\tilde x_{t_{i-1}}) - \frac{1}{2 r_i}\, x_\theta(\tilde x_{t_{i-2}}),"
    r"\quad \tilde x_{t_i} = \frac{\sigma_{t_i}}{\sigma_{t_{i-1}}} \tilde x_{t_{i-1}} - \alpha_{t_i} (e^{-h_i} - 1)\, D_i",
    source="[DPMpp] algorithm 2", of=dpmpp_2m, against="the paper's lines", bound=1e-11, case=with_run, seed=seeds(),
)  # fmt: skip
def dpm_solver_2m_is_algorithm_2_of_its_paper(case: tuple[Schedule, Any], seed: int) -> float:
    """Over any schedule and any of its steps; to sigma = 0, where h is infinite, the step is of first order."""
    schedule, chosen = case
    data, x = _mixture(seed), np.random.default_rng(seed).standard_normal((5, 2))
    t = [*reversed(chosen.tolist()), 0]
    a, s = ([math.sqrt(v[i]) for i in t] for v in (schedule.alpha_bar, schedule.one_minus_alpha_bar))
    expected = _dpmpp_2m(lambda x, i: data.x0(schedule, x, t[i]), x, a, s)
    return _end(dpmpp_2m, schedule, data, x, chosen, expected)


@claim(
    r"u = \frac{\sigma_{s}}{\sigma_{t}} x - \alpha_{s} (e^{-r h} - 1)\, x_\theta(x, t),\quad D = \Big(1 - \frac{1}{2r}\Big)"
    r" x_\theta(x, t) + \frac{1}{2r}\, x_\theta(u, s)",
    source="[DPMpp] algorithm 1", of=dpmpp_2s, against="the paper's lines, r = 1/2", bound=1e-11, seed=seeds(),
    n=st.integers(2, 12),
)  # fmt: skip
def dpm_solver_2s_is_algorithm_1_of_its_paper(seed: int, n: int) -> float:
    """Steps even in lambda, every other one a middle, so that r is the paper's 1/2."""
    schedule = even_log_sigma(2 * n + 1, 0.05, 20.0)
    data, x = _mixture(seed), np.random.default_rng(seed).standard_normal((5, 2))
    a, s = np.sqrt(schedule.alpha_bar).tolist(), np.sqrt(schedule.one_minus_alpha_bar).tolist()
    chosen, y, r = np.arange(1, 2 * n + 2, 2), x, 0.5
    for t in range(2 * n + 1, 1, -2):
        h = math.log(a[t - 2] / s[t - 2]) - math.log(a[t] / s[t])
        guess = data.x0(schedule, y, t)
        u = s[t - 1] / s[t] * y - a[t - 1] * (math.exp(-r * h) - 1) * guess
        d = (1 - 1 / (2 * r)) * guess + 1 / (2 * r) * data.x0(schedule, u, t - 1)
        y = s[t - 2] / s[t] * y - a[t - 2] * (math.exp(-h) - 1) * d
    return _end(dpmpp_2s, schedule, data, x, chosen, data.x0(schedule, y, 1))


@claim(
    r"\hat\epsilon \leftarrow \epsilon_\theta(x_t) - s \sqrt{1 - \bar\alpha_t}\, \nabla_{x_t} \log p_\phi(y \mid x_t),\quad"
    r" x_{t-1} \leftarrow \sqrt{\bar\alpha_{t-1}}\, \frac{x_t - \sqrt{1 - \bar\alpha_t}\, \hat\epsilon}{\sqrt{\bar\alpha_t}}"
    r" + \sqrt{1 - \bar\alpha_{t-1}}\, \hat\epsilon",
    source="[ADM] algorithm 2", of=classifier_guidance, against="the run of the perfect denoiser of the class alone",
    bound=1e-11, case=with_run, seed=seeds(),
)  # fmt: skip
def a_run_guided_by_a_perfect_classifier_is_a_run_of_the_class(case: tuple[Schedule, Any], seed: int) -> float:
    """DDIM without noise, scale 1: the gradient of log p(y | x_t) is by Bayes that of the two densities apart, and guidance
    puts it back; a scale of 0 leaves the run of both classes."""
    schedule, chosen = case
    both = _mixture(seed)
    one = GaussianMixture(np.ones(1), both.means[:1], both.covariances[:1])
    x = np.random.default_rng(seed).standard_normal((5, 2))

    def guided(scale: float) -> Callable[[np.ndarray, Any], np.ndarray]:
        def model(x: np.ndarray, t: Any) -> np.ndarray:
            dlog_p = one.score(schedule, x, t) - both.score(schedule, x, t)
            return classifier_guidance(schedule, x, t, both.eps(schedule, x, t), dlog_p, scale)

        return model

    ends = [final(ddim(schedule, predictor(schedule, guided(scale)), x, chosen)) for scale in (1.0, 0.0)]
    expected = [final(ddim(schedule, predictor(schedule, partial(d.eps, schedule)), x, chosen)) for d in (one, both)]
    return relative_error(ends, expected, scale=np.abs(expected) + np.abs(x) / np.sqrt(schedule.alpha_bar[chosen[-1]]))


def _end(
    solver: Any, schedule: Schedule, data: GaussianMixture, x: np.ndarray, chosen: Any, expected: np.ndarray
) -> float:
    """How far the run ends from what is expected, in units of the noise that it began with as that is in y = x / a."""
    actual = final(solver(schedule, predictor(schedule, partial(data.eps, schedule)), x, chosen))
    return relative_error(actual, expected, np.abs(expected) + np.abs(x) / np.sqrt(schedule.alpha_bar[chosen[-1]]))
