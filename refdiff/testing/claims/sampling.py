"""Claims about sampling: the single steps, and whole runs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import mpmath
import numpy as np
from hypothesis import strategies as st

from ...process import (
    GaussianMixture,
    Schedule,
    ancestral,
    ancestral_step,
    ddim,
    ddim_step,
    dpmpp_2m,
    dpmpp_2s,
    euler,
    euler_ancestral,
    heun,
    posterior_variance,
    predictor,
    q_sample,
    step_variance,
)  # fmt: skip
from ...random import Key, normal
from ..claim import claim
from ..measures import exact_alpha_bar, relative_error
from ..orders import even_log_sigma
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
    "ancestral, learned": partial(ancestral, variance="learned"),
    "ddim, eta": partial(ddim, eta=0.6),
    "euler_ancestral": euler_ancestral,
}
QUIET: dict[str, Sampler] = {"ddim": ddim, "euler": euler, "heun": heun, "dpmpp_2m": dpmpp_2m, "dpmpp_2s": dpmpp_2s}


def _noise(seed: int, n: int) -> Callable[[int], np.ndarray]:
    return lambda t: normal(Key(seed, t)("step"), np.arange(n), (), np.float64)


def _network(schedule: Schedule) -> Callable[..., Any]:
    """Nobody's denoiser, but smooth, bounded, and dependent on x and on the noise in it; and a v of the variance."""
    return predictor(schedule, lambda x, t: (np.tanh(x + np.sqrt(schedule.alpha_bar[t])), np.sin(x)), "x0")


def _run(name: str, schedule: Schedule, predict: Any, x: np.ndarray, chosen: Any, noise: Any) -> list[tuple[int, Any]]:
    if name in NOISY:
        return list(NOISY[name](schedule, predict, x, chosen, noise))
    return list(QUIET[name](schedule, predict, x, chosen))


def moments_of_steps(
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
    of_steps = []
    for s, (zero, one, *kicks) in _run(name, schedule, predict, x, chosen, noise):
        gain, gains = float(one[0] - zero[0]), np.array(kicks)[:, 0] - zero[0]
        of_steps.append((s, float(zero[0]) + gain * mean, gain**2 * variance + float(gains @ gains)))
    return of_steps


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
    actual = ancestral_step(schedule, x, t, t - 1, x0_hat, z, posterior_variance if small else step_variance)
    with mpmath.workdps(50):
        now, before = (exact_alpha_bar(schedule.beta, 0, s) for s in (t, t - 1))
        beta = mpmath.mpf(float(schedule.beta[t]))
        root, of_eps = mpmath.sqrt(1 - beta), beta / mpmath.sqrt(1 - now)
        sigma = mpmath.sqrt(beta * (1 - before) / (1 - now) if small else beta) if t > 1 else 0
        exact = np.frompyfunc(mpmath.mpf, 1, 1)
        expected = ((exact(x) - of_eps * exact(eps_hat)) / root + sigma * exact(z)).astype(float)
    return relative_error(actual, expected, scale=(np.abs(x) + np.abs(eps_hat)) / float(root) + np.abs(z))


@claim(
    r"t_i = 1:\ z = 0",
    source="[DDPM] algorithm 2", of=ancestral, against="runs whose last noise is another", bound=0.0, case=with_run,
    seed=seeds(), name=st.sampled_from(sorted(NOISY)),
)  # fmt: skip
def no_sampler_adds_noise_in_its_last_step(case: tuple[Schedule, Any], seed: int, name: str) -> float:
    """Ancestral with either variance and a learned one, DDIM with eta = 0.6 and Euler ancestral, over any steps: not one bit
    differs."""
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
    *of_steps, (_, mean, last) = moments_of_steps("ancestral, beta", schedule, predict, chosen, (0.0, 1.0))
    errors = [max(abs(m), abs(v - 1)) for _, m, v in of_steps]
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
    of_steps = moments_of_steps(name, schedule, predict, chosen, start)
    return max(
        max(relative_error(m, moments[0][s] * x0, 1), relative_error(v, moments[1][s], 1)) for s, m, v in of_steps
    )


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
    actual = ddim_step(schedule, x, t, s, x0_hat, eps_hat, 1.0, z)
    return relative_error(
        actual, ancestral_step(schedule, x, t, s, x0_hat, z), np.abs(x0_hat) + np.abs(eps_hat) + np.abs(z)
    )


@claim(
    r"q_\sigma(x_s \mid x_0) = \mathcal N\big(\sqrt{\bar\alpha_s}\, x_0,\ (1 - \bar\alpha_s) I\big)"
    r"\quad\text{for every } \eta",
    source="[DDIM] lemma 1", of=ddim_step, against="the marginal's moments in 50-digit arithmetic", bound=1e-14,
    case=exact_pair, eta=etas,
)  # fmt: skip
def a_ddim_step_keeps_the_marginals_for_every_eta(case: tuple[Schedule, tuple[int, int]], eta: float) -> float:
    """The factor of x_0 is sqrt(abar_s), and the squares of the factors of eps_hat and of fresh noise sum to 1 - abar_s."""
    schedule, (s, t) = case
    one, zero = np.ones(1), np.zeros(1)
    of_x0, of_eps, of_noise = (
        ddim_step(schedule, zero, t, s, *parts, eps=z, eta=eta).item()
        for parts, z in (((one, zero), zero), ((zero, one), zero), ((zero, zero), one))
    )
    with mpmath.workdps(50):
        abar = exact_alpha_bar(schedule.beta, 0, s)
        root, rest = float(mpmath.sqrt(abar)), float(1 - abar)
    return max(relative_error(of_x0, root), relative_error(of_eps**2 + of_noise**2, rest))


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
        expected = ddim_step(schedule, x, t, s, *predict(x, t)[:2])
        scale = np.abs(expected) + np.sqrt(schedule.alpha_bar[s] / schedule.alpha_bar[t]) * (1 + np.abs(x))
        for solver in (euler, dpmpp_2m):
            worst = max(worst, relative_error(next(solver(schedule, predict, x, here))[1], expected, scale))
        x = expected
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
        expected = ancestral_step(schedule, x, t, s, predict(x, t)[0], noise(t))
        _, actual = next(euler_ancestral(schedule, predict, x, [s, t] if s else [t], noise))
        scale = np.abs(expected) + np.sqrt(schedule.alpha_bar[s] / schedule.alpha_bar[t]) * (1 + np.abs(x))
        worst, x = max(worst, relative_error(actual, expected, scale)), expected
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
    return max(relative_error(x, q_sample(schedule, x0, s, eps), scale) for s, x in way)


@claim(
    r"\text{sampling at } \{t_i\} = \text{sampling with } \beta'_i = 1 - \bar\alpha_{t_i} / \bar\alpha_{t_{i-1}}",
    source="[IDDPM] section 4", of=Schedule.respaced, against="a run over the subsequence", bound=1e-12, case=with_run,
    seed=seeds(), name=st.sampled_from(sorted({*NOISY, *QUIET} - {"dpmpp_2s"})),
)  # fmt: skip
def sampling_a_subsequence_is_sampling_the_respaced_schedule(case: tuple[Schedule, Any], seed: int, name: str) -> float:
    """For every sampler but 2S, which looks between the steps given; the network and the noise receive the original t."""
    schedule, chosen = case
    respaced, x, noise = schedule.respaced(chosen), np.random.default_rng(seed).standard_normal(4), _noise(seed, 4)
    full = _run(name, schedule, _network(schedule), x, chosen, noise)
    few = _run(name, respaced, _network(respaced), x, range(1, len(chosen) + 1), lambda i: noise(chosen[i - 1]))
    big = 1 + 1 / np.sqrt(schedule.alpha_bar[chosen[-1]])  # x / sqrt(alpha_bar), where it is largest
    return max(relative_error(one, other, big + np.abs(one)) for (_, one), (_, other) in zip(full, few, strict=True))


@claim(
    r"q(x_0) = \mathcal N(m, C) \implies x_0 \sim \mathcal N(m, C) \ \text{as the steps grow}",
    source="[SDE] section 3.4", of=ancestral, against="the exact recursion of the moments of a whole run", bound=1.0,
    mean=st.floats(0.5, 2), c=st.floats(0.2, 0.6), examples=3,
)  # fmt: skip
def every_sampler_reaches_the_exact_distribution_of_a_gaussian(mean: float, c: float) -> float:
    """All nine whose variance is not learned, from the exact x_T: with four times the steps the error of mean and variance
    must fall below 0.35 of itself, and from 64 to 256 below 0.05. The error is the largest of the ratios to these."""
    schedule = even_log_sigma(1025, 1e-3, 20.0)
    data = GaussianMixture(np.ones(1), np.array([[mean]]), np.array([[[c]]]))
    predict = predictor(schedule, partial(data.eps, schedule))
    a2, s2 = schedule.alpha_bar[-1], schedule.one_minus_alpha_bar[-1]
    worst = 0.0
    for name in sorted({*NOISY, *QUIET} - {"ancestral, learned"}):
        errors = []
        for gap in (16, 4):
            _, m, v = moments_of_steps(name, schedule, predict, range(1, 1026, gap), (np.sqrt(a2) * mean, a2 * c + s2))[
                -1
            ]
            errors.append(abs(m - mean) + abs(v - c))
        worst = max(worst, errors[1] / errors[0] / 0.35, errors[1] / 0.05)
    return worst
