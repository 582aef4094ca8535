"""Predictions on the cpu engine: each batch is split between this process and worker processes, each pass captured."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import models
from ..engines import cpu
from ..engines.cpu.runtime.captured import Captured
from ..engines.cpu.runtime.data_parallel import DataParallel, ShardWorker
from ..engines.cpu.runtime.shared_memory import SharedMemory
from ..models import Batch, Network
from ..models.packing import Packing

__all__ = ["ParallelNetwork", "PredictionWorker"]


class PredictionWorker(ShardWorker):
    """What one process does. buffers: p, as `Packing` lays it out."""

    def __init__(self, config: Any, buffers: SharedMemory) -> None:
        super().__init__(buffers)
        self.entries = models.inputs(config)
        self._network = Network(config, Packing.of(models.layout(config)).unpack(buffers["p"]))
        self._predict = Captured(self._plain, after=3, state=cpu.generation)

    def predict(self, shards: int, *arrays: np.ndarray) -> np.ndarray:
        """The network's prediction for this many shards.   arrays (N, ...), in the order of the network's inputs."""
        with self.running(shards):
            return self._predict(*arrays)

    def _plain(self, *arrays: np.ndarray) -> np.ndarray:
        return models.predict(cpu, self._network, dict(zip(self.entries, arrays, strict=True)))


class ParallelNetwork:
    """predict(batch) -> what the network says, for entries (N, ...) by name. The weights are copied once."""

    def __init__(self, network: Network, shards: int = 2) -> None:
        self.entries = models.inputs(network.config)
        packing = Packing.of(models.layout(network.config))
        buffers = SharedMemory(("p",), packing.size)
        packing.pack(network.p, buffers["p"])
        self.parallel = DataParallel(PredictionWorker, (network.config, buffers), packing.size, shards)

    def __call__(self, batch: Batch) -> np.ndarray:
        arrays = (cpu.array(batch[n]) if e.kind == "float" else np.asarray(batch[n]) for n, e in self.entries.items())
        return self.parallel.predict(*arrays)
