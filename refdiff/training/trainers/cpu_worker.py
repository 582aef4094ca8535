"""What one process of the cpu engine does of a step of training: a part of a batch, then a part of the weights."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ... import models
from ...config import Config, ResolvedRule, Update
from ...engines import cpu
from ...engines.cpu.runtime import flat_optimiser
from ...engines.cpu.runtime.context import using
from ...engines.cpu.runtime.data_parallel import ShardWorker
from ...engines.cpu.runtime.shared_memory import SharedMemory
from ...engines.cpu.runtime.traced_array import CaptureError
from ...models import Batch, Network, Tree, flatten
from ...models.packing import Packing
from ...objectives import Objective, objective_name
from ...random import Key
from ..optimiser import updated
from .checking import Entries, both, check_gradients, check_terms, drawn
from .reference import shards_of

__all__ = ["DataParallelWorker", "Move", "packing_of"]


class Move(NamedTuple):
    """How a network moves: its rule and, of a user's, the function; which of its updates this is; the rate; the factor that
    clips its gradient; and d of its moving average, 1 where it moves once more in the step."""

    rule: ResolvedRule
    update: Update | None
    number: int
    rate: float
    scale: float
    ema_decay: float


class DataParallelWorker(ShardWorker):
    """buffers: p, ema, m, v and gradients of the networks that are not frozen, as `Packing` lays them out; frozen: p of the
    others."""

    def __init__(self, config: Config, buffers: SharedMemory, frozen: SharedMemory) -> None:
        super().__init__(buffers)
        self.config = config
        self.packing = packing_of(config, frozen=False)
        self.frozen = packing_of(config, frozen=True).unpack(frozen["p"])
        self._terms: dict[str, tuple[str, ...]] = {}

    def gather(self, turn: int, data: Batch, key: Key, memory: Tree, shards: int) -> list[Batch]:
        """What `gather` finds in each shard, in this turn of the step."""
        objective = self.config.objective.turns(key.step)[turn]
        networks = self._networks(self.buffers["p"])
        with using(shards=1):
            return [
                objective.gather(cpu, networks, drawn(objective, cpu, part, k, memory), k) or {}
                for part, k in zip(*_parts(data, key, shards), strict=True)
            ]

    def gradient(
        self,
        i: int,
        passes: int,
        shards: int,
        turn: int,
        data: Batch,
        key: Key,
        memory: Tree,
        gathered: Batch,
    ) -> tuple[tuple[str, ...], np.ndarray, bool]:
        """Names and values (terms, N) of the terms of a part of a batch, and whether a parameter was used twice in a pass.

        It is computed in so many passes, one after another, of so many shards each; the gradients are then in the buffers
        from g<i> on. turn: of the step, whose objective every process finds in its own configuration.
        """
        objective = self.config.objective.turns(key.step)[turn]
        done = [
            self._pass(i + j, shards, objective, part, k, memory, gathered)
            for j, (part, k) in enumerate(zip(*_parts(data, key, passes), strict=True))
        ]
        values = [values for values, _ in done]
        names = self._terms[objective_name(objective)]
        return names, values[0] if len(values) == 1 else np.concatenate(values, axis=1), any(used for _, used in done)

    def _pass(
        self, i: int, shards: int, objective: Objective, data: Batch, key: Key, memory: Tree, gathered: Batch
    ) -> tuple[np.ndarray, bool]:
        name = objective_name(objective)
        batch = drawn(objective, cpu, data, key, memory) | gathered
        batch = {entry: np.ascontiguousarray(a) for entry, a in batch.items()}
        place = name, key.first, key.total, tuple(batch)
        f = partial(self._loss_and_gradients, objective, tuple(batch), key)
        terms = self.differentiate(i, shards, place, f, *batch.values(), np.asarray(key.step))
        return terms.reshape(len(self._terms[name]), -1), place in self.used_twice

    def step_memory(self, objective: Objective, shards: int, data: Batch, key: Key) -> int:
        """Bytes that a pass over these samples takes beside the buffers: results, working space, and the batch, of which a
        capture has a copy. Nothing is computed but what is drawn. CaptureError for what cannot be captured."""
        if type(objective).gather is not Objective.gather:
            raise CaptureError(f"{objective_name(objective)} gathers over the batch")
        batch = drawn(objective, cpu, data, key, objective.remember())
        f = partial(self._loss_and_gradients, objective, tuple(batch), key)
        arrays = [np.ascontiguousarray(a) for a in batch.values()]
        memory = self.memory(shards, f, *arrays, np.asarray(key.step))
        return sum(memory) + sum(a.nbytes for a in data.values()) + 2 * sum(a.nbytes for a in arrays)

    def _loss_and_gradients(
        self, objective: Objective, names: tuple[str, ...], key: Key, p: np.ndarray, *arrays: np.ndarray
    ) -> tuple[Any, list[tuple[int, np.ndarray]]]:
        *entries, step = arrays
        networks, n = self._networks(p), len(entries[0])
        key = key._replace(step=step)  # type: ignore[arg-type]
        batch = Entries(dict(zip(names, entries, strict=True)), objective_name(objective))
        terms, g = both(objective, objective.loss_and_gradient(cpu, networks, batch, key))
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
        rule, share = move.rule, (i, processes)
        if rule.rule == "adamw":
            flat_optimiser.update(
                p, g, m, v, ema, move.number, move.rate, rule.weight_decay, rule.betas[0], rule.betas[1],
                scale=move.scale, decay=move.ema_decay, share=share,
            )  # fmt: skip
            return
        for part in flat_optimiser.parts(p.size, share):
            if move.update is None:
                p[part] = np.float32(rule.decay) * p[part] + np.float32(1 - rule.decay) * g[part]
                continue
            of = p[part], g[part] * np.float32(move.scale), m[part], v[part]
            p[part], m[part], v[part] = updated(move.update, rule, of, move.number, move.rate)
            ema[part] += np.float32(1 - move.ema_decay) * (p[part] - ema[part])
        cpu.forget_weights()


def _parts(data: Batch, key: Key, count: int) -> tuple[list[Batch], list[Key]]:
    """A batch in so many equal parts, and which samples of the step each has."""
    n = len(next(iter(data.values()))) // count
    return shards_of(data, count), [key._replace(first=key.first + i * n) for i in range(count)]


def packing_of(config: Config, frozen: bool) -> Packing:
    """Where the parameters of the networks lie that are frozen, or of those that are not."""
    return Packing.of({
        name: models.layout(network.model) for name, network in config.networks.items()
        if (network.rule.rule == "frozen") == frozen
    })  # fmt: skip
