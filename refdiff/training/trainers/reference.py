"""One step of training as a pure function to be read: what every trainer computes.

`train_step` works on any engine of the host. The trainers of the fast engines keep the weights where their engine has them,
and write them in place.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from ... import engines
from ...config import Config
from ...models import Batch, Network, Tree, tree_map
from ...objectives import Objective, objective_name
from ...random import Key
from ..frozen import frozen_trees
from ..optimiser import global_norm, learning_rate, mixed, moved, moving_average
from ..state import State
from .checking import both, check_data, check_gradients, check_terms, drawn, remembered
from .interface import Step, check_finite

__all__ = ["ReferenceTrainer", "joined", "loss_and_gradient", "shards_of", "train_step", "tree_sum"]


def train_step(config: Config, state: State, data: Batch, frozen: dict[str, Tree] | None = None) -> tuple[State, Step]:
    """One step on a batch, entries (N, ...) by name, a pure function of its arguments: each turn of the objective draws,
    finds the gradient and moves the networks that it trains; then targets follow and averages move.

    frozen: the weights of frozen networks. TrainingError when a loss or gradient is not finite.
    """
    n, number, settings = check_data(config, data), state.step + 1, config.train
    trees = {name: dict(tree) for name, tree in state.trees.items()}
    updates, memory = dict(state.updates), dict(state.memory)
    rules = {name: network.rule.resolved(settings) for name, network in config.networks.items()}
    turns = config.objective.turns(number)
    step = Step(number, {}, {}, {})
    for objective in turns:
        name = objective_name(objective)
        networks = {n: Network(c.model, (trees["p"] | (frozen or {}))[n]) for n, c in config.networks.items()}
        terms, g = loss_and_gradient(config, objective, networks, data, number, memory.get(name, {}))
        prefix = f"{name}." if len(turns) > 1 else ""
        step.terms.update({prefix + term: float(np.mean(value)) for term, value in terms.items()})
        norms = {trained: global_norm(g[trained]) for trained in objective.trains}
        check_finite(number, step.terms, norms)
        for trained in objective.trains:
            rule = rules[trained]
            updates[trained] += 1
            if rule.rule == "average":
                trees["p"][trained] = mixed(trees["p"][trained], g[trained], rule.decay)
                continue
            step.norms[trained] = norms[trained]
            rate = learning_rate(number, settings.steps, rule.learning_rate, settings.warmup, settings.decay)
            step.learning_rates[trained] = rate
            p, m, v = (trees[tree][trained] for tree in ("p", "m", "v"))
            new = moved(rule, p, m, v, g[trained], norms[trained], updates[trained], rate)
            trees["p"][trained], trees["m"][trained], trees["v"][trained] = new
        if name in memory:
            memory[name] = remembered(objective, memory[name], terms)
    for name, rule in rules.items():
        if rule.rule == "follow":
            trees["p"][name] = mixed(trees["p"][name], trees["p"][rule.of], rule.decay)
        if name in trees["ema"]:
            trees["ema"][name] = moving_average(trees["ema"][name], trees["p"][name], number, rule.ema_decay)
    return State(number, state.samples_seen + n, trees, updates, memory, state.numbers, state.digests), step


def loss_and_gradient(
    config: Config, objective: Objective, networks: dict[str, Network], data: Batch, number: int, memory: Tree
) -> tuple[dict[str, Any], dict[str, Tree]]:
    """The terms of the whole batch in order, and the gradient of their mean, from `config.shards` parts of it."""
    engine, shards = engines.get(config.engine), config.shards
    parts, keys = shards_of(data, shards), shard_keys(config.seed, objective, data, number, shards)
    batches = [
        drawn(objective, engine, _arrays(engine, part), key, memory) for part, key in zip(parts, keys, strict=True)
    ]
    gathered = [objective.gather(engine, networks, batch, key) for batch, key in zip(batches, keys, strict=True)]
    if gathered[0] is not None:
        whole = {f"all_{name}": value for name, value in joined(gathered).items()}
        batches = [batch | whole for batch in batches]
    done = [
        both(objective, objective.loss_and_gradient(engine, networks, batch, key))
        for batch, key in zip(batches, keys, strict=True)
    ]
    for (terms, g), part in zip(done, parts, strict=True):
        check_terms(objective, terms, len(next(iter(part.values()))))
        check_gradients(objective, g, networks)
    return joined([terms for terms, _ in done]), tree_sum([g for _, g in done])


def shards_of(data: Batch, shards: int) -> list[Batch]:
    """A batch in so many equal parts; every entry is cut alike."""
    n = len(next(iter(data.values()))) // shards
    return [{name: entry[i * n : (i + 1) * n] for name, entry in data.items()} for i in range(shards)]


def shard_keys(seed: int, objective: Objective, data: Batch, number: int, shards: int) -> list[Key]:
    """The key of each part: which samples of the step it has."""
    total = len(next(iter(data.values())))
    n = total // shards
    return [Key(seed, number, i * n, total).under(objective_name(objective)) for i in range(shards)]


def joined(parts: list[Any]) -> dict[str, Any]:
    """Dictionaries of arrays, joined along the samples, in order."""
    return {name: np.concatenate([np.asarray(part[name]) for part in parts]) for name in parts[0]}


def tree_sum(trees: list[Any]) -> Any:
    """The sum of trees, neighbours first, so that its bits do not depend on who added which of them."""
    while len(trees) > 1:
        trees = [tree_map(np.add, *trees[i : i + 2]) for i in range(0, len(trees), 2)]
    return trees[0]


def _arrays(engine: ModuleType, data: Batch) -> Batch:
    return {name: engine.array(a) if np.asarray(a).dtype.kind == "f" else np.asarray(a) for name, a in data.items()}


class ReferenceTrainer:
    """`train_step` after `train_step`."""

    def __init__(self, config: Config, state: State) -> None:
        self.config, self._state = config, state
        self._frozen = frozen_trees(config, state)

    def step(self, data: Batch, wait: bool = True) -> Step:
        self._state, measured = train_step(self.config, self._state, data, self._frozen)
        return measured

    def state(self) -> State:
        return self._state
