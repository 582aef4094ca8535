"""Training on the CPU engine: weights, moments and average are flat buffers that each step writes in place."""

from __future__ import annotations

import numpy as np

from ..config import Config
from ..engines.cpu.runtime.blocks import trim_heap
from ..process import Schedule
from .halves import Halves
from .optimiser import learning_rate
from .state import State
from .step import Step, check_finite

__all__ = ["Flat"]

_TREES = ("p", "average", "m", "v")


class Flat:
    """The trainer of the CPU engine: what `train_step` computes, but for rounding, and without a copy of the weights."""

    def __init__(self, config: Config, schedule: Schedule, state: State) -> None:
        self.config, self.first, self.number, self.seen = config, state.step, state.step, state.seen
        self.halves = Halves(config, schedule, (*_TREES, "g0", "g1"))
        for name in _TREES:
            self.halves.packing.pack(getattr(state, name), self.halves.buffers[name])

    def step(self, x0: np.ndarray, wait: bool = True) -> Step:
        if self.number == self.first:
            trim_heap()  # the state that the run began from, as large as the buffers here
        step, s = self.number + 1, self.config.train
        loss, norm = self.halves.step(step, x0)
        check_finite(step, loss, norm)
        rate = learning_rate(step, s.steps, s.learning_rate, s.warmup, s.decay)
        self.halves.update(step, rate, min(1.0, s.clip / norm) if s.clip and norm else 1.0, len(x0))
        self.number, self.seen = step, self.seen + len(x0)
        return Step(step, loss, norm, rate)

    def state(self) -> State:
        trees = {name: self.halves.packing.unpack(self.halves.buffers[name].copy()) for name in _TREES}
        return State(self.number, seen=self.seen, **trees)
