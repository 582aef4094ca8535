"""What memory a step of training takes, on its engine and with its batch, before it runs.

Both fast engines tell it from a dry run: shapes go through the step as numbers would, and nothing is computed. Large batches
are told from two smaller ones, for what a sample takes is the same in each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .. import engines, models
from ..config import Config, learns
from ..models import Input, inputs
from ..models.packing import Packing
from ..objectives import Objective, objective_name
from ..random import Key

__all__ = ["StepMemory", "step_memory"]

ENOUGH = 256 << 20  # bytes of a dry run that tells how the memory grows with the batch
FLOAT = 4  # bytes


class StepMemory(NamedTuple):
    """Bytes of weights, gradients, moments, average and activations; and the engine whose dry run told them.

    activations: all else that a step takes: results that are kept for the backward, working space, and the batch. Neither
    the data set nor the program itself is in any of these.
    """

    weights: int
    gradients: int
    moments: int
    average: int
    activations: int
    engine: str

    @property
    def total(self) -> int:
        return sum(self[:-1])


def step_memory(config: Config) -> StepMemory:
    """Of the engine of this configuration on this machine; of the reference engine, which has no dry run, the figure is
    that of cpu, and it takes more. TypeError for what cannot be captured, as an objective that gathers."""
    engine = engines.resolve(config.engine)
    return _of_cuda(config) if engine == "cuda" else _of_cpu(dataclasses.replace(config, engine="cpu"))


def _of_cuda(config: Config) -> StepMemory:
    from .trainers.cuda import check_supported, plan

    check_supported(config)
    trained, frozen = _sizes(config)
    half = config.dtype == "bfloat16"
    bytes_of = {"p": (trained * 6 + frozen * 2 if half else FLOAT * (trained + frozen))}

    def of(n: int) -> int:
        train = dataclasses.replace(config.train, batch=n)
        found = plan(dataclasses.replace(config, train=train))
        return found.nbytes + found.tables

    total = _grown(of, config.train.batch, config.shards)
    weights, gradients, moments, average = bytes_of["p"], FLOAT * trained, 2 * FLOAT * trained, FLOAT * trained
    return StepMemory(
        weights, gradients, moments, average, total - weights - gradients - moments - average, "cuda"
    )


def _of_cpu(config: Config) -> StepMemory:
    from ..engines.cpu.runtime.data_parallel import DataParallel
    from ..engines.cpu.runtime.shared_memory import SharedMemory
    from .trainers.cpu_worker import DataParallelWorker, packing_of

    packing, frozen = packing_of(config, frozen=False), packing_of(config, frozen=True)
    buffers = SharedMemory(("p", "g0"), packing.size)
    arguments = config, buffers, SharedMemory(("p",), frozen.size)
    parallel = DataParallel(DataParallelWorker, arguments, packing.size, config.shards)
    processes = len(parallel.parts(config.train.batch))
    worker: Any = parallel.local
    shards = config.shards // processes

    def of(objective: Objective) -> Callable[[int], int]:
        def run(n: int) -> int:
            if type(objective).gather is not Objective.gather:
                raise TypeError(f"{objective_name(objective)} gathers over the batch, which no dry run knows")
            key = Key(config.seed, 1, 0, n).under(objective_name(objective))
            return worker.step_memory(objective, shards, _zeros(config, objective, n), key)

        return run

    part = config.train.batch // processes
    activations = processes * sum(_grown(of(turn), part, shards) for turn in config.objective.turns(1))
    size, buffer = packing.size + frozen.size, FLOAT * packing.size
    return StepMemory(FLOAT * size, processes * buffer, 2 * buffer, buffer, activations, "cpu")


def _zeros(config: Config, objective: Objective, n: int) -> dict[str, np.ndarray]:
    """n samples of the data that the objective reads."""
    networks = {name: network.model for name, network in config.networks.items()}
    read = objective.reads(networks) or {k: v for model in networks.values() for k, v in inputs(model).items()}

    def zeros(entry: Input) -> np.ndarray:
        return np.zeros((n, *entry.shape), np.float32 if entry.kind == "float" else np.int64)

    return {name: zeros(entry) for name, entry in read.items()}


def _sizes(config: Config) -> tuple[int, int]:
    """How many numbers the buffers of trained and of frozen networks have."""
    sizes = [0, 0]
    for network in config.networks.values():
        sizes[network.rule.rule == "frozen"] += Packing.of(models.layout(network.model)).size
    return sizes[0], sizes[1]


def _grown(of: Callable[[int], int], n: int, shards: int) -> int:
    """of(n), from two smaller batches where n samples are many: it grows by as much for each."""
    least = max(1, shards)
    if n <= 2 * least:
        return of(n)
    first = of(least)
    many = least
    while many < n and first / least * many < ENOUGH:
        many *= 2
    if many >= n:
        return of(n)
    few = many
    many = 2 * few
    if many >= n:
        return of(n)
    a, b = (first if few == least else of(few)), of(many)
    return a + (b - a) * (n - few) // (many - few)
