"""Claims about solvers: their orders of convergence, inversion, the likelihood of the flow, which steps to take."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ...process import (
    SCHEDULES,
    SPACINGS,
    GaussianMixture,
    Schedule,
    ancestral,
    ddim,
    ddim_inversion,
    dpmpp_2m,
    dpmpp_2s,
    euler,
    final,
    flow_log_likelihood,
    heun,
    karras_steps,
    predictor,
    rescale_zero_terminal_snr,
    trailing_steps,
)  # fmt: skip
from ..claim import claim
from ..measures import normal_logpdf
from ..orders import ODE_SOLVERS, PLANE, STOCHASTIC, even_log_sigma, order, solver_errors, weak_errors
from ..strategies import schedules, seeds, timesteps


def _off(errors: list[float], published: int) -> float:
    """How far the measured order is from the published one; NaN if the last error is nothing, or no better than none."""
    return abs(order(errors) - published) if 0 < errors[-1] < 0.1 else np.nan


def _order_of(name: str) -> float:
    solver, published = ODE_SOLVERS[name]
    return _off(solver_errors(solver, (64, 128)), published)


@claim(
    r"|x_0 - x_0^*| = O(n^{-1})",
    source="[DDIM] section 4.3", of=ddim, against="the exact flow of a mixture, by RK4", bound=0.2, examples=1,
)  # fmt: skip
def ddim_converges_with_order_1() -> float:
    """Steps even in lambda, 64 and then 128 of them; the error is the distance of the measured order from 1."""
    return _order_of("DDIM")


@claim(
    r"|x_0 - x_0^*| = O(n^{-1})",
    source="[DDIM] section 4.3", of=euler, against="the exact flow of a mixture, by RK4", bound=0.2, examples=1,
)  # fmt: skip
def eulers_method_converges_with_order_1() -> float:
    """Steps even in lambda, 64 and then 128 of them; the error is the distance of the measured order from 1."""
    return _order_of("Euler")


@claim(
    r"|x_0 - x_0^*| = O(n^{-2})",
    source="[EDM] section 3", of=heun, against="the exact flow of a mixture, by RK4", bound=0.2, examples=1,
)  # fmt: skip
def heuns_method_converges_with_order_2() -> float:
    """Steps even in lambda, 64 and then 128 of them; the error is the distance of the measured order from 2."""
    return _order_of("Heun")


@claim(
    r"|x_0 - x_0^*| = O(n^{-2})",
    source="[DPMpp] section 4.2", of=dpmpp_2m, against="the exact flow of a mixture, by RK4", bound=0.2, examples=1,
)  # fmt: skip
def dpm_solver_2m_converges_with_order_2() -> float:
    """Steps even in lambda, 64 and then 128 of them; the error is the distance of the measured order from 2."""
    return _order_of("DPM-Solver++ 2M")


@claim(
    r"|x_0 - x_0^*| = O(n^{-2})",
    source="[DPMpp] section 4.1", of=dpmpp_2s, against="the exact flow of a mixture, by RK4", bound=0.2, examples=1,
)  # fmt: skip
def dpm_solver_2s_converges_with_order_2() -> float:
    """Steps even in lambda, 64 and then 128 of them; the error is the distance of the measured order from 2."""
    return _order_of("DPM-Solver++ 2S")


@claim(
    r"x_0 \to x_T \to x_0 + O(n^{-1})",
    source="[DDIM] section 4.3", of=ddim_inversion, against="the exact flow of a mixture, and the x_0 it began with",
    bound=0.2, examples=1,
)  # fmt: skip
def ddim_without_noise_is_deterministic_and_inverts() -> float:
    """Up and down again with 64 and 128 steps: the distance of the order of the round trip from 1, or of the way up."""
    schedule = even_log_sigma()
    predict, x0 = predictor(schedule, partial(PLANE.eps, schedule)), PLANE.sample(64)
    errors = []
    for gap in (16, 8):
        chosen = range(1, schedule.T + 1, gap)
        x_T = final(ddim_inversion(schedule, predict, x0, chosen))
        back, again = (final(ddim(schedule, predict, x_T, chosen)) for _ in range(2))
        if not np.array_equal(back, again):
            return np.inf
        errors.append(float(np.sqrt(((back - x0) ** 2).mean())))
    return max(_off(errors, 1), _order_of("DDIM inversion"))


@claim(
    r"|\mathbb E f(x_0) - \mathbb E f(x_0^*)| = O(n^{-1})",
    source="[SDE] section 3.3", of=ancestral, against="expectations of a mixture, by quadrature", bound=0.2, examples=1,
)  # fmt: skip
def stochastic_samplers_converge_in_distribution_with_order_1() -> float:
    """Ancestral with both variances, DDIM with eta = 0.5 and Euler ancestral, with 32 and 64 steps."""
    return max(_off(weak_errors(sampler, (32, 64)), published) for sampler, published in STOCHASTIC.values())


@claim(
    r"\log p(x_0) = \log p(x_T) + \tfrac D2 \log\bar\alpha_T + \int_0^{\sigma_T} \nabla \cdot \hat\epsilon\; d\sigma",
    source="[SDE] eq. 39", of=flow_log_likelihood, against="the exact density of a mixture", bound=1e-3, seed=seeds(),
    examples=2,
)  # fmt: skip
def the_flow_gives_the_exact_likelihood(seed: int) -> float:
    """Of 10 points, from 128 and 256 steps extrapolated as errors of second order are; the former alone must be within 0.05,
    and Hutchinson's estimate from all the signs there are must agree with it."""
    schedule = even_log_sigma()
    predict, x0 = predictor(schedule, partial(PLANE.eps, schedule)), PLANE.sample(10, seed)
    signs = np.array([[1.0, 1.0], [1.0, -1.0]])[:, None, :] * np.ones_like(x0)

    def prior(x: np.ndarray) -> np.ndarray:
        return PLANE.log_density(schedule, x, schedule.T)

    def likelihood(n: int, probes: Any = None) -> np.ndarray:
        chosen = range(1, schedule.T + 1, 1024 // n)
        return flow_log_likelihood(schedule, predict, x0, chosen, probes, prior)

    (coarse, fine), expected = (likelihood(n) for n in (128, 256)), PLANE.log_density(schedule, x0, 0)
    if not np.abs(coarse - likelihood(128, signs)).max() < 1e-7 or not np.abs(coarse - expected).max() < 0.05:
        return np.inf
    return float(np.abs(fine + (fine - coarse) / 3 - expected).max())


@claim(
    r"|x_0 - x_0^*| = O(n^{-k}) \quad\text{with the } k \text{ of each solver, on every schedule}",
    source="[EDM] section 3", of=heun, against="the exact flow of a Gaussian", bound=0.25, examples=100,
    kind=st.sampled_from(sorted(SCHEDULES)), zero=st.booleans(), name=st.sampled_from(sorted(ODE_SOLVERS)),
)  # fmt: skip
def every_solver_keeps_its_order_on_every_schedule(kind: str, zero: bool, name: str) -> float:
    """Each schedule of 1000 steps, as it is and with alpha_bar_T = 0, from t = 961 to 97 by eights and by fours, and up; how
    far the order measured is below the one published. For N(m, c) the flow leaves (x_t - a m) / sqrt(a^2 c + s^2) alone."""
    schedule, (solver, published), m, c = SCHEDULES[kind](1000), ODE_SOLVERS[name], 0.5, 0.3
    schedule = rescale_zero_terminal_snr(schedule) if zero else schedule
    a, s2 = np.sqrt(schedule.alpha_bar), schedule.one_minus_alpha_bar
    spread = a**2 * c + s2

    def flow(x: np.ndarray, t: int, s: int) -> np.ndarray:
        return a[s] * m + np.sqrt(spread[s] / spread[t]) * (x - a[t] * m)

    predict = predictor(schedule, lambda x, t: np.sqrt(s2[t]) / spread[t] * (x - a[t] * m))
    first, last, x = 97, 961, np.linspace(-2, 2, 9)
    start, end = x, predict(flow(x, last, first), first)[0]
    if solver is ddim_inversion:  # its first step is y_97 = y_0 + sigma eps_hat(a y_0): linear, so solved for y_0
        g = np.sqrt(s2[first]) / a[first] * np.sqrt(s2[first]) / spread[first] * a[first]
        start, end = (flow(x, last, first) / a[first] + g * m) / (1 + g), x
    errors = [np.abs(final(solver(schedule, predict, start, range(first, last + 1, n))) - end).max() for n in (8, 4)]
    return float(max(0.0, published - order(errors))) if 0 < errors[-1] < 0.1 else np.nan


SPIKE = GaussianMixture(np.ones(1), np.array([[0.3]]), np.array([[[0.04]]]))


def _warned(schedule: Schedule, data: GaussianMixture, x0: np.ndarray, chosen: Any) -> tuple[np.ndarray, bool]:
    """log p(x_0) by the flow from the true density of the last x, and whether a step was called too large."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        predict = (
            predictor(schedule, partial(data.eps, schedule)) if schedule.alpha_bar[-1] else _eps_only(schedule, data)
        )
        log_p = flow_log_likelihood(
            schedule, predict, x0, chosen, prior=lambda x: data.log_density(schedule, x, int(chosen[-1]))
        )
    return log_p, any("expected steps that err" in str(w.message) for w in caught)


def _eps_only(schedule: Schedule, data: GaussianMixture) -> Any:
    """A predictor that says nothing of x0, which from eps cannot be said where alpha_bar = 0."""
    return lambda x, t: (None, data.eps(schedule, x, t))


@claim(
    r"\log p(x_0) = \log\mathcal N(x_0;\ 0.3,\ 0.2^2) \quad\text{from all the steps of any schedule}",
    source="[SDE] eq. 39", of=flow_log_likelihood, against="the density of one narrow Gaussian", bound=1e-3, seed=seeds(),
    schedule=schedules(max_T=200, terminal=True).filter(lambda s: s.alpha_bar[1] > 1e-4),
)  # fmt: skip
def the_flow_gives_the_likelihood_of_narrow_data_on_every_schedule(schedule: Schedule, seed: int) -> float:
    """Every kind of schedule, from T = 1 on, alpha_bar_T = 0, any beta: also where one step takes almost all of x_0 away."""
    x0 = SPIKE.sample(5, seed)
    log_p, _ = _warned(schedule, SPIKE, x0, range(1, schedule.T + 1))
    return float(np.abs(log_p - normal_logpdf(x0[:, 0], 0.3, 0.04)).max())


@claim(
    r"|\log p - \log \hat p| \le 5 \tau D \quad\text{or a warning, } \tau \text{ the tolerance}",
    source="[SDE] eq. 39", of=flow_log_likelihood, against="the exact density of a mixture", bound=5.0, seed=seeds(),
    case=schedules(max_T=60, terminal=True)
    .filter(lambda s: s.alpha_bar[1] > 0)
    .flatmap(lambda s: st.tuples(st.just(s), timesteps(s))),
)  # fmt: skip
def a_likelihood_from_steps_that_are_too_large_is_warned_of(case: tuple[Schedule, Any], seed: int) -> float:
    """Over any steps of any schedule; the error is in units of the tolerance, 0.01 nats an element, 0 if warned."""
    schedule, chosen = case
    if schedule.alpha_bar[chosen[0]] == 0:
        return 0.0
    x0 = PLANE.sample(10, seed)
    log_p, warned = _warned(schedule, PLANE, x0, chosen)
    return 0.0 if warned else float(np.abs(log_p - PLANE.log_density(schedule, x0, 0)).max()) / 2 / 0.01


# --- which steps ---


@claim(
    r"1 \le t_1 < t_2 < \dots < t_n = T,\quad t_n = T + 1 - \lfloor T / n \rfloor - T \bmod n \ \text{for leading}",
    source="[DDIM] appendix D.2", of=trailing_steps, against="counting", bound=0.0, schedule=schedules(max_T=400),
    share=st.floats(0, 1), name=st.sampled_from(sorted(SPACINGS)), examples=100,
)  # fmt: skip
def step_selections_rise_without_repeating_to_T(schedule: Schedule, share: float, name: str) -> float:
    """Uniform, leading, trailing, quadratic and Karras, for every n from 1 to T; all but trailing begin at 1, all but
    leading end at T. All of the steps, for n = T. The error is how many of these demands fail."""
    n = 1 + round(share * (schedule.T - 1))
    t, stride = SPACINGS[name](schedule, n), schedule.T // n
    last = schedule.T + 1 - stride - schedule.T % n if name == "leading" else schedule.T
    wrong = [len(t) != n, t[-1] != last, t[0] < 1, np.any(np.diff(t) < 1), t.dtype.kind != "i"]
    if name == "trailing":
        wrong.append(np.ptp(np.diff(t, prepend=0)) > 1)
    elif n > 1:
        wrong.append(t[0] != 1)
    return float(sum(wrong))


@claim(
    r"\sigma_i = \Big(\sigma_1^{1/\rho} + \tfrac{i - 1}{n - 1} \big(\sigma_T^{1/\rho} - \sigma_1^{1/\rho}\big)\Big)^\rho",
    source="[EDM] eq. 5", of=karras_steps, against="the formula and every step there is", bound=1e-12, n=st.integers(2, 40),
    rho=st.floats(1, 10), schedule=st.one_of(st.just(even_log_sigma(2000)), schedules()).filter(lambda s: s.T > 1),
    examples=100,
)  # fmt: skip
def karras_steps_are_the_nearest_to_their_formula(n: int, rho: float, schedule: Schedule) -> float:
    """In log sigma, where no two fall on one step: how much nearer another step would be."""
    n = min(n, schedule.T)
    sigma = np.sqrt(schedule.one_minus_alpha_bar[1:] / schedule.alpha_bar[1:])
    expected = (sigma[0] ** (1 / rho) + np.linspace(0, 1, n) * (sigma[-1] ** (1 / rho) - sigma[0] ** (1 / rho))) ** rho
    away = np.abs(np.log(sigma) - np.log(expected)[:, None])
    actual = away[np.arange(n), karras_steps(schedule, n, rho) - 1]
    return float((actual - away.min(axis=1)).max()) if len(set(away.argmin(axis=1))) == n else 0.0
