"""Hypothesis strategies: schedules of every kind, their steps, seeds and shapes, to test any diffusion code with.

    @given(schedules().flatmap(lambda s: tuples(just(s), pairs(s))), shapes(), seeds())

What shrinks is the schedule, the shape and the seed. The contents of arrays are not drawn: they come from
`numpy.random.default_rng(seed)`, so that they are never the zeros and ones for which a wrong equation is right.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import extra
from ..process import ContinuousSchedule, beta_linear_gamma, between_ends, cosine_gamma, linear_gamma, uniform_steps
from ..process import schedules as _schedules
from ..process.schedules import Schedule

try:
    from hypothesis import strategies as st
except ModuleNotFoundError:
    raise ImportError(f"refdiff.testing.strategies needs hypothesis, which is not installed: {extra('test')}") from None

__all__ = [
    "continuous_schedules",
    "every_schedule",
    "lengths",
    "pairs",
    "schedule_kinds",
    "schedules",
    "seeds",
    "shapes",
    "steps",
    "timesteps",
]


def seeds(bits: int = 32) -> st.SearchStrategy[int]:
    """Seeds of a random generator, integers of `bits` bits."""
    return st.integers(0, (1 << bits) - 1)


def shapes(min_dims: int = 1, max_dims: int = 4, max_side: int = 4) -> st.SearchStrategy[tuple[int, ...]]:
    """Shapes of arrays, no side of them 0; the first side is the number of samples."""
    return st.lists(st.integers(1, max_side), min_size=min_dims, max_size=max_dims).map(tuple)


def lengths(max_T: int = 1000) -> st.SearchStrategy[int]:
    """Numbers of steps T from 1 to max_T, mostly small, often 1 or 2, sometimes the largest."""
    small, medium = st.integers(1, min(12, max_T)), st.integers(1, min(100, max_T))
    return st.one_of(st.integers(1, min(2, max_T)), small, medium, medium, st.integers(1, max_T), st.just(max_T))


def sizes() -> st.SearchStrategy[float]:
    """Factors of beta: mostly 1, else down to 1e-10."""
    return st.one_of(st.just(1.0), st.just(1.0), st.integers(1, 10).map(lambda power: 10.0**-power))


def every_schedule() -> dict[str, Schedule]:
    """All kinds by name: every kind with T = 1, 2 and 1000, beta down to 1e-10, respaced ones, alpha_bar_T = 0."""
    every = {f"{name}({T})": build(T) for name, build in sorted(_schedules.SCHEDULES.items()) for T in (1, 2, 1000)}
    every |= {
        "constant(3, 1e-10)": _schedules.constant(3, 1e-10),
        "linear(50, 1e-10, 0.5)": _schedules.linear(50, 1e-10, 0.5),
    }
    long = {name: build(1000) for name, build in sorted(_schedules.SCHEDULES.items())}
    few: dict[str, Any] = {"uniform": uniform_steps(1000, 7), "first and last": [1, 1000], "middle": [500]}
    every |= {f"{name}, {which}": s.respaced(list(t)) for name, s in long.items() for which, t in few.items()}
    every |= {f"{name}, zero": _schedules.rescale_zero_terminal_snr(s) for name, s in every.items() if s.T in (2, 1000)}
    return every | {"beta = 0.3, 1": _schedules.from_beta([0.3, 1.0])}


@st.composite
def schedule_kinds(draw: st.DrawFn, max_T: int = 1000) -> tuple[str, dict[str, Any]]:
    """(name, arguments) for `SCHEDULES[name](**arguments)`: every kind, T from 1 to max_T, the ends within reason.

    Reason: alpha_bar_T is seldom below 1e-10 (all the beta_t together stay below about 20), as in the papers. beta may be
    as small as 1e-13 (of the constant schedule 1e-12), in cosine and sigmoid by their cap.
    """
    name = draw(st.sampled_from(sorted(_schedules.SCHEDULES)))
    T = draw(lengths(max_T))
    if draw(st.integers(0, 3)) == 0:
        return name, {"T": T}  # the paper's own ends
    if name == "cosine":
        cap = draw(st.sampled_from([0.999, 0.9, 0.5])) * draw(sizes())
        return name, {"T": T, "s": draw(st.floats(1e-3, 0.2)), "beta_max": cap}
    if name == "sigmoid":
        start, end, tau = draw(st.floats(-6, 1)), draw(st.floats(1.5, 6)), draw(st.floats(0.3, 2))
        cap = draw(st.sampled_from([0.999, 0.8])) * draw(sizes())
        return name, {"T": T, "start": start, "end": end, "tau": tau, "beta_max": cap}
    high = draw(st.floats(0.01, 1)) * min(0.8, 20 / T) * draw(sizes())
    if name == "constant":
        return name, {"T": T, "beta": high}
    if name == "rescaled_linear":  # whose ends are those of 1000 steps
        high *= T / 1000
    return name, {"T": T, "beta_start": high * draw(st.floats(1e-3, 0.99)), "beta_end": high}


@st.composite
def schedules(draw: st.DrawFn, max_T: int = 1000, terminal: bool = False, respaced: bool = True) -> Schedule:
    """Schedules of T from 1 to max_T: each kind, random variances down to 1e-13, and either of these respaced.

    terminal: whether beta_T = 1, so alpha_bar_T = 0, may be among them. respaced: whether respaced ones may be, and with
    terminal those of `rescale_zero_terminal_snr`; their beta is rounded, so a formula in beta alone is as exact as theirs
    only where beta is not all but 1.
    """
    if draw(st.booleans()):
        name, arguments = draw(schedule_kinds(max_T))
        schedule = _schedules.SCHEDULES[name](**arguments)
    else:
        T = draw(lengths(max_T))
        rng = np.random.default_rng(draw(seeds()))
        beta = rng.uniform(1e-3, 1, T) ** draw(st.sampled_from([1, 2])) * min(0.8, 20 / T)
        schedule = _schedules.from_beta(beta * draw(sizes()))
    if terminal and draw(st.booleans()):
        if respaced and schedule.T > 1 and draw(st.booleans()):
            schedule = _schedules.rescale_zero_terminal_snr(schedule)
        else:
            schedule = _schedules.from_beta([*schedule.beta[1:-1], 1.0])
    if respaced and draw(st.integers(0, 3)) == 0:
        schedule = schedule.respaced(draw(timesteps(schedule)).tolist())
    return schedule


@st.composite
def continuous_schedules(draw: st.DrawFn) -> ContinuousSchedule:
    """Schedules in continuous time: linear in gamma, cosine, linear in beta, and a rising inside of random curves; ends
    from -14 to 10."""
    kind = draw(st.sampled_from(["linear", "cosine", "linear in beta", "curved", "curved"]))
    if kind == "linear in beta":
        return beta_linear_gamma(10 ** draw(st.floats(-5, -1)), draw(st.floats(1, 15)))
    low = draw(st.floats(-14, 2))
    high = low + draw(st.floats(0.5, 8 if low > 0 else 10 - low))
    if kind != "curved":
        return {"linear": linear_gamma, "cosine": cosine_gamma}[kind](low, high)
    return between_ends(low, high, rising_curve(draw(seeds())))


def rising_curve(seed: int) -> Any:
    """m(t) = t + a mean of weighted sigmoids of rate t + shift, and m'(t): a function of t, of any shape, complex too."""
    rng = np.random.default_rng(seed)
    rates, shifts, weights = (rng.uniform(low, high, 6) for low, high in ((1, 15), (-10, 3), (0, 3)))

    def inside(t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        s = 1 / (1 + np.exp(-(rates * np.asarray(t)[..., None] + shifts)))
        return t + s @ weights / 6, 1 + (s * (1 - s)) @ (weights * rates) / 6

    return inside


def steps(schedule: Schedule, first: int = 1) -> st.SearchStrategy[int]:
    """Steps t of a schedule, from first to T."""
    return st.integers(first, schedule.T)


@st.composite
def pairs(draw: st.DrawFn, schedule: Schedule, strict: bool = False) -> tuple[int, int]:
    """(k, t) with 0 <= k <= t <= T, k below t when strict: often neighbours, often one at an end."""
    t = draw(st.one_of(st.just(schedule.T), steps(schedule, 1 if strict else 0)))
    last = t - 1 if strict else t
    return draw(st.one_of(st.just(max(t - 1, 0)), st.just(0), st.integers(0, last))), t


@st.composite
def timesteps(draw: st.DrawFn, schedule: Schedule) -> np.ndarray:
    """Steps from 1 to T in increasing order, at least one: some evenly spread, some at random.   -> (n,) integers."""
    n = draw(st.integers(1, min(schedule.T, 50)))
    if draw(st.booleans()):
        return uniform_steps(schedule.T, n)
    rng = np.random.default_rng(draw(seeds()))
    return np.sort(rng.choice(schedule.T, n, replace=False)) + 1
