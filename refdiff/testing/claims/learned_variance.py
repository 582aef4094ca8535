"""Claims about sampling with a learned variance: of a step of any length, at its ends, and at its best."""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np
from hypothesis import strategies as st

from ...process import (
    GaussianMixture,
    Schedule,
    ancestral,
    ancestral_step,
    learned_log_variance,
    posterior_mean_coefficients,
    posterior_variance,
    predictor,
    step_variance,
)
from ..claim import claim
from ..measures import exact_alpha_bar, relative_error
from ..strategies import pairs, schedules, seeds, timesteps
from .sampling import moments_of_steps

any_pair: Any = schedules(terminal=True, respaced=False).flatmap(lambda s: st.tuples(st.just(s), pairs(s, strict=True)))
with_run: Any = schedules(max_T=100).flatmap(lambda s: st.tuples(st.just(s), timesteps(s)))


@claim(
    r"\log\sigma_{t \to s}^2 = \tfrac{1+v}{2} \log\beta_{t|s}"
    r" + \tfrac{1-v}{2} \log\frac{\beta_{t|s}\,(1 - \bar\alpha_s)}{1 - \bar\alpha_t}",
    source="[IDDPM] eq. 15", of=learned_log_variance, against="50-digit arithmetic", bound=1e-14, case=any_pair,
    v=st.floats(-2, 2),
)  # fmt: skip
def the_learned_variance_of_a_step_lies_between_its_own_two(case: tuple[Schedule, tuple[int, int]], v: float) -> float:
    """Of any step from t to s, as of the respaced schedule. At s = 0 the step before, from min(2 t, T) to t, lends the
    second variance, and from T to 0 the first stands for both."""
    schedule, (s, t) = case
    actual, _ = learned_log_variance(schedule, np.array([v]), t, s)
    later, here = (t, s) if s else (min(2 * t, schedule.T), t)
    with mpmath.workdps(50):
        step = 1 - exact_alpha_bar(schedule.beta, s, t)
        before, now = (1 - exact_alpha_bar(schedule.beta, 0, u) for u in (here, later))
        other = (1 - exact_alpha_bar(schedule.beta, here, later)) * before / now if later > here else step
        high, low = mpmath.log(step), mpmath.log(other)
        expected, size = float((high + low) / 2 + mpmath.mpf(v) * (high - low) / 2), float(abs(high) + abs(low))
    return relative_error(actual, np.array([expected]), scale=np.array([1 + (1 + abs(v)) * size]))


@claim(
    r"v = -1:\ \sigma^2 = \tilde\beta_{t|s},\quad v = 1:\ \sigma^2 = \beta_{t|s}",
    source="[IDDPM] section 3.1", of=ancestral_step, against="the same step with either fixed variance", bound=1e-14,
    case=any_pair, seed=seeds(),
)  # fmt: skip
def the_ends_of_the_learned_variance_are_the_two_ancestral_steps(
    case: tuple[Schedule, tuple[int, int]], seed: int
) -> float:
    """For any earlier step s, and the same fresh noise; at s = 0 there is none, and not one bit differs."""
    schedule, (s, t) = case
    x, x0_hat, z = np.random.default_rng(seed).standard_normal((3, 20))
    worst = 0.0
    for v, fixed in ((-1.0, posterior_variance), (1.0, step_variance)):
        actual = ancestral_step(schedule, x, t, s, x0_hat, z, "learned", v=np.full(20, v))
        expected = ancestral_step(schedule, x, t, s, x0_hat, z, fixed)
        error = relative_error(actual, expected, np.abs(x) + np.abs(x0_hat) + np.abs(z))
        worst = max(worst, error if s or not error else np.inf)
    return worst


@claim(
    r"q(x_0) = \mathcal N(m, c),\ v = v^* \implies x_t \sim q(x_t)\ \text{for all } t \ge 1",
    source="[IDDPM] eq. 15", of=ancestral, against="the exact recursion of the moments of a whole run", bound=1e-12,
    case=with_run, mean=st.floats(-2, 2), c=st.floats(0.05, 0.95),
)  # fmt: skip
def the_best_learned_variance_of_a_gaussian_gives_its_exact_distribution(
    case: tuple[Schedule, Any], mean: float, c: float
) -> float:
    """Over any steps, where neither fixed variance does: the reverse step's own variance is the posterior's and that of x_0
    given x_t, weighed by the square of its factor, and lies between the two for c between 0 and 1. v* is read off it in
    closed form. The error is infinite where a fixed variance is nearer."""
    schedule, chosen = case
    down = dict(zip(chosen.tolist(), [0, *chosen[:-1].tolist()], strict=True))
    data = GaussianMixture(np.ones(1), np.array([[mean]]), np.array([[[c]]]))
    a2, s2 = schedule.alpha_bar, schedule.one_minus_alpha_bar

    def best(t: int) -> float:
        if not down[t]:
            return 0.0  # the last step adds no noise
        of_x0, _ = posterior_mean_coefficients(schedule, t, down[t])
        small, large = posterior_variance(schedule, t, down[t]), step_variance(schedule, t, down[t])
        more = (
            of_x0**2 * s2[t] * c / (a2[t] * c + s2[t]) / small
        )  # what x_0's own spread adds, in units of the posterior's
        return float(2 * np.log1p(more) / np.log(large / small) - 1)

    predict = predictor(schedule, lambda x, t: (data.x0(schedule, x, t), np.full_like(x, best(t))), "x0")
    start = float(np.sqrt(a2[chosen[-1]])) * mean, float(a2[chosen[-1]] * c + s2[chosen[-1]])
    errors = {}
    for name in ("ancestral, learned", "ancestral", "ancestral, beta"):
        *of_steps, _ = moments_of_steps(name, schedule, predict, chosen, start)
        errors[name] = [
            max(relative_error(m, np.sqrt(a2[s]) * mean, 1), relative_error(v, a2[s] * c + s2[s], 1))
            for s, m, v in of_steps
        ]
    learned, *fixed = (max(e, default=0.0) for e in errors.values())
    return learned if learned <= min(fixed) + 1e-13 else np.inf
