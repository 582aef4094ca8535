"""Claims about sampling: the single steps, whole runs and solvers, which steps they take, and guidance."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import mpmath
import numpy as np
from hypothesis import strategies as st

from ...process import (
    PREDICTIONS,
    SPACINGS,
    GaussianMixture,
    Schedule,
    ancestral,
    ancestral_step,
    classifier_free_guidance,
    classifier_guidance,
    convert,
    ddim,
    ddim_inversion,
    ddim_step,
    dpmpp_2m,
    dpmpp_2s,
    dynamic_threshold,
    euler,
    euler_ancestral,
    final,
    flow_log_likelihood,
    heun,
    karras_steps,
    posterior_variance,
    predictor,
    q_sample,
    rescale_zero_terminal_snr,
    step_variance,
    trailing_steps,
)  # fmt: skip
from ...random import Key, Stream, normal
from ..claim import claim
from ..measures import exact_alpha_bar, relative
from ..orders import PLANE, SOLVERS, STOCHASTIC, even_log_sigma, order, solver_errors, weak_errors
from ..strategies import pairs, schedules, seeds, steps, timesteps

with_step: Any = schedules(respaced=False).flatmap(lambda s: st.tuples(st.just(s), steps(s)))
with_pair: Any = schedules().flatmap(lambda s: st.tuples(st.just(s), pairs(s, strict=True)))
exact_pair: Any = schedules(respaced=False).flatmap(lambda s: st.tuples(st.just(s), pairs(s, strict=True)))
with_run: Any = schedules(max_T=100).flatmap(lambda s: st.tuples(st.just(s), timesteps(s)))
etas: Any = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0.01, 0.99))
Sampler = Callable[..., Any]

NOISY: dict[str, Sampler] = {
    "ancestral": ancestral,
    "ancestral, beta": partial(ancestral, variance=step_variance),
    "ddim, eta": partial(ddim, eta=0.6),
    "euler_ancestral": euler_ancestral,
}
QUIET: dict[str, Sampler] = {"ddim": ddim, "euler": euler, "heun": heun, "dpmpp_2m": dpmpp_2m, "dpmpp_2s": dpmpp_2s}


def _noise(seed: int, n: int) -> Callable[[int], np.ndarray]:
    return lambda t: normal(Key(seed, Stream.STEP, t), np.arange(n), (), np.float64)


def _network(schedule: Schedule) -> Callable[..., Any]:
    """Nobody's denoiser, but smooth, bounded, and dependent on x and on the noise in it."""
    return predictor(schedule, lambda x, t: np.tanh(x + np.sqrt(schedule.alpha_bar[t])), "x0")


def _run(name: str, schedule: Schedule, predict: Any, x: np.ndarray, chosen: Any, noise: Any) -> list[tuple[int, Any]]:
    if name in NOISY:
        return list(NOISY[name](schedule, predict, x, chosen, noise))
    return list(QUIET[name](schedule, predict, x, chosen))


def _laws(
    name: str, schedule: Schedule, predict: Any, chosen: Any, start: tuple[float, float]
) -> list[tuple[int, float, float]]:
    """(s, mean, variance) of x_s along a run from x_T ~ N(start), exactly, for a prediction that is linear in x.

    All steps are linear then: one run on n + 2 numbers, from 0, from 1, and from 0 with a noise of 1 at one step each.
    """
    position = {t: i for i, t in enumerate(np.asarray(chosen).tolist())}
    x = np.zeros((len(position) + 2, 1))
    x[1] = 1

    def noise(t: int) -> np.ndarray:
        kick = np.zeros_like(x)
        kick[2 + position[t]] = 1
        return kick

    mean, variance = start
    laws = []
    for s, (zero, one, *kicks) in _run(name, schedule, predict, x, chosen, noise):
        gain, gains = float(one[0] - zero[0]), np.array(kicks)[:, 0] - zero[0]
        laws.append((s, float(zero[0]) + gain * mean, gain**2 * variance + float(gains @ gains)))
    return laws


# --- the steps ---


@claim(
    r"x_{t-1} = \frac{1}{\sqrt{\alpha_t}} \Big(x_t - \frac{1 - \alpha_t}{\sqrt{1 - \bar\alpha_t}}\, \hat\epsilon\Big)"
    r" + \sigma_t z",
    source="[DDPM] algorithm 2", of=ancestral_step, against="the line itself in 50-digit arithmetic", bound=1e-14,
    case=with_step, seed=seeds(), small=st.booleans(),
)  # fmt: skip
def the_ancestral_step_is_line_4_of_algorithm_2(case: tuple[Schedule, int], seed: int, small: bool) -> float:
    """With sigma^2 = beta_t or beta_t (1 - abar_{t-1}) / (1 - abar_t), and z = 0 at t = 1."""
    schedule, t = case
    x, eps_hat, z = np.random.default_rng(seed).standard_normal((3, 5))
    x0_hat, _ = predictor(schedule, lambda x, t: eps_hat)(x, t)
    came = ancestral_step(schedule, x, t, t - 1, x0_hat, z, posterior_variance if small else step_variance)
    with mpmath.workdps(50):
        now, before = (exact_alpha_bar(schedule.beta, 0, s) for s in (t, t - 1))
        beta = mpmath.mpf(float(schedule.beta[t]))
        root, of_eps = mpmath.sqrt(1 - beta), beta / mpmath.sqrt(1 - now)
        sigma = mpmath.sqrt(beta * (1 - before) / (1 - now) if small else beta) if t > 1 else 0
        exact = np.frompyfunc(mpmath.mpf, 1, 1)
        wanted = ((exact(x) - of_eps * exact(eps_hat)) / root + sigma * exact(z)).astype(float)
    return relative(came, wanted, scale=(np.abs(x) + np.abs(eps_hat)) / float(root) + np.abs(z))


@claim(
    r"t_i = 1:\ z = 0",
    source="[DDPM] algorithm 2", of=ancestral, against="runs whose last noise is another", bound=0.0, case=with_run,
    seed=seeds(), name=st.sampled_from(sorted(NOISY)),
)  # fmt: skip
def no_sampler_adds_noise_in_its_last_step(case: tuple[Schedule, Any], seed: int, name: str) -> float:
    """Ancestral with either variance, DDIM with eta = 0.6 and Euler ancestral, over any steps: not one bit differs."""
    schedule, chosen = case
    x, noise = np.random.default_rng(seed).standard_normal(4), _noise(seed, 4)
    one, other = (
        _run(name, schedule, _network(schedule), x, chosen, n)[-1][1]
        for n in (noise, lambda t: noise(t) + 1e3 * (t == chosen[0]))
    )
    return float(np.abs(one - other).max())


@claim(
    r"q(x_0) = \mathcal N(0, I),\ \sigma_t^2 = \beta_t \implies x_t \sim \mathcal N(0, I)\ \text{for all } t \ge 1",
    source="[DDPM] section 3.2", of=step_variance, against="the exact recursion of the moments of a whole run", bound=1e-13,
    case=with_run,
)  # fmt: skip
def beta_is_the_right_variance_for_standard_normal_data(case: tuple[Schedule, Any]) -> float:
    """x_0 is expected at sqrt(abar_t) x_t; over any steps s < t, with beta_{t|s}. The last step adds no noise: its variance
    is alpha_{t|0}, not 1."""
    schedule, chosen = case
    predict = predictor(schedule, lambda x, t: np.sqrt(schedule.alpha_bar[t]) * x, "x0")
    *laws, (_, mean, last) = _laws("ancestral, beta", schedule, predict, chosen, (0.0, 1.0))
    errors = [max(abs(m), abs(v - 1)) for _, m, v in laws]
    return max([*errors, abs(mean), abs(last - schedule.alpha_bar[chosen[0]])])


@claim(
    r"q(x_0) = \delta,\ \sigma_t^2 = \tilde\beta_t \implies x_t \sim q(x_t \mid x_0)\ \text{for all } t",
    source="[DDPM] section 3.2", of=posterior_variance, against="the exact recursion of the moments of a whole run",
    bound=1e-12, case=with_run, x0=st.floats(-2, 2), name=st.sampled_from(["ancestral", "ddim, eta", "euler_ancestral"]),
)  # fmt: skip
def the_posterior_variance_is_the_right_one_for_data_at_one_point(
    case: tuple[Schedule, Any], x0: float, name: str
) -> float:
    """Also for DDIM with any eta, over any steps: mean sqrt(abar_s) x_0 and variance 1 - abar_s, all the way down to x_0."""
    schedule, chosen = case
    moments = np.sqrt(schedule.alpha_bar), schedule.one_minus_alpha_bar
    predict = predictor(schedule, lambda x, t: np.full_like(x, x0), "x0")
    start = float(moments[0][chosen[-1]]) * x0, float(moments[1][chosen[-1]])
    laws = _laws(name, schedule, predict, chosen, start)
    return max(max(relative(m, moments[0][s] * x0, 1), relative(v, moments[1][s], 1)) for s, m, v in laws)


@claim(
    r"\eta = 1:\quad \bar\alpha_s,\ \sigma^2 = \tilde\beta_t \implies x_s^{\mathrm{DDIM}} = x_s^{\mathrm{DDPM}}",
    source="[DDIM] section 4.1", of=ddim_step, against="the ancestral step with the posterior's variance", bound=1e-14,
    case=with_pair, seed=seeds(),
)  # fmt: skip
def ddim_with_eta_1_is_the_ancestral_step(case: tuple[Schedule, tuple[int, int]], seed: int) -> float:
    """For any earlier step s, and the same fresh noise."""
    schedule, (s, t) = case
    x0_hat, eps_hat, z = np.random.default_rng(seed).standard_normal((3, 20))
    x = q_sample(schedule, x0_hat, t, eps_hat)
    came = ddim_step(schedule, x, t, s, x0_hat, eps_hat, 1.0, z)
    return relative(came, ancestral_step(schedule, x, t, s, x0_hat, z), np.abs(x0_hat) + np.abs(eps_hat) + np.abs(z))


@claim(
    r"q_\sigma(x_s \mid x_0) = \mathcal N\big(\sqrt{\bar\alpha_s}\, x_0,\ (1 - \bar\alpha_s) I\big)"
    r"\quad\text{for every } \eta",
    source="[DDIM] lemma 1", of=ddim_step, against="the marginal's moments in 50-digit arithmetic", bound=1e-14,
    case=exact_pair, eta=etas,
)  # fmt: skip
def a_ddim_step_keeps_the_marginals_for_every_eta(case: tuple[Schedule, tuple[int, int]], eta: float) -> float:
    """The factor of x_0 is sqrt(abar_s), and the squares of those of eps_hat and of fresh noise sum to 1 - abar_s."""
    schedule, (s, t) = case
    one, zero = np.ones(1), np.zeros(1)
    of_x0, of_eps, of_noise = (
        ddim_step(schedule, zero, t, s, *parts, eps=z, eta=eta).item()
        for parts, z in (((one, zero), zero), ((zero, one), zero), ((zero, zero), one))
    )
    with mpmath.workdps(50):
        abar = exact_alpha_bar(schedule.beta, 0, s)
        root, rest = float(mpmath.sqrt(abar)), float(1 - abar)
    return max(relative(of_x0, root), relative(of_eps**2 + of_noise**2, rest))


# --- whole runs ---


@claim(
    r"\frac{x_s}{\sqrt{\bar\alpha_s}} = \frac{x_t}{\sqrt{\bar\alpha_t}} + (\sigma_s - \sigma_t)\, \hat\epsilon"
    r"\quad\text{is DDIM with } \eta = 0",
    source="[DDIM] eq. 13", of=euler, against="DDIM, step by step", bound=1e-13, case=with_run, seed=seeds(),
)  # fmt: skip
def eulers_method_in_sigma_is_ddim_without_noise(case: tuple[Schedule, Any], seed: int) -> float:
    """Each step from where the other one is; relative to the sizes of the terms. So is the first step of DPM-Solver++."""
    schedule, chosen = case
    x, predict = np.random.default_rng(seed).standard_normal(5), _network(schedule)
    worst = 0.0
    for t, s in zip(chosen[::-1].tolist(), [*chosen[-2::-1].tolist(), 0], strict=True):
        here = [s, t] if s else [t]
        wanted = ddim_step(schedule, x, t, s, *predict(x, t))
        scale = np.abs(wanted) + np.sqrt(schedule.alpha_bar[s] / schedule.alpha_bar[t]) * (1 + np.abs(x))
        for solver in (euler, dpmpp_2m):
            worst = max(worst, relative(next(solver(schedule, predict, x, here))[1], wanted, scale))
        x = wanted
    return worst


@claim(
    r"\sigma_{\mathrm{up}}^2 = \frac{\sigma_s^2 (\sigma_t^2 - \sigma_s^2)}{\sigma_t^2}"
    r" = \frac{\tilde\beta_{t|s}}{\bar\alpha_s}",
    source="[KDiffusion] Euler ancestral", of=euler_ancestral, against="ancestral sampling, step by step", bound=1e-13,
    case=with_run, seed=seeds(),
)  # fmt: skip
def euler_ancestral_is_ancestral_sampling_with_the_posterior_variance(case: tuple[Schedule, Any], seed: int) -> float:
    """With the same noise; each step from where the other one is."""
    schedule, chosen = case
    x, predict, noise = np.random.default_rng(seed).standard_normal(5), _network(schedule), _noise(seed, 5)
    worst = 0.0
    for t, s in zip(chosen[::-1].tolist(), [*chosen[-2::-1].tolist(), 0], strict=True):
        wanted = ancestral_step(schedule, x, t, s, predict(x, t)[0], noise(t))
        _, came = next(euler_ancestral(schedule, predict, x, [s, t] if s else [t], noise))
        scale = np.abs(wanted) + np.sqrt(schedule.alpha_bar[s] / schedule.alpha_bar[t]) * (1 + np.abs(x))
        worst, x = max(worst, relative(came, wanted, scale)), wanted
    return worst


@claim(
    r"q(x_0) = \delta \implies x_s = \sqrt{\bar\alpha_s}\, x_0 + \sqrt{1 - \bar\alpha_s}\, \epsilon"
    r"\quad\text{along the whole flow}",
    source="[DPMpp] proposition 4.1", of=dpmpp_2m, against="the straight line itself", bound=1e-13, case=with_run,
    seed=seeds(), name=st.sampled_from(sorted(QUIET)),
)  # fmt: skip
def data_at_one_point_are_reached_on_a_straight_line_by_every_solver(
    case: tuple[Schedule, Any], seed: int, name: str
) -> float:
    """In any number of steps, one included: x0_hat is constant, for which all of them are exact."""
    schedule, chosen = case
    x0, eps = np.random.default_rng(seed).standard_normal((2, 5))
    predict = predictor(schedule, lambda x, t: x0, "x0")
    way = _run(name, schedule, predict, q_sample(schedule, x0, chosen[-1], eps), chosen, None)
    scale = (1 + 1 / np.sqrt(schedule.alpha_bar[chosen[-1]])) * (np.abs(x0) + np.abs(eps))
    return max(relative(x, q_sample(schedule, x0, s, eps), scale) for s, x in way)


@claim(
    r"\text{sampling at } \{t_i\} = \text{sampling with } \beta'_i = 1 - \bar\alpha_{t_i} / \bar\alpha_{t_{i-1}}",
    source="[IDDPM] section 4", of=Schedule.respaced, against="a run over the subsequence", bound=1e-12, case=with_run,
    seed=seeds(), name=st.sampled_from(sorted({*NOISY, *QUIET} - {"dpmpp_2s"})),
)  # fmt: skip
def sampling_a_subsequence_is_sampling_the_respaced_schedule(case: tuple[Schedule, Any], seed: int, name: str) -> float:
    """For every sampler but 2S, which looks between the steps given; the network and the noise are told the original t."""
    schedule, chosen = case
    respaced, x, noise = schedule.respaced(chosen), np.random.default_rng(seed).standard_normal(4), _noise(seed, 4)
    full = _run(name, schedule, _network(schedule), x, chosen, noise)
    few = _run(name, respaced, _network(respaced), x, range(1, len(chosen) + 1), lambda i: noise(chosen[i - 1]))
    big = 1 + 1 / np.sqrt(schedule.alpha_bar[chosen[-1]])  # x / sqrt(alpha_bar), where it is largest
    return max(relative(one, other, big + np.abs(one)) for (_, one), (_, other) in zip(full, few, strict=True))


@claim(
    r"q(x_0) = \mathcal N(m, C) \implies x_0 \sim \mathcal N(m, C) \ \text{as the steps grow}",
    source="[SDE] section 3.4", of=ancestral, against="the exact recursion of the moments of a whole run", bound=1.0,
    mean=st.floats(0.5, 2), c=st.floats(0.2, 0.6), examples=3,
)  # fmt: skip
def every_sampler_reaches_the_exact_distribution_of_a_gaussian(mean: float, c: float) -> float:
    """All nine, from the exact x_T: with four times the steps the error of mean and variance must fall below 0.35 of itself,
    and from 64 to 256 below 0.05. The error is the largest of the ratios to these."""
    schedule = even_log_sigma(1025, 1e-3, 20.0)
    data = GaussianMixture(np.ones(1), np.array([[mean]]), np.array([[[c]]]))
    predict = predictor(schedule, partial(data.eps, schedule))
    a2, s2 = schedule.alpha_bar[-1], schedule.one_minus_alpha_bar[-1]
    worst = 0.0
    for name in (*NOISY, *QUIET):
        errors = []
        for gap in (16, 4):
            _, m, v = _laws(name, schedule, predict, range(1, 1026, gap), (np.sqrt(a2) * mean, a2 * c + s2))[-1]
            errors.append(abs(m - mean) + abs(v - c))
        worst = max(worst, errors[1] / errors[0] / 0.35, errors[1] / 0.05)
    return worst


def _off(errors: list[float], published: int) -> float:
    """How far the measured order is from the published one; NaN if the last error is nothing, or no better than none."""
    return abs(order(errors) - published) if 0 < errors[-1] < 0.1 else np.nan


def _order_of(name: str) -> float:
    solver, published = SOLVERS[name]
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
def stochastic_samplers_converge_in_law_with_order_1() -> float:
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

    (coarse, fine), wanted = (likelihood(n) for n in (128, 256)), PLANE.log_density(schedule, x0, 0)
    if not np.abs(coarse - likelihood(128, signs)).max() < 1e-7 or not np.abs(coarse - wanted).max() < 0.05:
        return np.inf
    return float(np.abs(fine + (fine - coarse) / 3 - wanted).max())


# --- which steps ---


@claim(
    r"1 \le t_1 < t_2 < \dots < t_n = T",
    source="[DDIM] appendix D.2", of=trailing_steps, against="counting", bound=0.0, schedule=schedules(max_T=400),
    share=st.floats(0, 1), name=st.sampled_from(sorted(SPACINGS)), examples=100,
)  # fmt: skip
def step_selections_rise_without_repeating_to_T(schedule: Schedule, share: float, name: str) -> float:
    """Uniform, trailing, quadratic and Karras, for every n from 1 to T; all but trailing begin at 1. All of the steps, for
    n = T. The error is how many of these demands fail."""
    n = 1 + round(share * (schedule.T - 1))
    t = SPACINGS[name](schedule, n)
    wrong = [len(t) != n, t[-1] != schedule.T, t[0] < 1, np.any(np.diff(t) < 1), t.dtype.kind != "i"]
    if name == "trailing":
        wrong.append(np.ptp(np.diff(t, prepend=0)) > 1)
    elif n > 1:
        wrong.append(t[0] != 1)
    return float(sum(wrong))


@claim(
    r"\sigma_i = \Big(\sigma_1^{1/\rho} + \tfrac{i - 1}{n - 1} \big(\sigma_T^{1/\rho} - \sigma_1^{1/\rho}\big)\Big)^\rho",
    source="[EDM] eq. 5", of=karras_steps, against="the formula and every step there is", bound=1e-12, n=st.integers(2, 40),
    rho=st.floats(1, 10),
)  # fmt: skip
def karras_steps_are_the_nearest_to_their_formula(n: int, rho: float) -> float:
    """In log sigma, where no two fall on one step: how much nearer another step would be."""
    schedule = even_log_sigma(2000)
    sigma = np.sqrt(1 / schedule.alpha_bar[1:] - 1)
    wanted = (sigma[0] ** (1 / rho) + np.linspace(0, 1, n) * (sigma[-1] ** (1 / rho) - sigma[0] ** (1 / rho))) ** rho
    away = np.abs(np.log(sigma) - np.log(wanted)[:, None])
    came = away[np.arange(n), karras_steps(schedule, n, rho) - 1]
    return float((came - away.min(axis=1)).max()) if len(set(away.argmin(axis=1))) == n else 0.0


@claim(
    r"\sqrt{\bar\alpha'_t} = \sqrt{\bar\alpha_1}\; \frac{\sqrt{\bar\alpha_t} - \sqrt{\bar\alpha_T}}"
    r"{\sqrt{\bar\alpha_1} - \sqrt{\bar\alpha_T}}, \qquad \beta'_T = 1",
    source="[Lin24] algorithm 1", of=rescale_zero_terminal_snr, against="50-digit arithmetic", bound=1e-14,
    schedule=schedules(respaced=False).filter(lambda s: s.T > 1), seed=seeds(),
)  # fmt: skip
def rescaling_takes_the_terminal_signal_to_exactly_zero(schedule: Schedule, seed: int) -> float:
    """alpha_bar and 1 - alpha_bar at 1 and at a random t; alpha_bar_T = 0 to the last bit; a second time changes nothing."""
    rescaled = rescale_zero_terminal_snr(schedule)
    if rescaled.alpha_bar[-1] != 0 or rescaled.beta[-1] != 1:
        return np.inf
    worst = relative(rescale_zero_terminal_snr(rescaled).beta, rescaled.beta)
    for t in {1, int(np.random.default_rng(seed).integers(1, schedule.T))}:
        with mpmath.workdps(50):
            first, now, last = (mpmath.sqrt(exact_alpha_bar(schedule.beta, 0, s)) for s in (1, t, schedule.T))
            abar = (first * (now - last) / (first - last)) ** 2
            wanted = [float(abar), float(1 - abar)]
        worst = max(worst, *map(relative, (rescaled.alpha_bar[t], rescaled.one_minus_alpha_bar[t]), wanted))
    return worst


# --- guidance ---


@claim(
    r"\nabla \log p(x_t \mid y) = \nabla \log p(x_t) + \nabla \log p(y \mid x_t)",
    source="[ADM] eq. 14", of=classifier_guidance, against="the perfect denoiser of the class alone", bound=1e-10,
    case=with_step, seed=seeds(), kind=st.sampled_from(PREDICTIONS),
)  # fmt: skip
def classifier_guidance_at_scale_1_is_the_conditional_prediction(
    case: tuple[Schedule, int], seed: int, kind: str
) -> float:
    """For two Gaussian classes p(y | x_t) is logistic in the difference of two quadratics, with its gradient by hand; scale
    0 changes nothing. Any kind of prediction; relative to what the kind divides by."""
    schedule, t = case
    rng = np.random.default_rng(seed)
    roots, means = 0.5 * rng.standard_normal((2, 2, 2)), rng.standard_normal((2, 2))
    x = 1.5 * rng.standard_normal((10, 2))
    covariances = roots @ roots.swapaxes(1, 2) + 0.1 * np.eye(2)
    both = GaussianMixture(np.array([0.3, 0.7]), means, covariances)
    one = GaussianMixture(np.ones(1), means[:1], covariances[:1])
    away = x[:, None] - np.sqrt(schedule.alpha_bar[t]) * means  # (N, 2, D)
    spread = schedule.alpha_bar[t] * covariances + schedule.one_minus_alpha_bar[t] * np.eye(2)
    pull = np.linalg.solve(spread, away.transpose(1, 2, 0)).transpose(2, 0, 1)
    logs = np.log([0.3, 0.7]) - 0.5 * ((pull * away).sum(axis=-1) + np.log(np.linalg.det(spread)))
    other = 1 / (1 + np.exp(logs[:, 0] - logs[:, 1]))  # 1 - p(y = 0 | x_t)
    dlog_p = other[:, None] * (pull[:, 1] - pull[:, 0])
    plain, wanted = (convert(schedule, x, t, d.eps(schedule, x, t), "eps", kind) for d in (both, one))
    guided, same = (classifier_guidance(schedule, x, t, plain, dlog_p, scale, kind) for scale in (1.0, 0.0))
    at_0, at_1 = (convert(schedule, x, t, np.full_like(x, e), "eps", kind) for e in (0.0, 1.0))
    scale = np.abs(wanted) + np.abs(plain) + np.abs(at_1 - at_0) * (1 + np.abs(x))
    return max(relative(guided, wanted, scale), relative(same, plain, scale))


@claim(
    r"\hat\epsilon = (1 + w)\, \hat\epsilon(x_t, y) - w\, \hat\epsilon(x_t),\quad w = \text{scale} - 1",
    source="[CFG] eq. 6", of=classifier_free_guidance, against="the formula, in eps and in every other kind of prediction",
    bound=1e-13, case=with_step, seed=seeds(), kind=st.sampled_from(PREDICTIONS), scale=st.floats(0, 8),
)  # fmt: skip
def classifier_free_guidance_is_the_same_in_every_kind_of_prediction(
    case: tuple[Schedule, int], seed: int, kind: str, scale: float
) -> float:
    """Scale 0 is the unconditional prediction, 1 the conditional one; guiding and converting may change places."""
    schedule, t = case
    x, with_y, without = np.random.default_rng(seed).standard_normal((3, 20))

    def turned(eps: np.ndarray) -> np.ndarray:
        return convert(schedule, x, t, eps, "eps", kind)

    guided = scale * with_y - (scale - 1) * without
    size = [np.abs(turned(with_y)), np.abs(turned(without)), np.abs(turned(0 * x)), np.abs(turned(x) - turned(0 * x))]
    size_of = (1 + scale) * sum(size)
    ends = [classifier_free_guidance(with_y, without, s) for s in (0.0, 1.0)]
    return max(
        relative(classifier_free_guidance(with_y, without, scale), guided, (1 + scale) * np.hypot(with_y, without)),
        relative(classifier_free_guidance(turned(with_y), turned(without), scale), turned(guided), size_of),
        relative(ends, [without, with_y]),
    )


@claim(
    r"\hat x_0 \leftarrow \mathrm{clip}(\hat x_0, -m, m) / m,\quad m = \max(1,\ \text{quantile of } |\hat x_0|)",
    source="[Imagen] section 2.3", of=dynamic_threshold, against="numpy.quantile, sample by sample", bound=1e-15,
    seed=seeds(), quantile=st.floats(0, 1), size=st.floats(0.1, 3), n=st.integers(1, 40),
)  # fmt: skip
def dynamic_thresholding_brings_a_sample_into_range(seed: int, quantile: float, size: float, n: int) -> float:
    """The result lies within [-1, 1], and a sample whose quantile does is only clipped; as `clip` of a predictor, x_t is
    still sqrt(abar_t) x0_hat + sqrt(1 - abar_t) eps_hat."""
    x0 = size * np.random.default_rng(seed).standard_normal((4, n, 2))
    came = dynamic_threshold(x0, quantile)
    limits = [max(1.0, np.quantile(np.abs(x), quantile)) for x in x0]
    wanted = np.array([np.clip(x, -m, m) / m for x, m in zip(x0, limits, strict=True)])
    schedule = even_log_sigma(9)
    x0_hat, eps_hat = predictor(schedule, lambda x, t: x0, "x0", partial(dynamic_threshold, quantile=quantile))(x0, 5)
    whole = relative(q_sample(schedule, x0_hat, 5, eps_hat), x0, scale=2 * np.abs(x0) + 1)
    return max(relative(came, wanted), relative(x0_hat, came), whole) if np.abs(came).max() <= 1 else np.inf
