"""Claims about the published schedules: each as its paper writes it, and figures that were published with one."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from typing import Any

import mpmath
import numpy as np
from hypothesis import strategies as st

from ...process import (
    Schedule,
    cosine,
    from_alpha_bar,
    from_beta,
    linear,
    quadratic,
    scaled_linear,
    sigmoid,
    trailing_steps,
    uniform_steps,
)  # fmt: skip
from ..claim import claim
from ..measures import exact_alpha_bar, relative_error
from ..strategies import lengths, pairs, schedules, steps

with_step: Any = schedules(respaced=False).flatmap(lambda s: st.tuples(st.just(s), steps(s)))
with_pair: Any = schedules(respaced=False).flatmap(lambda s: st.tuples(st.just(s), pairs(s)))
ends: Any = st.tuples(st.floats(-6, 1), st.floats(1.5, 6), st.floats(0.3, 2))


def _beta_error(schedule: Schedule, alpha_bar_of: Callable[[int], Any], beta_max: float) -> float:
    """The largest error of any beta_t, relative, against 1 - alpha_bar_t / alpha_bar_{t-1} in 50 digits, cut at beta_max."""
    with mpmath.workdps(50):
        alpha_bar = [alpha_bar_of(t) for t in range(schedule.T + 1)]
        beta = [float(min(1 - b / a, mpmath.mpf(beta_max))) for a, b in pairwise(alpha_bar)]
    return float(np.max(np.abs(schedule.beta[1:] / beta - 1)))


@claim(
    r"\bar\alpha_t = \frac{f(t)}{f(0)},\quad f(t) = \cos^2\Big(\frac{t/T + s}{1 + s} \cdot \frac\pi2\Big),\quad"
    r" \beta_t = \min\Big(1 - \frac{\bar\alpha_t}{\bar\alpha_{t-1}},\ \beta_{\max}\Big)",
    source="[IDDPM] eq. 17, section 3.2", of=cosine, against="50-digit arithmetic, every t", bound=2e-15,
    T=lengths(400), s=st.floats(1e-4, 1), beta_max=st.sampled_from([0.5, 0.999, 1 - 1e-9]),
)  # fmt: skip
def the_cosine_schedule_is_the_papers(T: int, s: float, beta_max: float) -> float:
    """Each beta_t relative to itself, from T = 1 on, for any offset s: nothing is lost to the difference that is written."""

    def alpha_bar_of(t: int) -> Any:
        return mpmath.cos((mpmath.mpf(t) / T + mpmath.mpf(s)) / (1 + mpmath.mpf(s)) * mpmath.pi / 2) ** 2

    return _beta_error(cosine(T, s, beta_max), alpha_bar_of, beta_max)


@claim(
    r"\bar\alpha_t = \frac{S(b) - S(a_t)}{S(b) - S(a_0)},\quad a_t = \frac{\mathrm{start} + (\mathrm{end} -"
    r" \mathrm{start})\, t/T}{\tau},\quad b = \frac{\mathrm{end}}{\tau}",
    source="[Chen23] algorithm 1", of=sigmoid, against="50-digit arithmetic, every t", bound=1e-14, T=lengths(400),
    range_and_tau=ends, beta_max=st.sampled_from([0.5, 0.999, 1 - 1e-9]),
)  # fmt: skip
def the_sigmoid_schedule_is_the_papers(T: int, range_and_tau: tuple[float, float, float], beta_max: float) -> float:
    """S is the logistic function. Each beta_t relative to itself; what the paper clips is alpha_bar, this caps beta, so the
    two are one schedule up to the cap."""
    start, end, tau = (mpmath.mpf(number) for number in range_and_tau)

    def alpha_bar(t: int) -> Any:
        high, low, now = (1 / (1 + mpmath.exp(-a / tau)) for a in (end, start, start + (end - start) * t / T))
        return (high - now) / (high - low)

    return _beta_error(sigmoid(T, *range_and_tau, beta_max), alpha_bar, beta_max)


@claim(
    r"\beta_t = \beta_1 + \tfrac{t - 1}{T - 1} (\beta_T - \beta_1),\qquad"
    r" \sqrt{\beta_t} = \sqrt{\beta_1} + \tfrac{t - 1}{T - 1} \big(\sqrt{\beta_T} - \sqrt{\beta_1}\big)",
    source="[DDPM] section 4, [LDM]", of=linear, against="exact rational and 50-digit arithmetic", bound=2e-15,
    T=lengths(400), low=st.floats(1e-10, 1e-3), high=st.floats(2e-3, 0.99),
)  # fmt: skip
def the_linear_schedules_rise_evenly(T: int, low: float, high: float) -> float:
    """Linear in beta, and in its root as latent diffusion has it; each beta_t relative to itself. T = 1 is the first end."""
    share = [Fraction(t, max(T - 1, 1)) for t in range(T)]
    even = [float(Fraction(low) + s * (Fraction(high) - Fraction(low))) for s in share]
    with mpmath.workdps(50):
        first, last = mpmath.sqrt(mpmath.mpf(low)), mpmath.sqrt(mpmath.mpf(high))
        roots = [float((first + (last - first) * s.numerator / s.denominator) ** 2) for s in share]
    actual = [build(T, low, high).beta[1:] for build in (linear, quadratic, scaled_linear)]
    return float(max(np.max(np.abs(a / b - 1)) for a, b in zip(actual, (even, roots, roots), strict=True)))


@claim(
    r"\sigma_1 = 0.0292,\qquad \sigma_T = 14.6146,\qquad \sigma^2 = \frac{1 - \bar\alpha}{\bar\alpha}",
    source="[LDM], [KDiffusion]", of=scaled_linear, against="the ends that public samplers of Stable Diffusion print",
    bound=1e-4, examples=1,
)  # fmt: skip
def the_scaled_linear_schedule_has_the_sigmas_of_stable_diffusion() -> float:
    """Its defaults; the figures have four decimals, the bound is one of them."""
    schedule = scaled_linear()
    sigma = np.sqrt(schedule.one_minus_alpha_bar / schedule.alpha_bar)
    return float(max(abs(sigma[1] - 0.0292), abs(sigma[-1] - 14.6146)))


@claim(
    r"\beta_t = 1 - \frac{\bar\alpha_t}{\bar\alpha_{t-1}}",
    source="[IDDPM] section 3.2", of=from_alpha_bar, against="exact rational arithmetic on the numbers given", bound=4e-16,
    schedule=schedules(), beta_max=st.sampled_from([0.01, 0.999, 1.0]),
)  # fmt: skip
def beta_is_the_relative_fall_of_alpha_bar(schedule: Schedule, beta_max: float) -> float:
    """As absolute errors: beta is only as exact as the differences of the numbers given."""
    given = [Fraction(a) for a in schedule.alpha_bar.tolist()]
    if any(b >= a for a, b in pairwise(given)):
        return 0.0  # steps too small for float64 to tell apart are refused, which a test sees to
    expected = [min(1 - b / a, Fraction(beta_max)) for a, b in pairwise(given)]
    actual = from_alpha_bar(schedule.alpha_bar, beta_max).beta[1:].tolist()
    return float(
        max(abs(Fraction(a) - b) / max(b, Fraction(1, 1 << 10)) for a, b in zip(actual, expected, strict=True))
    )


@claim(
    r"\mathrm{SNR}(t) = \frac{\bar\alpha_t}{1 - \bar\alpha_t}",
    source="[VDM] eq. 2", of="refdiff.process.schedules.Schedule.snr", against="50-digit arithmetic, from beta",
    bound=1e-14, case=with_step,
)  # fmt: skip
def the_signal_to_noise_ratio_is_exact_at_both_ends(case: tuple[Schedule, int]) -> float:
    """Relative, whether the ratio is 1e10 or 1e-10; infinite at t = 0."""
    schedule, t = case
    with mpmath.workdps(50):
        alpha_bar = exact_alpha_bar(schedule.beta, 0, t)
        expected = float(alpha_bar / (1 - alpha_bar))
    return relative_error(schedule.snr[t], expected) if np.isposinf(schedule.snr[0]) else np.inf


@claim(
    r"S_t - S_k = \sum_{s=k+1}^t \log(1 - \beta_s)",
    source="[Knuth] section 4.2.2", of=from_beta,
    against="exact rational sums of the same logarithms", bound=2.0**-80, case=with_pair,
)  # fmt: skip
def partial_sums_lose_nothing(case: tuple[Schedule, tuple[int, int]]) -> float:
    """Each sum is two float64, high and low, whose differences have 80 bits and more of the largest of them: far along, a
    single float64 would keep 52. The schedules of the library sum log1p(-beta)."""
    schedule, (k, t) = case
    terms = [Fraction(x) for x in np.log1p(-schedule.beta[1:]).tolist()]
    high, low = ([Fraction(x) for x in row] for row in schedule.log_alpha_bar.tolist())
    error = abs(high[t] + low[t] - high[k] - low[k] - sum(terms[k:t]))
    return float(error / max(abs(high[t]), Fraction(1, 1 << 60)))


@claim(
    r"\mathrm{linspace:}\ 1, 112, 223, \dots, 1000,\qquad \mathrm{trailing:}\ 100, 200, \dots, 1000",
    source="[Lin24] table 2", of=trailing_steps, against="the rows of the published table, T = 1000 and S = 10", bound=0.0,
    examples=1,
)  # fmt: skip
def the_selections_of_steps_are_those_of_the_published_table() -> float:
    """How many of the 20 numbers differ."""
    linspace = [1, 112, 223, 334, 445, 556, 667, 778, 889, 1000]
    trailing = [100, 200, 300, 400, 500, 600, 700, 800, 900, 1000]
    return float((uniform_steps(1000, 10) != linspace).sum() + (trailing_steps(1000, 10) != trailing).sum())
