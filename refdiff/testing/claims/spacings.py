"""Claims about the number of steps: which n of the T are taken, and a schedule that hardly knows how many there are."""

from __future__ import annotations

from fractions import Fraction
from math import gcd

import mpmath
import numpy as np
from hypothesis import strategies as st

from ...process import leading_steps, rescaled_linear, uniform_steps
from ..claim import claim
from ..measures import relative_error

lengths = st.one_of(st.integers(1, 60), st.integers(1, 1000), st.integers(1, 10_000))


@claim(
    r"t_i = 1 + \mathrm{round}\Big(i\, \frac{T - 1}{n - 1}\Big),\quad i = 0, \dots, n - 1",
    source="[Lin24] table 2", of=uniform_steps, against="rational arithmetic", bound=0.0, T=lengths, share=st.floats(0, 1),
    examples=100,
)  # fmt: skip
def uniform_steps_are_the_nearest_to_an_even_spread(T: int, share: float) -> float:
    """No step is further than 1/2 from its place, and where floating-point numbers hold the places without rounding, halves
    go to the even number of t - 1. The error is how many steps differ."""
    n = 2 + round(share * (T - 2)) if T > 1 else 1
    t = uniform_steps(T, n).tolist()
    places = [Fraction(i * (T - 1), n - 1) for i in range(n)] if n > 1 else [Fraction(T - 1)]
    far = sum(abs(i - 1 - place) > Fraction(1, 2) for i, place in zip(t, places, strict=True))
    parts = max(n - 1, 1) // gcd(T - 1, max(n - 1, 1))
    exact = parts & (parts - 1) == 0  # multiples of a power of two
    return far + float(exact and t != [1 + round(place) for place in places])


@claim(
    r"t_i = 1 + i\, \lfloor T / n \rfloor,\quad i = 0, \dots, n - 1",
    source="[Lin24] table 2", of=leading_steps, against="counting with a stride", bound=0.0, T=lengths,
    share=st.floats(0, 1), examples=100,
)  # fmt: skip
def leading_steps_begin_at_1_and_stop_short_of_T(T: int, share: float) -> float:
    """The first n numbers of a count from 1 by the largest stride that fits n times into T; what is left over is at the end,
    and the last is T for n = T alone. The error is how many of these demands fail."""
    n = 1 + round(share * (T - 1))
    t, stride = leading_steps(T, n).tolist(), max(k for k in range(1, T + 1) if k * n <= T)
    return float(sum([t != list(range(1, T + 1, stride))[:n], len(t) != n, (t[-1] == T) != (n == T)]))


@claim(
    r"\beta_t = \tfrac{1000}{T} \big(\beta_1 + \tfrac{t - 1}{T - 1} (\beta_T - \beta_1)\big),\quad"
    r" \log\bar\alpha_T \to -500\, (\beta_1 + \beta_T) \ \text{as}\ T \to \infty",
    source="[IDDPM], its code", of=rescaled_linear, against="50-digit arithmetic, and the limit", bound=1e-14,
    T=st.integers(50, 5000), start=st.floats(1e-6, 1e-3), end=st.floats(2e-3, 0.02),
)  # fmt: skip
def the_rescaled_linear_schedule_has_one_end_for_every_T(T: int, start: float, end: float) -> float:
    """log alpha_bar_T is below its limit by half the sum of beta^2 and less than twice that."""
    schedule = rescaled_linear(T, start, end)
    with mpmath.workdps(50):
        low, high = mpmath.mpf(start), mpmath.mpf(end)
        beta = [1000 * (low + (high - low) * t / (T - 1)) / T for t in range(T)]
        log_alpha_bar = mpmath.fsum(mpmath.log1p(-b) for b in beta)
        below = float(-500 * (low + high) - log_alpha_bar)
        half = float(mpmath.fsum(b * b for b in beta) / 2)
        expected = [float(b) for b in beta], float(mpmath.exp(log_alpha_bar))
    if not half < below < 2 * half:
        return np.inf
    return max(relative_error(schedule.beta[1:], expected[0]), relative_error(schedule.alpha_bar[-1], expected[1]))
