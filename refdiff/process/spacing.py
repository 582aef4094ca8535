"""Which n of the steps 1 .. T a sampler takes: functions of (T, n) -> (n,) increasing integers.

They end at T, where x is noise, all but `leading_steps`. ValueError unless T >= 1 and n, 1 <= n <= T, are integers.
`SPACINGS` holds them by name, as functions of (schedule, n).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .arrays import single
from .schedules import Schedule, number_of_steps

__all__ = ["SPACINGS", "karras_steps", "leading_steps", "quadratic_steps", "trailing_steps", "uniform_steps"]


def uniform_steps(T: int, n: int) -> np.ndarray:
    """t_i = 1 + round(i (T - 1) / (n - 1)), i = 0 .. n - 1: evenly spread, with both ends.   [Lin24] table 2, "linspace"

    Halves go to the even number of t - 1, which the public codes count: these are the steps of "linspace" in diffusers for
    every T and n up to 1000, and of guided-diffusion but where its running sum rounds a half to the other side. For n = 1
    those take the first step; T alone is taken here, where the noise is that sampling begins with.
    """
    _check(T, n)
    return np.array([T]) if n == 1 else 1 + np.round(np.linspace(0, T - 1, n)).astype(int)


def leading_steps(T: int, n: int) -> np.ndarray:
    """t_i = 1 + i floor(T / n), i = 0 .. n - 1.   [Lin24] table 2, "leading"

    What many published samplers take. It ends before T: sampling then begins with pure noise at a step where the network
    has learned that some of the data are left [Lin24] section 3.3. For T = 1000 and n = 50 that is t = 981; for n = 1 it
    is t = 1, and for n above T / 2 the first n steps. Take another, unless the comparison asks for this one.
    """
    _check(T, n)
    return 1 + np.arange(n) * (T // n)


def trailing_steps(T: int, n: int) -> np.ndarray:
    """t_i = round(i T / n): the gaps, that from 0 to the first among them, differ by 1 at most.   [Lin24] table 2"""
    _check(T, n)
    return np.round(np.arange(1, n + 1) * T / n).astype(int)


def quadratic_steps(T: int, n: int) -> np.ndarray:
    """sqrt(t - 1) evenly spread from t = 1 to T, so most steps lie where there is little noise.   [DDIM] appendix D.2

    Where that asks for one step twice, the next free one is taken. T alone for n = 1.
    """
    _check(T, n)
    return np.array([T]) if n == 1 else _distinct(1 + (T - 1) * np.linspace(0, 1, n) ** 2, T)


def karras_steps(schedule: Schedule, n: int, rho: float = 7.0) -> np.ndarray:
    """The steps nearest to sigma^(1/rho) evenly spread between its values at 1 and T.   [EDM] eq. 5

    sigma = sqrt((1 - alpha_bar) / alpha_bar), nearest in log sigma; where two fall on one step, the next free one is
    taken. T alone for n = 1. ValueError if rho <= 0, or where alpha_bar_T = 0, whose sigma is infinite.
    """
    T = schedule.T
    _check(T, n)
    single("rho", rho)
    if not rho > 0:
        raise ValueError(f"rho: expected a number above 0, got {rho}")
    if schedule.alpha_bar[T] == 0:
        raise ValueError(
            "schedule: expected alpha_bar_T > 0, got 0, where sigma is infinite; "
            "use trailing_steps, uniform_steps, quadratic_steps or leading_steps"
        )
    log_sigma = -0.5 * np.log(schedule.snr[1:])
    low, high = np.exp(log_sigma[0] / rho), np.exp(log_sigma[-1] / rho)
    target = rho * np.log(low + (high - low) * np.linspace(0, 1, n))
    above = np.searchsorted(log_sigma, target).clip(1, T - 1)  # for T = 1 both are its only step
    below = above - 1
    nearer = np.where(target - log_sigma[below] < log_sigma[above] - target, below, above)
    return np.array([T]) if n == 1 else _distinct(nearer + 1, T)


SPACINGS: dict[str, Callable[[Schedule, int], np.ndarray]] = {
    "uniform": lambda schedule, n: uniform_steps(schedule.T, n),
    "leading": lambda schedule, n: leading_steps(schedule.T, n),
    "trailing": lambda schedule, n: trailing_steps(schedule.T, n),
    "quadratic": lambda schedule, n: quadratic_steps(schedule.T, n),
    "karras": karras_steps,
}


def _distinct(t: np.ndarray, T: int) -> np.ndarray:
    """t rounded, rising from 1 to T, and where a step would repeat, the next free one.   (n,) -> (n,)."""
    i = np.arange(len(t))
    # t_i - i must not fall: then t_i rises by 1 at least. What is pushed beyond the end lines up before T.
    return np.maximum.accumulate(np.round(t).astype(int) - i).clip(max=T - len(t) + 1) + i


def _check(T: int, n: int) -> None:
    number_of_steps(T)
    if not isinstance(n, int | np.integer) or not 1 <= n <= T:
        raise ValueError(f"n: expected a number of steps from 1 to T = {T}, got {n}")
