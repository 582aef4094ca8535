"""Training on a GPU: the whole step, from the noise to the moving average, is captured once as a graph and replayed.

Nothing of a step depends on the host but its batch: the number of the step, the rate, t and every random number are worked
out on the device. All memory of a step comes from one arena, so each step finds the same addresses. The host need not wait
for a step: the batch goes from pinned memory, and the small record comes back to it while the next step is queued.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ... import models
from ...config import Config
from ...data import Data
from ...engines import cuda
from ...engines.cuda.runtime import capture
from ...engines.cuda.runtime.arena import Arena
from ...engines.cuda.runtime.captured_step import CapturedStep
from ...engines.cuda.runtime.context import Array
from ...engines.cuda.runtime.device import Device
from ...engines.cuda.runtime.flat_optimiser import SCALARS, FlatOptimiser, OptimiserSettings
from ...engines.cuda.runtime.memory import require_memory
from ...errors import TrainingError, option
from ...models import Batch, Network, Tree, flatten, unflatten
from ...models.packing import Packing
from ...objectives import Objective, objective_name
from ...random import Key
from ...sampling.cuda import on_device
from ..frozen import frozen_trees
from ..state import TREES, State
from .checking import check_gradients, check_terms
from .trainer import Step, check_finite

__all__ = ["CUDATrainer", "check_memory", "check_supported", "memory_needed"]


def check_supported(config: Config) -> None:
    """ValueError for what an objective or a rule asks for and this trainer does not do."""
    objective, rest = config.objective, f"take {option('engine', 'cpu')}"
    rules = {network.rule.rule for network in config.networks.values()} - {"adamw", "frozen"}
    if rules:
        raise ValueError(
            f"engine: expected networks with the rules adamw and frozen on cuda, got {rules.pop()}; {rest}"
        )
    for name in ("gather", "turns", "remember"):
        if getattr(type(objective), name) is not getattr(Objective, name):
            raise ValueError(
                f"engine: expected an objective without {name} on cuda, got {objective_name(objective)}; {rest}"
            )


def memory_needed(config: Config, entries: dict[str, Any] | None = None) -> int:
    """Bytes of device memory that training takes: a step is run on a device that runs nothing."""
    return capture.memory_needed(lambda arena: CUDATrainer(config, None, arena.device, arena, entries).launch())


def check_memory(config: Config, data: Data | None = None, device: Device | None = None) -> int:
    """The bytes that training takes of this device, the first GPU unless given. DeviceError if it has not so much."""
    check_supported(config)
    device = device or cuda.current().device
    advice = f"lower train.batch (now {config.train.batch})"
    return require_memory(device, memory_needed(config, entries_of(config)), "training needs", advice)


def entries_of(config: Config) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Shape and dtype of each entry of a batch that the objective reads of the data."""
    kinds = {"float": np.float32, "int": np.int32}
    reads = config.objective.reads({name: network.model for name, network in config.networks.items()})
    return {entry: ((config.train.batch, *given.shape), kinds[given.kind]) for entry, given in reads.items()}


class CUDATrainer:
    """The trainer of the CUDA engine. The first step runs launch by launch, the second is captured, the others replay it.

    A step may be queued while the one before it runs, no more: its record is looked at by the next call at the latest. A
    step whose loss or gradient is not finite writes nothing, nor does any after it, so what `state` gives is always whole.
    """

    def __init__(
        self,
        config: Config,
        state: State | None,
        device: Device | None = None,
        arena: Arena | None = None,
        entries: dict[str, Any] | None = None,
    ) -> None:
        """state: where to begin; None: memory without values, for `memory_needed`. device: the first GPU unless given.
        arena: one of that device; unless given, one as large as training needs: DeviceError, with the numbers, if the device
        has less. entries: shape and dtype of those of a batch."""
        check_supported(config)
        self.config, self.objective = config, config.objective
        self.device = device or cuda.current().device
        self.entries = entries or entries_of(config)
        self.arena = arena or Arena(self.device, check_memory(config, device=self.device))
        self.context = cuda.Context(self.device, self.arena)
        self.done, self.samples_seen = (state.step, state.samples_seen) if state else (0, 0)  # of steps that were seen
        self._state = state
        self.names = self._terms() if arena is None else ("loss",)
        record: list[Any] = [("terms", "f4", (len(self.names), config.train.batch)), ("loss", "f4"), ("bad", "i4")]
        record += [(f"scalars {name}", "f4", len(SCALARS)) for name in self.objective.trains]
        self.captured = CapturedStep(self.context, self.entries, record, self.done)
        with cuda.use(self.context):
            self.optimisers = {name: self._optimiser(name, state) for name in self.objective.trains}
            n = config.train.batch
            self._mean = cuda.array(np.full((n, 1), 1 / n, np.float32)), cuda.array(np.zeros(1, np.float32))
            frozen = frozen_trees(config, state) if state else {}
            self.frozen = {name: on_device(tree, config.dtype) for name, tree in frozen.items()}

    def step(self, data: Batch, wait: bool = True) -> Step | None:
        batch = {name: np.asarray(data[name], dtype) for name, (_, dtype) in self.entries.items()}
        self._check(self.captured.step(self.body, batch))
        return self._check(self.captured.settle()) if wait else None

    def state(self) -> State:
        self._check(self.captured.settle())
        assert self._state is not None
        trees: dict[str, dict[str, Tree]] = {tree: {} for tree in TREES}
        for name, optimiser in self.optimisers.items():
            packing = packing_of(self.config, name)
            for tree in TREES:
                trees[tree][name] = packing.unpack(cuda.host(getattr(optimiser.state, tree)))
        updates = dict.fromkeys(self.optimisers, self.done)
        s = self._state
        return State(self.done, self.samples_seen, trees, updates, dict(s.memory), s.numbers, s.digests)

    def launch(self) -> None:
        """Queue a step on the batch that is there; nobody looks at its record."""
        self.captured.launch(self.body)

    def body(self) -> None:
        """What one step launches: the objective, on each shard of the batch, then the optimisers."""
        config, n, shards = self.config, self.config.train.batch, self.config.shards
        networks = {name: Network(network.model, self._weights(name)) for name, network in config.networks.items()}
        done = [self._shard(networks, i * (n // shards), n // shards) for i in range(shards)]
        terms = {name: joined([terms[name] for terms, _ in done]) for name in done[0][0]}
        while len(done) > 1:  # neighbours first
            done = [({}, models.add(cuda, done[i][1], done[i + 1][1])) for i in range(0, len(done), 2)]
        g = done[0][1]
        assert tuple(terms) == self.names or self._state is None, f"terms: {tuple(terms)} and {self.names}"
        loss, _ = cuda.linear(cuda.reshape(terms["loss"], (1, n))[0], *self._mean)
        field = self.captured.field("terms")
        rows = [Array(field.buffer, (n,), "float32", field.offset + i * n) for i in range(len(self.names))]
        extra = [*zip(terms.values(), rows, strict=False), (loss, self.captured.field("loss"))]
        for name, optimiser in self.optimisers.items():
            optimiser.collect(flatten(g[name]), extra)
            extra = []
        number, loss_place = self.captured.number, self.captured.field("loss")
        for _ in range(min(2, len(self.optimisers))):  # once more, so that each knows whether another's gradient is bad
            for optimiser in self.optimisers.values():
                optimiser.prepare(number, loss_place)
        for optimiser in self.optimisers.values():
            optimiser.update()

    def _shard(self, networks: dict[str, Network], first: int, n: int) -> tuple[dict[str, Any], dict[str, Tree]]:
        """Terms and gradients of the n samples from `first` on."""
        config, objective = self.config, self.objective
        number: Any = self.captured.number
        key = Key(config.seed, number, first, config.train.batch).under(objective_name(objective))
        data = {name: rows_of(entry, first, n) for name, entry in self.captured.inputs.items()}
        batch = objective.draw(cuda, data, key, {})
        if config.dtype == "bfloat16":
            batch = {
                k: cuda.cast(a, "bfloat16") if a.dtype == "float32" and a.ndim > 1 else a for k, a in batch.items()
            }
        terms, g = objective.loss_and_gradient(cuda, networks, batch, key)
        check_terms(objective, terms, n)
        check_gradients(objective, g, networks)
        return terms, g

    def _weights(self, name: str) -> Tree:
        if name in self.optimisers:
            return unflatten(self.optimisers[name].parameters)
        return self.frozen.get(name, {})

    def _terms(self) -> tuple[str, ...]:
        """The names of the objective's terms: a step is run on a device that runs nothing."""
        found: list[tuple[str, ...]] = []

        def look(arena: Arena) -> None:
            trainer = CUDATrainer(self.config, None, arena.device, arena, self.entries)
            networks = {n: Network(c.model, trainer._weights(n)) for n, c in self.config.networks.items()}
            with cuda.use(trainer.context):
                found.append(tuple(trainer._shard(networks, 0, self.config.train.batch // self.config.shards)[0]))

        capture.memory_needed(look)
        return found[0]

    def _check(self, record: np.ndarray | None) -> Step | None:
        """What a step measured. TrainingError, which names the step, where it or one before is bad; what was queued after it
        is forgotten, for it wrote nothing."""
        if record is None:
            return None
        number, bad = int(record["number"]), int(record["bad"])
        terms = dict(zip(self.names, record["terms"].mean(axis=1).tolist(), strict=True))
        norms, rates = (
            {name: float(record[f"scalars {name}"][SCALARS.index(scalar)]) for name in self.optimisers}
            for scalar in ("norm", "rate")
        )
        if bad:
            self.captured.settle()
            check_finite(number, terms, norms)
            raise TrainingError(f"step {number}: nothing is trained any more since step {bad}, which was not finite")
        self.done, self.samples_seen = number, self.samples_seen + self.config.train.batch
        return Step(number, terms, norms, rates)

    def _optimiser(self, name: str, state: State | None) -> FlatOptimiser:
        s, rule, packing = self.config.train, self.config.networks[name].rule, packing_of(self.config, name)

        def own(key: str) -> float:
            value = getattr(rule, key)
            return getattr(s, key) if value is None else value

        settings = OptimiserSettings(
            s.steps, own("learning_rate"), s.warmup, s.decay, own("max_grad_norm"), own("weight_decay"), own("ema_decay"),
            *rule.betas,
        )  # fmt: skip
        values = {tree: packing.pack(state.trees[tree][name]) for tree in TREES} if state else None
        extras = [self.config.train.batch] * len(self.names) + [1] if name == self.objective.trains[0] else []
        return FlatOptimiser(
            self.context, packing.places, packing.size, values, self.config.dtype, settings,
            self.captured.field(f"scalars {name}"), self.captured.field("bad"), extras,
        )  # fmt: skip


def packing_of(config: Config, name: str) -> Packing:
    """Where the parameters of a network lie in its flat buffers."""
    return Packing.of(models.layout(config.networks[name].model))


def rows_of(a: Array, first: int, n: int) -> Array:
    """n rows of a dense array from `first` on, a view."""
    count = a.size // max(a.shape[0], 1)
    return Array(a.buffer, (n, *a.shape[1:]), a.dtype, a.offset + first * count)


def joined(parts: list[Array]) -> Array:
    """Arrays (n,), one after another."""
    whole = parts[0]
    for part in parts[1:]:
        whole, _ = cuda.concat(whole, part)
    return whole
