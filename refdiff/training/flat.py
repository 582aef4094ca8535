"""Training on the CPU engine: weights, moments and average are flat buffers that each step writes in place, by threads."""

from __future__ import annotations

import numpy as np

from .. import models
from ..engines.cpu.optimiser import global_norm, update
from ..models import flatten
from ..process import Schedule
from .config import Config
from .optimiser import learning_rate
from .packing import Packing
from .state import State
from .step import Step, check_finite, loss_and_gradient

__all__ = ["Flat"]


class Flat:
    """The trainer of the CPU engine: what `train_step` computes, but for rounding, and without a copy of the weights."""

    def __init__(self, config: Config, schedule: Schedule, state: State) -> None:
        self.config, self.schedule, self.number, self.seen = config, schedule, state.step, state.seen
        self.packing = Packing.of(models.layout(config.model))
        self.flats = [self.packing.pack(tree) for tree in (state.p, state.average, state.m, state.v)]
        self.p, self.average, self.m, self.v = (self.packing.unpack(flat) for flat in self.flats)

    def step(self, x0: np.ndarray) -> Step:
        step, s = self.number + 1, self.config.train
        loss, g = loss_and_gradient(self.config, self.schedule, self.p, x0, step)
        p, average, m, v, g = (flatten(tree) for tree in (self.p, self.average, self.m, self.v, g))
        norm = global_norm(g)
        check_finite(step, loss, norm)
        rate = learning_rate(step, s.steps, s.learning_rate, s.warmup, s.decay)
        scale = min(1.0, s.clip / norm) if s.clip and norm else 1.0
        update(p, g, m, v, average, step, rate, s.weight_decay, scale=scale, decay=s.average)
        self.number, self.seen = step, self.seen + len(x0)
        return Step(step, loss, norm, rate)

    def state(self) -> State:
        p, average, m, v = (self.packing.unpack(flat.copy()) for flat in self.flats)
        return State(self.number, p, average, m, v, self.seen)
