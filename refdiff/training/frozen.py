"""Frozen networks: their weights are those of another run, and stay there; here only what they were is remembered."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from ..config import Config
from ..errors import argument, setting
from ..models import Tree, flatten, layout
from .state import CHECKPOINT, State, load_state

__all__ = ["check_sources", "digest", "frozen_trees", "places"]


def frozen_trees(config: Config, state: State) -> dict[str, Tree]:
    """{name: weights} of the frozen networks: the moving average in their run's checkpoint, p where it has none.

    The first time, their digests are put into state.digests. ValueError where a run is missing, has no such network or one
    of another layout, or is no longer what it was.
    """
    trees = {}
    for name, network in config.networks.items():
        rule = network.rule
        if rule.rule != "frozen":
            continue
        key, of = f"networks.{name}", rule.of or name
        run = Path(rule.run)
        if not (run.is_file() or (run / CHECKPOINT).is_file()):
            lacks = f"holds no {CHECKPOINT}" if run.exists() else "does not exist"
            raise ValueError(
                f"{key}.run: expected the folder of a finished run, got {run}, which {lacks}; say where it is: "
                f"{setting(key + '.run', 'FOLDER')}"
            )
        other, saved = load_state(run)
        if of not in other.networks:
            raise ValueError(f"{key}.of: expected a network of {run} ({', '.join(other.networks)}), got {of!r}")
        home = other.networks[of].rule
        if home.rule == "frozen":
            raise ValueError(
                f"{key}.run: expected a run with weights, got {run}, which has {of} from {home.run}; take that one"
            )
        tree = saved.networks(other)[of].p
        expected = {path: tuple(parameter.shape) for path, parameter in flatten(layout(network.model)).items()}
        if {path: leaf.shape for path, leaf in flatten(tree).items()} != expected:
            raise ValueError(f"{key}: expected the network {of} of {rule.run}, got a configuration of another layout")
        now, before = digest(tree), state.digests.setdefault(name, digest(tree))
        if now != before:
            raise ValueError(
                f"{key}.run: expected the weights that this run began with, digest {before[:12]}, got {now[:12]} in "
                f"{rule.run}, which has changed since; put the former ones back, or begin anew"
            )
        trees[name] = tree
    return trees


def check_sources(config: Config, out: str | Path) -> None:
    """ValueError if the run that is to be in the folder `out` would replace one that its frozen networks are of."""
    for name, network in config.networks.items():
        run = Path(network.rule.run)
        if network.rule.rule == "frozen" and Path(out).resolve() in (run.resolve(), run.resolve().parent):
            raise ValueError(
                f"{argument('out')}: expected another folder than networks.{name}.run, got {out} for both; choose another"
            )


def places(config: Config) -> set[str]:
    """The keys that say where frozen networks are: these may move, since their digests are known."""
    return {f"networks.{name}.run" for name, network in config.networks.items() if network.rule.rule == "frozen"}


def digest(tree: Tree) -> str:
    """SHA-256 of names, shapes and values."""
    h = hashlib.sha256()
    for path, leaf in flatten(tree).items():
        h.update(f"{path} {leaf.dtype} {leaf.shape}\n".encode())
        h.update(np.ascontiguousarray(leaf).tobytes())
    return h.hexdigest()
