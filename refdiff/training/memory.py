"""What memory a step of training takes, on its engine and with its batch, before it runs.

Both fast engines tell it from a dry run: shapes go through the step as numbers would, and nothing is computed. Large batches
are told from two smaller ones, for what a sample takes is the same in each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from .. import engines, models
from ..config import Config
from ..models import Batch
from ..models.packing import Packing
from ..objectives import Objective, objective_name
from ..random import Key

__all__ = ["StepMemory", "described", "step_memory"]

ENOUGH = 256 << 20  # bytes that a small batch takes at least, where it speaks for larger ones


class StepMemory(NamedTuple):
    """Bytes of weights, gradient, moments, average and activations; and the engine whose dry run told them.

    gradient: one for each process of the cpu engine. activations: all else that a step takes: results that are kept for the
    backward, working space, and the batch. Neither the data set nor the program itself is in any of these.
    """

    weights: int
    gradient: int
    moments: int
    average: int
    activations: int
    engine: str

    @property
    def total(self) -> int:
        return self.weights + self.gradient + self.moments + self.average + self.activations


def described(config: Config) -> dict[str, Any]:
    """`step_memory` by name, with the total, the batch, and all in words: "text". The text alone where it is not known."""
    try:
        found = step_memory(config)
    except Exception as error:  # a user's objective may ask anything of data that are not there
        return {"text": f"not known: {' '.join(str(error).split()) or type(error).__name__}"}
    parts = {name: value for name, value in found._asdict().items() if name != "engine"}
    unit, word = (1 << 30, "GiB") if found.total >= 1 << 30 else (1 << 20, "MiB")
    listed = ", ".join(f"{name} {value / unit:.2f}" for name, value in parts.items())
    text = f"{found.total / unit:.2f} {word} on engine {found.engine}: {listed}"
    return {"text": text, "engine": found.engine, "batch": config.train.batch, "total": found.total, **parts}


def step_memory(config: Config) -> StepMemory:
    """Of the engine of this configuration on this machine. The reference engine has no dry run: the figure is that of cpu,
    and it takes more. TypeError for what cannot be captured."""
    if engines.resolve(config.engine) == "cuda":
        return _of_cuda(config)
    return _of_cpu(dataclasses.replace(config, engine="cpu"))


def _of_cuda(config: Config) -> StepMemory:
    from .trainers.cuda import check_supported, plan

    check_supported(config)
    trained, frozen = (sum(sizes) for sizes in _sizes(config))
    copies = 6 if config.dtype == "bfloat16" else 4  # bytes of a weight: one in bfloat16 beside the master's
    weights = trained * copies + frozen * (copies if copies == 4 else 2)

    def of(n: int) -> int:
        found = plan(dataclasses.replace(config, train=dataclasses.replace(config.train, batch=n)))
        return found.nbytes + found.tables

    total = _of_largest(of, config.train.batch)
    return StepMemory(weights, 4 * trained, 8 * trained, 4 * trained, total - weights - 16 * trained, "cuda")


def _of_cpu(config: Config) -> StepMemory:
    from ..engines.cpu.runtime.data_parallel import DataParallel
    from ..engines.cpu.runtime.shared_memory import SharedMemory
    from .trainers.cpu_worker import DataParallelWorker

    trained, frozen = (sum(sizes) for sizes in _sizes(config))
    buffers = SharedMemory(("p", "g0"), trained), SharedMemory(("p",), frozen)
    parallel = DataParallel(DataParallelWorker, (config, *buffers), trained, config.shards)
    processes = len(parallel.parts(config.train.batch))
    shards, worker = config.shards // processes, parallel.local
    assert isinstance(worker, DataParallelWorker)

    def of(objective: Objective, n: int) -> int:
        key = Key(config.seed, 1, 0, n).under(objective_name(objective))
        return worker.step_memory(objective, shards, _zeros(config, objective, n), key)

    part = config.train.batch // processes
    activations = sum(_at(partial(of, turn), part, shards) for turn in config.objective.turns(1))
    return StepMemory(
        4 * (trained + frozen), processes * 4 * trained, 8 * trained, 4 * trained, processes * activations, "cpu"
    )


def _sizes(config: Config) -> tuple[list[int], list[int]]:
    """How many numbers the buffers of each trained and of each frozen network have."""
    sizes: tuple[list[int], list[int]] = [], []
    for network in config.networks.values():
        sizes[network.rule.rule == "frozen"].append(Packing.of(models.layout(network.model)).size)
    return sizes


def _zeros(config: Config, objective: Objective, n: int) -> Batch:
    """n samples of the data that the objective reads."""
    networks = {name: network.model for name, network in config.networks.items()}
    read = objective.reads(networks) or {k: v for model in networks.values() for k, v in models.inputs(model).items()}
    return {
        name: np.zeros((n, *entry.shape), np.float32 if entry.kind == "float" else np.int64)
        for name, entry in read.items()
    }


def _of_largest(of: Callable[[int], int], n: int) -> int:
    """of(n); where an array of so many samples would be too large for the engine, from the largest batch that is not."""
    few = n
    while True:
        try:
            larger = of(few)
            break
        except AssertionError:  # more elements than a kernel counts
            if few == 1:
                raise
            few //= 2
    return larger if few == n else larger + (larger - of(few // 2)) * (n - few) // (few - few // 2)


def _at(of: Callable[[int], int], n: int, shards: int) -> int:
    """of(n); of many samples from two smaller batches, of which the smaller is ENOUGH to be typical of larger ones."""
    least = few = min(n, shards)
    smaller = of(least)
    while few < n and smaller * few < ENOUGH * least:
        few *= 2
    if 2 * few >= n:
        return smaller if n == least else of(n)
    if few > least:
        smaller = of(few)
    return smaller + (of(2 * few) - smaller) * (n - few) // few
