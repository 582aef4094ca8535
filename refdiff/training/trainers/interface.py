"""What makes the steps of a run: the interface of the trainers, one an engine, and what a step measured."""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

from ...errors import TrainingError
from ...models import Batch
from ..state import State

__all__ = ["Step", "Trainer", "check_finite"]


class Step(NamedTuple):
    """What a step measured: its number, the mean of each term over the batch, the norm of each network's gradient before it
    was clipped, and the learning rate of each. The terms of a step of several turns are named "Objective.term"."""

    step: int
    terms: dict[str, float]
    norms: dict[str, float]
    learning_rates: dict[str, float]

    @property
    def loss(self) -> float:
        """That of the first turn."""
        return next(value for name, value in self.terms.items() if name.rpartition(".")[2] == "loss")

    @property
    def gradient_norm(self) -> float:
        """Of all networks together."""
        return math.hypot(*self.norms.values())

    @property
    def learning_rate(self) -> float:
        """The largest."""
        return max(self.learning_rates.values(), default=0.0)


class Trainer(Protocol):
    """Makes one step after another."""

    def step(self, data: Batch, wait: bool = True) -> Step | None:
        """One step on a batch, entries (N, ...) by name. TrainingError, and nothing changed, when a loss or gradient is not
        finite.

        wait: False: a trainer whose device still works on the step gives None, and raises what there is to raise of it, with
        its own number, in the next call of `step` or `state`.
        """
        ...

    def state(self) -> State:
        """Where the run is now, on the host; later steps do not change it."""
        ...


def check_finite(step: int, terms: dict[str, float], norms: dict[str, float]) -> None:
    """TrainingError, which names the step, when a term or the norm of a gradient is not finite."""
    if not all(map(math.isfinite, (*terms.values(), *norms.values()))):
        found = [f"{name} {value}" for name, value in terms.items()]
        found += [f"gradient norm {value}" + (f" of {name}" if len(norms) > 1 else "") for name, value in norms.items()]
        raise TrainingError(f"step {step}: expected a finite loss and gradient, got {', '.join(found)}")
