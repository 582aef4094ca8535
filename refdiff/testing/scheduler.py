"""The adapter through which a claim speaks to a scheduler, ours or anybody's: six methods, of which any may be missing.

A claim asks for the methods it needs; a scheduler without one of them is not asked. Arrays are NumPy, (N, ...) with at
least two axes, float64, float32 or float16. t runs from 1 to T as in the papers: an adapter of code that counts from 0
adds 1 to its steps.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Protocol

import numpy as np

from ..errors import one_of
from ..process import PREDICTIONS, SCHEDULES, Schedule, ddim_step, predictor, q_sample, target, uniform_steps
from ..process.predictions import convert

__all__ = ["METHODS", "RefdiffScheduler", "Scheduler", "expected_methods", "offers"]

METHODS = ("alpha_bar", "add_noise", "target", "timesteps", "step", "sample")


class Scheduler(Protocol):
    """What a claim may ask."""

    def alpha_bar(self) -> np.ndarray:
        """alpha_bar_0 = 1, alpha_bar_1, ..., alpha_bar_T.   -> (T+1,)"""

    def add_noise(self, x0: np.ndarray, eps: np.ndarray, t: Any) -> np.ndarray:
        """A sample of q(x_t | x_0) made of this eps.   x0, eps (N, ...), t an integer or (N,) -> (N, ...)"""

    def target(self, x0: np.ndarray, eps: np.ndarray, t: Any) -> np.ndarray:
        """What a perfect network would predict: eps, x0 or v, as the scheduler is configured.   -> (N, ...)"""

    def timesteps(self, n: int) -> Sequence[float]:
        """The steps at which the network is asked in a run of n, from the first to the last, within 1 .. T.

        A scheduler that keeps a state begins a new run here. Steps between two integers are allowed; there, log of
        alpha_bar / (1 - alpha_bar) is taken to be linear.
        """

    def step(self, x_t: np.ndarray, t: float, t_prev: float, output: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """x at t_prev from x at t, the network's output and fresh noise N(0, I) (ignored if deterministic).

        t and t_prev are neighbours in the last `timesteps`, t_prev = 0 after its last.
        """

    def sample(
        self,
        model: Callable[[np.ndarray, float], np.ndarray],
        x: np.ndarray,
        n: int,
        noise: Callable[[float], np.ndarray],
    ) -> np.ndarray:
        """A whole run of n steps from x ~ N(0, I); model(x_t, t) -> output, noise(t) -> N(0, I) of x's shape."""


def offers(scheduler: object, needs: Sequence[str]) -> bool:
    """Whether the scheduler has these methods."""
    return all(callable(getattr(scheduler, name, None)) for name in needs)


def expected_methods() -> str:
    """The six methods with their arguments, for a message."""
    return ", ".join(
        f"{name}({', '.join([*inspect.signature(getattr(Scheduler, name)).parameters][1:])})" for name in METHODS
    )


class RefdiffScheduler:
    """Ours: a schedule with the DDIM step of some eta (1 is the ancestral step), for a kind of prediction.

    schedule: a `Schedule`, or the name of one of SCHEDULES, then of T steps. kind: of PREDICTIONS.
    """

    def __init__(self, schedule: Schedule | str = "linear", kind: str = "eps", eta: float = 1.0, T: int = 1000) -> None:
        if isinstance(schedule, str):
            one_of("schedule", schedule, tuple(SCHEDULES))
            schedule = SCHEDULES[schedule](T)
        one_of("kind", kind, PREDICTIONS)
        if not 0 <= eta <= 1:
            raise ValueError(f"eta: expected a number from 0 (deterministic) to 1 (ancestral), got {eta}")
        self.schedule, self.kind, self.eta = schedule, kind, eta

    def alpha_bar(self) -> np.ndarray:
        return self.schedule.alpha_bar

    def add_noise(self, x0: np.ndarray, eps: np.ndarray, t: Any) -> np.ndarray:
        return q_sample(self.schedule, x0, t, eps)

    def target(self, x0: np.ndarray, eps: np.ndarray, t: Any) -> np.ndarray:
        return target(self.schedule, self.kind, x0, eps, t)

    def timesteps(self, n: int) -> Sequence[int]:
        return uniform_steps(self.schedule.T, n)[::-1].tolist()

    def step(self, x_t: np.ndarray, t: int, t_prev: int, output: np.ndarray, noise: np.ndarray) -> np.ndarray:
        x0_hat, eps_hat = (convert(self.schedule, x_t, t, output, self.kind, kind) for kind in ("x0", "eps"))
        return ddim_step(self.schedule, x_t, t, t_prev, x0_hat, eps_hat, self.eta, noise)

    def sample(
        self, model: Callable[[np.ndarray, int], np.ndarray], x: np.ndarray, n: int, noise: Callable[[int], np.ndarray]
    ) -> np.ndarray:
        predict = predictor(self.schedule, model, self.kind)
        steps = [*self.timesteps(n), 0]
        for t, t_prev in pairwise(steps):
            x = ddim_step(self.schedule, x, t, t_prev, *predict(x, t), self.eta, noise(t))
        return x
