"""Training on the cpu engine: weights, moments and average are flat buffers that each step writes in place."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from ... import models
from ...config import Config
from ...engines.cpu.runtime.blocks import trim_heap
from ...engines.cpu.runtime.data_parallel import DataParallel, ShardWorker, gradient_buffers
from ...engines.cpu.runtime.shared_memory import SharedMemory
from ...models import flatten
from ...models.packing import Packing
from ...process import Schedule
from ..optimiser import learning_rate
from ..state import State
from ..step import Step, check_finite, noised, there_and_back

__all__ = ["CPUTrainer", "DataParallelWorker"]

_TREES = ("p", "average", "m", "v")


class DataParallelWorker(ShardWorker):
    """What one process does of a step. buffers: as `Packing` lays them out."""

    def __init__(self, config: Config, schedule: Schedule, buffers: SharedMemory) -> None:
        super().__init__(buffers)
        self.config, self.schedule = config, schedule
        self.packing = Packing.of(models.layout(config.model))

    def gradient(self, i: int, shards: int, step: int, first: int, share: float, x0: np.ndarray) -> float:
        """The loss on x0, which begins at sample `first` of a batch and is so large a share of it; share times its gradient
        is then in buffer g<i>."""
        inputs = *noised(self.config, self.schedule, x0, step, first), np.asarray(step)
        f = partial(_loss_and_gradients, self.config, self.packing, first, share)
        return self.differentiate(i, shards, (first, share), f, *inputs)


def _loss_and_gradients(
    config: Config, packing: Packing, first: int, share: float,
    p: np.ndarray, x_t: np.ndarray, t: np.ndarray, target: np.ndarray, step: np.ndarray,
) -> tuple[Any, list[tuple[int, np.ndarray]]]:  # fmt: skip
    """The loss with the weights in buffer p, and share times its gradients with their offsets in the buffer."""
    loss, tree = there_and_back(config, packing.unpack(p), x_t, t, target, step, first, share)
    return loss, [(packing.places[name][0], leaf) for name, leaf in flatten(tree).items()]


class CPUTrainer:
    """The trainer of the cpu engine: what `train_step` computes, but for rounding, and without a copy of the weights.

    The bits follow from the number of shards of a batch, a power of two; not from the number of processes, at most as many.
    """

    def __init__(self, config: Config, schedule: Schedule, state: State, shards: int = 2) -> None:
        self.config, self.first, self.number, self.seen = config, state.step, state.step, state.seen
        self.packing = Packing.of(models.layout(config.model))
        self.buffers = SharedMemory((*_TREES, *gradient_buffers(shards)), self.packing.size)
        for name in _TREES:
            self.packing.pack(getattr(state, name), self.buffers[name])
        args = config, schedule, self.buffers
        self.parallel = DataParallel(DataParallelWorker, args, self.packing.size, shards)

    def step(self, x0: np.ndarray, wait: bool = True) -> Step:
        if self.number == self.first:
            trim_heap()  # the state that the run began from, as large as the buffers here
        step, s = self.number + 1, self.config.train
        loss, norm = self.parallel.gradient(step, x0)
        check_finite(step, loss, norm)
        rate = learning_rate(step, s.steps, s.learning_rate, s.warmup, s.decay)
        scale = min(1.0, s.clip / norm) if s.clip and norm else 1.0
        self.parallel.update(len(x0), step, rate, s.weight_decay, scale, s.average)
        self.number, self.seen = step, self.seen + len(x0)
        return Step(step, loss, norm, rate)

    def state(self) -> State:
        trees = {name: self.packing.unpack(self.buffers[name].copy()) for name in _TREES}
        return State(self.number, seen=self.seen, **trees)
