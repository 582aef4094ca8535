"""Predictions on the cpu engine: each batch is split between this process and worker processes, each pass captured."""

from __future__ import annotations

from functools import partial

import numpy as np

from .. import models
from ..engines import cpu
from ..engines.cpu.runtime.captured import Captured
from ..engines.cpu.runtime.data_parallel import DataParallel, ShardWorker
from ..engines.cpu.runtime.shared_memory import SharedMemory
from ..engines.cpu.winograd import generation
from ..models import ModelConfig, Tree
from ..models.packing import Packing

__all__ = ["PredictionWorker", "data_parallel"]


class PredictionWorker(ShardWorker):
    """What one process does. buffers: p, as `Packing` lays it out."""

    def __init__(self, model: ModelConfig, buffers: SharedMemory) -> None:
        super().__init__(buffers)
        p = Packing.of(models.layout(model)).unpack(buffers["p"])
        self._predict = Captured(partial(models.predict, cpu, model, p), after=3, state=generation)

    def predict(self, shards: int, x_t: np.ndarray, t: np.ndarray) -> np.ndarray:
        """The network's prediction for this many shards.   x_t (N, ...), t (N,) -> (N, ...)."""
        with self.running(shards):
            return self._predict(cpu.array(x_t), t)


def data_parallel(model: ModelConfig, p: Tree, shards: int = 2) -> DataParallel:
    """What predicts with the weights p: its predict(x_t, t).   x_t (N, ...), t (N,) -> (N, ...)."""
    packing = Packing.of(models.layout(model))
    buffers = SharedMemory(("p",), packing.size)
    packing.pack(p, buffers["p"])
    return DataParallel(PredictionWorker, (model, buffers), packing.size, shards)
