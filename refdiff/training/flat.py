"""Training on the CPU engine: weights, moments and average are flat buffers that each step writes in place, by threads."""

from __future__ import annotations

import math
import threading
from math import prod
from typing import Any, NamedTuple

import numpy as np

from .. import models
from ..engines import cpu
from ..engines.cpu.workers import each
from ..errors import TrainingError
from ..models import flatten
from ..process import Schedule
from .config import Config
from .optimiser import learning_rate
from .packing import Packing
from .state import State
from .step import Step, loss_and_gradient

__all__ = ["Flat"]

PIECE = 1 << 15  # numbers of one array that a task takes: five such rows and two of scratch stay in the second cache


class Piece(NamedTuple):
    """Elements first .. last of the parameter `name`, which begin at `place` in the buffers."""

    name: str
    first: int
    last: int
    place: int


class Flat:
    """The trainer of the CPU engine: what `train_step` computes, but for rounding, and without a copy of the weights."""

    def __init__(self, config: Config, schedule: Schedule, state: State) -> None:
        self.config, self.schedule, self.step_number, self.seen = config, schedule, state.step, state.seen
        self.packing = Packing.of(models.layout(config.model))
        self.p, self.average, self.m, self.v = (
            self.packing.pack(tree) for tree in (state.p, state.average, state.m, state.v)
        )
        self.tree = self.packing.unpack(self.p)
        self.pieces = [
            Piece(name, first, min(first + PIECE, prod(shape)), offset + first)
            for name, (offset, shape) in self.packing.places.items()
            for first in range(0, prod(shape), PIECE)
        ]
        self._scratch = threading.local()

    def step(self, x0: np.ndarray) -> Step:
        step = self.step_number + 1
        loss, tree = loss_and_gradient(self.config, self.schedule, self.tree, x0, step)
        g = {name: leaf.reshape(-1) for name, leaf in flatten(tree).items()}
        norm = self._norm(g)
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise TrainingError(
                f"step {step}: expected a finite loss and gradient, came loss {loss}, gradient norm {norm}"
            )
        s = self.config.train
        rate = learning_rate(step, s.steps, s.learning_rate, s.warmup, s.decay)
        self._update(g, step, rate, min(1.0, s.clip / norm) if s.clip and norm else 1.0)
        cpu.forget_weights()
        self.step_number, self.seen = step, self.seen + len(x0)
        return Step(step, loss, norm, rate)

    def state(self) -> State:
        p, average, m, v = (self.packing.unpack(flat.copy()) for flat in (self.p, self.average, self.m, self.v))
        return State(self.step_number, p, average, m, v, self.seen)

    def _norm(self, g: dict[str, np.ndarray]) -> float:
        """The root of the sum of squares of all numbers, piece by piece, the pieces in order."""
        squares = [0.0] * len(self.pieces)

        def square(i: int) -> None:
            name, first, last, _ = self.pieces[i]
            squares[i] = float(np.dot(g[name][first:last], g[name][first:last]))

        each(len(self.pieces), square)
        return math.sqrt(sum(squares))

    def _update(self, g: dict[str, np.ndarray], step: int, rate: float, scale: float) -> None:
        """`clip`, `adamw` and `moving_average` of training/optimiser.py, in place, a piece after another."""
        s, beta1, beta2, epsilon = self.config.train, 0.9, 0.999, 1e-8
        correct1, correct2 = 1 - beta1**step, 1 - beta2**step
        rest = 1 - min(s.average, (1 + step) / (10 + step))

        def update(i: int) -> None:
            name, first, last, place = self.pieces[i]
            here = slice(place, place + last - first)
            p, m, v, average = self.p[here], self.m[here], self.v[here], self.average[here]
            a, b = self._two_rows(last - first)
            np.multiply(g[name][first:last], scale, out=a)
            np.multiply(a, 1 - beta1, out=b)  # m <- beta1 m + (1 - beta1) g
            np.multiply(m, beta1, out=m)
            np.add(m, b, out=m)
            np.multiply(a, a, out=a)  # v <- beta2 v + (1 - beta2) g^2
            np.multiply(a, 1 - beta2, out=a)
            np.multiply(v, beta2, out=v)
            np.add(v, a, out=v)
            np.multiply(
                v, 1 / correct2, out=a
            )  # p <- p - rate (m / correct1 / (sqrt(v / correct2) + epsilon) + decay p)
            np.sqrt(a, out=a)
            np.add(a, epsilon, out=a)
            np.divide(m, a, out=a)
            np.multiply(a, rate / correct1, out=a)
            if s.weight_decay:
                np.multiply(p, rate * s.weight_decay, out=b)
                np.add(a, b, out=a)
            np.subtract(p, a, out=p)
            np.subtract(p, average, out=a)  # average <- average + (1 - d) (p - average)
            np.multiply(a, rest, out=a)
            np.add(average, a, out=average)

        each(len(self.pieces), update)

    def _two_rows(self, n: int) -> Any:
        rows = getattr(self._scratch, "rows", None)
        if rows is None:
            rows = self._scratch.rows = np.empty((2, PIECE), np.float32)
        return rows[:, :n]
