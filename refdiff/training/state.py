"""The state of a run, and the checkpoint that holds all of it: to continue from it is to have never stopped."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..config import Config, learns
from ..errors import FormatError
from ..models import Network, Tree, flatten, initialise, layout, tree_map, unflatten
from ..objectives import objective_name
from ..storage import load_checkpoint, save_checkpoint
from .optimiser import zeros_like

__all__ = ["CHECKPOINT", "TREES", "State", "load_state", "save_state"]

CHECKPOINT = "checkpoint.safetensors"  # its name in a run's folder
TREES = ("p", "ema", "m", "v")
_OLD = {"ema": "average"}  # what the trees of runs with one network were called


@dataclass
class State:
    """step: steps done; samples_seen: samples shown. trees: {"p": weights, "ema": their moving average, "m", "v": Adam's
    moments}, each {network: Tree}; ema and moments of networks that learn, none of frozen ones. updates: {network: how many
    it had}. memory: {objective: Tree}. numbers: what `prepare` found of the data. digests: {network: of its frozen weights}.
    """

    step: int
    samples_seen: int
    trees: dict[str, dict[str, Tree]]
    updates: dict[str, int]
    memory: dict[str, Tree] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)

    @classmethod
    def first(cls, config: Config, start: dict[str, Tree] | None = None) -> State:
        """Before the first step. start: {network: weights} where they are not to be drawn."""
        own = {name: network for name, network in config.networks.items() if network.rule.rule != "frozen"}
        p = dict(start or {})
        for name, network in own.items():
            if name not in p:
                p[name] = initialise(layout(network.model), config.seed, name)
        for name, network in own.items():
            if network.rule.rule == "follow":
                p[name] = tree_map(np.copy, p[network.rule.of])
        learned = {name: p[name] for name, network in own.items() if learns(network.rule.rule)}
        moments = [{name: zeros_like(tree) for name, tree in learned.items()} for _ in range(2)]
        trees = {"p": p, "ema": dict(learned), "m": moments[0], "v": moments[1]}
        memory = {objective_name(o): tree for o in config.objective.turns(1 << 30) if (tree := o.remember())}
        return cls(0, 0, trees, dict.fromkeys(own, 0), memory)

    def networks(self, config: Config, tree: str = "ema") -> dict[str, Network]:
        """The networks with the weights of this tree, or p where it has none, as `sample` and `evaluate` take them."""
        return {
            name: Network(network.model, self.trees[tree].get(name) or self.trees["p"].get(name, {}))
            for name, network in config.networks.items()
        }


def save_state(path: str | Path, config: Config, state: State) -> None:
    """Write a checkpoint, whole or not at all. OSError when it cannot be written; a former one then stays whole."""
    arrays = {f"{tree}/{name}": leaf for tree in TREES for name, leaf in flatten(state.trees[tree]).items()}
    arrays |= {f"memory/{name}": leaf for name, leaf in flatten(state.memory).items()}
    metadata = {"config": config.to_dict(), "step": state.step, "samples_seen": state.samples_seen}
    save_checkpoint(path, arrays, metadata | {n: getattr(state, n) for n in ("updates", "numbers", "digests")})


def load_state(path: str | Path) -> tuple[Config, State]:
    """What `save_state` wrote, or a version before it; a folder means the checkpoint in it. FormatError when it does not
    hold together."""
    path = Path(path)
    if path.is_dir():
        path = path / CHECKPOINT
    arrays, metadata = load_checkpoint(path)
    old = "seen" in metadata  # of a version that had one network
    try:
        config = Config.from_dict(metadata["config"])
        step, seen = int(metadata["step"]), int(metadata["seen" if old else "samples_seen"])
        updates = {"denoiser": step} if old else {str(k): int(v) for k, v in metadata["updates"].items()}
        numbers = {str(k): float(v) for k, v in metadata.get("numbers", {}).items()}
        digests = {str(k): str(v) for k, v in metadata.get("digests", {}).items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise FormatError(f"{path}: expected the configuration and step of a run of refdiff: {error}") from None
    if old:
        arrays = {_named(name): array for name, array in arrays.items()}
    first = State.first(config)
    _check_updates(path, updates, first.updates)
    trees = {tree: _tree(path, arrays, tree, first.trees[tree]) for tree in TREES}
    memory = _tree(path, arrays, "memory", first.memory)
    return config, State(step, seen, trees, updates, memory, numbers, digests)


def _named(name: str) -> str:
    """average/time/... as ema/denoiser/time/..."""
    tree, _, rest = name.partition("/")
    return f"{next((new for new, old in _OLD.items() if old == tree), tree)}/denoiser/{rest}"


def _check_updates(path: Path, updates: dict[str, int], expected: dict[str, int]) -> None:
    if updates.keys() != expected.keys():
        raise FormatError(
            f"{path}: expected the networks {', '.join(expected)} of its configuration, got {', '.join(updates) or 'none'}"
        )


def _tree(path: Path, arrays: dict[str, np.ndarray], name: str, like: dict[str, Any]) -> dict[str, Any]:
    """The arrays of that name, in the shapes of `like`. FormatError for any that is missing or another."""
    tree = {}
    for leaf, expected in flatten(like).items():
        array = arrays.get(f"{name}/{leaf}")
        if array is None or array.shape != expected.shape or array.dtype != expected.dtype:
            got = "nothing" if array is None else f"{array.dtype} {array.shape}"
            raise FormatError(
                f"{path}: {name}/{leaf}: expected {expected.dtype} {expected.shape} for its network, got {got}"
            )
        tree[leaf] = array
    return unflatten(tree) | {key: {} for key, value in like.items() if value == {}}
