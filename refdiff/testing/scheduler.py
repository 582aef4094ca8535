"""The adapter through which a claim speaks to a scheduler, ours or anybody's: seven methods, any of them optional.

A claim asks for the methods it needs; a scheduler without one of them is not asked. Arrays are NumPy, (N, ...) with at
least two axes, float64, float32 or float16. t runs from 1 to T as in the papers: an adapter of code that counts from 0
adds 1 to its steps. What a scheduler does by choice it may declare, by two attributes, and is then held to that.
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

__all__ = [
    "DTYPES",
    "SCHEDULER_METHODS",
    "VARIANCES",
    "Declared",
    "RefdiffScheduler",
    "Scheduler",
    "expected_methods",
    "offers",
]

SCHEDULER_METHODS = ("alpha_bar", "add_noise", "target", "timesteps", "step", "sample", "published_schedule")
VARIANCES = ("posterior", "beta")
DTYPES = ("float64", "float32")


class Scheduler(Protocol):
    """What a claim may ask.

    Attributes, where they are there, declare a convention:
    variance: of a step's noise, "posterior" [DDPM] eq. 7 or anything less, as DDIM's (the default), or "beta", the other
    of the two that [DDPM] section 3.2 names: beta_{t|s}, and none in the last step. all_steps: True if it has no runs but
    that of all T steps.
    """

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

    def published_schedule(self) -> tuple[str, dict[str, Any]] | None:
        """Which published schedule alpha_bar is: a name and the options of `published_schedules.PUBLISHED`; None: none."""


def offers(scheduler: Any, needs: Sequence[str]) -> bool:
    """Whether it has these methods, and a published schedule if that is asked for."""
    return all(callable(getattr(scheduler, name, None)) for name in needs) and (
        "published_schedule" not in needs or scheduler.published_schedule() is not None
    )


def expected_methods() -> str:
    """The methods with their arguments, for a message."""
    return ", ".join(
        f"{name}({', '.join([*inspect.signature(getattr(Scheduler, name)).parameters][1:])})"
        for name in SCHEDULER_METHODS
    )


class Declared:
    """A scheduler with more declared of it than it says itself. It answers as it does, to data of `dtype` if one is given.

    variance, all_steps: as those of `Scheduler`, where not None. found: the names of those that nobody declared.
    """

    def __init__(
        self,
        scheduler: Any,
        variance: str | None = None,
        all_steps: bool | None = None,
        dtype: str | None = None,
        found: Sequence[str] = (),
    ) -> None:
        if variance is not None:
            one_of("variance", variance, VARIANCES)
        if dtype is not None:
            one_of("dtype", dtype, DTYPES)
        self.scheduler, self.dtype, self.found = scheduler, dtype, tuple(found)
        for name, value in (("variance", variance), ("all_steps", all_steps)):
            if value is not None:
                setattr(self, name, value)

    def __getattr__(self, name: str) -> Any:
        if name == "scheduler" or name.startswith("__"):  # not there yet, as when it is copied
            raise AttributeError(name)
        value = getattr(self.scheduler, name)
        return (
            value
            if self.dtype is None or name not in SCHEDULER_METHODS
            else lambda *given: value(*map(self._cast, given))
        )

    def _cast(self, given: Any) -> Any:
        if isinstance(given, np.ndarray) and given.dtype.kind == "f":
            return given.astype(self.dtype, copy=False)
        return (lambda *args: self._cast(given(*args))) if callable(given) else given


class RefdiffScheduler:
    """Ours: a schedule with the DDIM step of some eta (1 is the ancestral step), for a kind of prediction.

    schedule: a `Schedule`, or the name of one of SCHEDULES, then of T steps. kind: of PREDICTIONS.
    """

    def __init__(self, schedule: Schedule | str = "linear", kind: str = "eps", eta: float = 1.0, T: int = 1000) -> None:
        self._published = None
        if isinstance(schedule, str):
            one_of("schedule", schedule, tuple(SCHEDULES))
            self._published = schedule, {"T": T}
            schedule = SCHEDULES[schedule](T)
        one_of("kind", kind, PREDICTIONS)
        if not (isinstance(eta, int | float) and 0 <= eta <= 1):
            raise ValueError(f"eta: expected a number from 0 (deterministic) to 1 (ancestral), got {eta}")
        self.schedule, self.kind, self.eta = schedule, kind, eta

    def published_schedule(self) -> tuple[str, dict[str, Any]] | None:
        return self._published

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
            x0_hat, eps_hat = predict(x, t)
            x = ddim_step(self.schedule, x, t, t_prev, x0_hat, eps_hat, self.eta, noise(t))
        return x
