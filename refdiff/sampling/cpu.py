"""Predictions on the cpu engine, and their gradients: each batch is split between this process and worker processes, each
pass captured."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import models
from ..engines import cpu
from ..engines.cpu.runtime.captured import Captured
from ..engines.cpu.runtime.data_parallel import DataParallel, ShardWorker
from ..engines.cpu.runtime.shared_memory import SharedMemory
from ..models import Batch, Input, Network
from ..models.packing import Packing
from .denoisers import Function

__all__ = ["ParallelNetwork", "PredictionWorker"]


class PredictionWorker(ShardWorker):
    """What one process does. function(engine, network, batch) -> an array (N, ...), of a batch of these entries; buffers: p,
    as `Packing` lays it out."""

    def __init__(self, function: Function, entries: dict[str, Input], config: Any, buffers: SharedMemory) -> None:
        super().__init__(buffers)
        self.function, self.entries = function, entries
        self._network = Network(config, Packing.of(models.layout(config)).unpack(buffers["p"]))
        self._predict = Captured(self._plain, after=3, state=cpu.generation)

    def predict(self, shards: int, *arrays: np.ndarray) -> np.ndarray:
        """What the function gives for this many shards.   arrays (N, ...), in the order of the entries."""
        with self.running(shards):
            return self._predict(*arrays)

    def _plain(self, *arrays: np.ndarray) -> np.ndarray:
        return self.function(cpu, self._network, dict(zip(self.entries, arrays, strict=True)))


class ParallelNetwork:
    """predict(batch) -> what the network says, for entries (N, ...) by name. The weights are copied once.

    function(engine, network, batch) -> an array (N, ...): what is asked of the network instead of a prediction, and is split
    and captured like one; it can be pickled. more: entries that it reads beside the network's inputs.
    """

    def __init__(
        self,
        network: Network,
        shards: int = 2,
        function: Function = models.predict,
        more: dict[str, Input] | None = None,
    ) -> None:
        self.entries = models.inputs(network.config) | (more or {})
        packing = Packing.of(models.layout(network.config))
        buffers = SharedMemory(("p",), packing.size)
        packing.pack(network.p, buffers["p"])
        args = function, self.entries, network.config, buffers
        self.parallel = DataParallel(PredictionWorker, args, packing.size, shards)

    def __call__(self, batch: Batch) -> np.ndarray:
        arrays = (cpu.array(batch[n]) if e.kind == "float" else np.asarray(batch[n]) for n, e in self.entries.items())
        return self.parallel.predict(*arrays)
