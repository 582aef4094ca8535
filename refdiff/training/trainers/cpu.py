"""Training on the cpu engine: weights, moments and averages are flat buffers that each step writes in place."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from ... import models
from ...config import RULES, Config, NetworkConfig, TrainConfig, learns
from ...engines import cpu
from ...engines.cpu.runtime import flat_optimiser
from ...engines.cpu.runtime.blocks import trim_heap
from ...engines.cpu.runtime.context import using
from ...engines.cpu.runtime.data_parallel import DataParallel, ShardWorker, gradient_buffers
from ...engines.cpu.runtime.shared_memory import SharedMemory
from ...errors import TrainingError
from ...models import Batch, Network, Tree, flatten
from ...models.packing import Packing
from ...objectives import Objective, objective_name
from ...random import Key
from ..frozen import frozen_trees
from ..optimiser import learning_rate
from ..state import TREES, State
from .checking import check_gradients, check_terms
from .interface import Step, check_finite
from .reference import joined, shards_of

__all__ = ["CPUTrainer", "DataParallelWorker"]


class Move:
    """How a network moves in a step, a picklable set of numbers."""

    def __init__(
        self, network: NetworkConfig, train: TrainConfig, number: int, count: int, norm: float, last: bool
    ) -> None:
        rule = self.rule = network.rule
        self.update = RULES[rule.rule]  # pickled by its name: a worker process imports the module of a user's
        self.number, self.count = number, count
        peak = train.learning_rate if rule.learning_rate is None else rule.learning_rate
        self.rate = learning_rate(number, train.steps, peak, train.warmup, train.decay)
        self.weight_decay = train.weight_decay if rule.weight_decay is None else rule.weight_decay
        most = train.max_grad_norm if rule.max_grad_norm is None else rule.max_grad_norm
        self.scale = min(1.0, most / norm) if most and norm else 1.0
        self.ema_decay = (train.ema_decay if rule.ema_decay is None else rule.ema_decay) if last else None


class DataParallelWorker(ShardWorker):
    """What one process does of a step. buffers: p, ema, m, v and gradients of the networks that are no frozen ones, as
    `Packing` lays them out; frozen: those of the frozen ones."""

    def __init__(self, config: Config, buffers: SharedMemory, frozen: SharedMemory) -> None:
        super().__init__(buffers)
        self.config = config
        self.packing = packing_of(config, frozen=False)
        self.frozen = packing_of(config, frozen=True).unpack(frozen["p"])
        self._terms: dict[str, tuple[str, ...]] = {}

    def draw(self, objective: Objective, data: Batch, key: Key, memory: Tree, shards: int) -> list[Batch]:
        """What the objective draws for each shard, and what `gather` finds in it."""
        own = [objective.draw(cpu, part, k, memory) for part, k in zip(*_shards(data, key, shards), strict=True)]
        return own

    def gather(self, objective: Objective, data: Batch, key: Key, memory: Tree, shards: int) -> list[Batch]:
        """What `gather` finds in each shard."""
        networks = self._networks(self.buffers["p"])
        with using(shards=1):
            return [
                objective.gather(cpu, networks, objective.draw(cpu, part, k, memory), k) or {}
                for part, k in zip(*_shards(data, key, shards), strict=True)
            ]

    def gradient(
        self, i: int, shards: int, objective: Objective, data: Batch, key: Key, memory: Tree, gathered: Batch
    ) -> tuple[tuple[str, ...], np.ndarray]:
        """Names and values (terms, N) of the terms for a part of a batch; the gradient is then in buffer g<i>."""
        name = objective_name(objective)
        batch = {n: np.ascontiguousarray(a) for n, a in (objective.draw(cpu, data, key, memory) | gathered).items()}
        place = name, key.first, key.total, tuple(batch)
        f = partial(self._loss_and_gradients, objective, tuple(batch), key)
        terms = self.differentiate(i, shards, place, f, *batch.values(), np.asarray(key.step))
        return self._terms[name], terms.reshape(len(self._terms[name]), -1)

    def _loss_and_gradients(
        self, objective: Objective, names: tuple[str, ...], key: Key, p: np.ndarray, *arrays: np.ndarray
    ) -> tuple[Any, list[tuple[int, np.ndarray]]]:
        *entries, step = arrays
        networks, n = self._networks(p), len(entries[0])
        key = key._replace(step=step)  # type: ignore[arg-type]
        terms, g = objective.loss_and_gradient(cpu, networks, dict(zip(names, entries, strict=True)), key)
        check_terms(objective, terms, n)
        check_gradients(objective, g, networks)
        self._terms[objective_name(objective)] = tuple(terms)
        values = next(iter(terms.values())) if len(terms) == 1 else np.concatenate(list(terms.values()))
        return values, [(self.packing.places[path][0], leaf) for path, leaf in flatten(g).items()]

    def _networks(self, p: np.ndarray) -> dict[str, Network]:
        trees = self.packing.unpack(p) | self.frozen
        return {name: Network(network.model, trees.get(name, {})) for name, network in self.config.networks.items()}

    def move(self, i: int, processes: int, region: slice, move: Move) -> None:
        """A network's part i of the weights, with moments and average, by its rule and the gradient in g0."""
        p, g, m, v, ema = (self.buffers[name][region] for name in ("p", "g0", "m", "v", "ema"))
        rule, update = move.rule, move.update
        if rule.rule == "average":
            for part in flat_optimiser.parts(p.size, (i, processes)):
                p[part] = np.float32(rule.decay) * p[part] + np.float32(1 - rule.decay) * g[part]
            cpu.forget_weights()
            return
        if update is None:
            flat_optimiser.update(
                p, g, m, v, ema, move.count, move.rate, move.weight_decay, rule.betas[0], rule.betas[1],
                scale=move.scale, decay=_decay(move), share=(i, processes),
            )  # fmt: skip
            return
        for part in flat_optimiser.parts(p.size, (i, processes)):
            new = update(rule, p[part], g[part] * np.float32(move.scale), m[part], v[part], move.count, move.rate)
            p[part], m[part], v[part] = new
            ema[part] += np.float32(1 - _decay(move)) * (p[part] - ema[part])
        cpu.forget_weights()


def _decay(move: Move) -> float:
    """Of the moving average at this step; 1, which leaves it, where the network moves once more in the step."""
    return 1.0 if move.ema_decay is None else min(move.ema_decay, (1 + move.number) / (10 + move.number))


def _shards(data: Batch, key: Key, shards: int) -> tuple[list[Batch], list[Key]]:
    n = len(next(iter(data.values()))) // shards
    return shards_of(data, shards), [key._replace(first=key.first + i * n) for i in range(shards)]


def packing_of(config: Config, frozen: bool) -> Packing:
    """Where the parameters of the networks lie that are frozen, or of those that are not."""
    return Packing.of({
        name: models.layout(network.model) for name, network in config.networks.items()
        if (network.rule.rule == "frozen") == frozen
    })  # fmt: skip


class CPUTrainer:
    """The trainer of the cpu engine: what `train_step` computes, but for rounding, and without a copy of the weights.

    The bits follow from the number of shards of a batch, a power of two; not from the number of processes, at most as many.
    """

    def __init__(self, config: Config, state: State) -> None:
        self.config, self._state, self.first, self.failed = config, state, state.step, False
        self.packing = packing_of(config, frozen=False)
        self.buffers = SharedMemory((*TREES, *gradient_buffers(config.shards)), self.packing.size)
        for name in TREES:
            self.packing.pack(state.trees[name], self.buffers[name])
        packing = packing_of(config, frozen=True)
        frozen = SharedMemory(("p",), packing.size)
        packing.pack(frozen_trees(config, state), frozen["p"])
        self._state = State(
            state.step, state.samples_seen, {}, dict(state.updates), dict(state.memory), state.numbers, state.digests
        )
        self.parallel = DataParallel(
            DataParallelWorker, (config, self.buffers, frozen), self.packing.size, config.shards
        )

    def step(self, data: Batch, wait: bool = True) -> Step:
        state, settings = self._state, self.config.train
        if state.step == self.first:
            trim_heap()  # the state that the run began from, as large as the buffers here
        n, number = len(next(iter(data.values()))), state.step + 1
        data = {k: cpu.array(a) if np.asarray(a).dtype.kind == "f" else np.asarray(a) for k, a in data.items()}
        turns, step = self.config.objective.turns(number), Step(number, {}, {}, {})
        last = {name: i for i, objective in enumerate(turns) for name in objective.trains}
        processes = len(self.parallel.parts(n))
        for turn, objective in enumerate(turns):
            name = objective_name(objective)
            terms = self._gradient(objective, data, number)
            by_gradient = [t for t in objective.trains if learns(self.config.networks[t].rule.rule)]
            prefix = f"{name}." if len(turns) > 1 else ""
            step.terms.update({prefix + term: float(np.mean(value)) for term, value in terms.items()})
            regions = [self.packing.region(t) for t in objective.trains]
            norms = dict(zip(objective.trains, self.parallel.norms(processes, regions), strict=True))
            step.norms.update({t: norms[t] for t in by_gradient})
            try:
                check_finite(number, step.terms, norms)
            except TrainingError:
                self.failed = turn > 0
                raise
            for trained, region in zip(objective.trains, regions, strict=True):
                state.updates[trained] += 1
                network = self.config.networks[trained]
                move = Move(network, settings, number, state.updates[trained], norms[trained], last[trained] == turn)
                if trained in by_gradient:
                    step.learning_rates[trained] = move.rate
                self.parallel.run([("move", i, processes, region, move) for i in range(processes)])
            if name in state.memory:
                state.memory[name] = objective.update(state.memory[name], terms)
        self._follow(number, last)
        state.step, state.samples_seen = number, state.samples_seen + n
        return step

    def _gradient(self, objective: Objective, data: Batch, number: int) -> dict[str, np.ndarray]:
        """The terms of the whole batch in order; the gradients are then in the buffers of the processes."""
        n = len(next(iter(data.values())))
        parts, memory = self.parallel.parts(n), self._state.memory.get(objective_name(objective), {})
        shards = self.config.shards // len(parts)
        calls = [
            (objective, {k: a[part] for k, a in data.items()},
             Key(self.config.seed, number, part.start, n).under(objective_name(objective)), memory)
            for part in parts
        ]  # fmt: skip
        gathered: Batch = {}
        if type(objective).gather is not Objective.gather:
            found = self.parallel.run([("gather", *call, shards) for call in calls])
            gathered = {f"all_{k}": a for k, a in joined([batch for own in found for batch in own]).items()}
        done = self.parallel.run([("gradient", i, shards, *call, gathered) for i, call in enumerate(calls)])
        names = done[0][0]
        values = done[0][1] if len(done) == 1 else np.concatenate([values for _, values in done], axis=1)
        return dict(zip(names, values, strict=True))

    def _follow(self, number: int, last: dict[str, int]) -> None:
        """Targets follow their networks, and the averages of networks that did not move this time move."""
        settings = self.config.train
        for name, network in self.config.networks.items():
            rule = network.rule
            if rule.rule == "follow":
                p, of = (self.buffers["p"][self.packing.region(n)] for n in (name, rule.of))
                p += np.float32(1 - rule.decay) * (of - p)
                cpu.forget_weights()
            elif learns(rule.rule) and name not in last:
                decay = settings.ema_decay if rule.ema_decay is None else rule.ema_decay
                d = np.float32(min(decay, (1 + number) / (10 + number)))
                p, ema = (self.buffers[tree][self.packing.region(name)] for tree in ("p", "ema"))
                ema += (1 - d) * (p - ema)

    def state(self) -> State:
        if self.failed:
            raise TrainingError(f"step {self._state.step + 1}: half of it is done, and it cannot be kept")
        s = self._state
        trees = {}
        for name in TREES:
            whole = self.packing.unpack(self.buffers[name].copy())
            rules = {n: network.rule.rule for n, network in self.config.networks.items()}
            trees[name] = {n: tree for n, tree in whole.items() if name == "p" or learns(rules[n])}
        return State(s.step, s.samples_seen, trees, dict(s.updates), dict(s.memory), s.numbers, s.digests)
