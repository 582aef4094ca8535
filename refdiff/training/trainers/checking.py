"""What a trainer is given is checked before it is used: batches have what the networks read, terms are one number a sample,
gradients have the keys of the parameters."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from ...config import Config
from ...errors import setting
from ...models import Batch, Input, Network, Tree, flatten, inputs, tree_map
from ...objectives import Objective, objective_name
from ...random import Key

__all__ = [
    "Entries",
    "both",
    "check_batch",
    "check_data",
    "check_gradients",
    "check_inputs",
    "check_terms",
    "drawn",
    "remembered",
]


class Entries(dict[str, Any]):
    """A batch; ValueError, which names it, for an entry that it lacks."""

    def __init__(self, batch: Batch, name: str) -> None:
        super().__init__(batch)
        self.name = name

    def __missing__(self, entry: str) -> Any:
        raise ValueError(
            f"{self.name}: expected a batch with {entry!r}, got {', '.join(self)}; choose data that have it, or draw it"
        )

    def __or__(self, other: Any) -> Any:
        return Entries({**self, **other}, self.name)


def drawn(objective: Objective, engine: ModuleType, data: Batch, key: Key, memory: Tree) -> Batch:
    """What the objective draws. ValueError for an entry that the data or what is drawn of them lack."""
    name = objective_name(objective)
    batch = objective.draw(engine, Entries(data, name), key, memory)
    if not isinstance(batch, dict):
        raise ValueError(
            f"{name}.draw: expected a batch, entries by name, got {type(batch).__name__}; return a dictionary"
        )
    return Entries(batch, name)


def check_data(config: Config, data: Batch) -> int:
    """How many samples the batch of a step has. ValueError unless each entry has so many, the shards divide them, and they
    have what the networks read, labels that they know among it."""
    if not isinstance(data, dict):
        raise ValueError(f"data: expected entries by name, such as x=..., got {type(data).__name__}")
    shapes = {name: np.shape(entry) for name, entry in data.items()}
    if not shapes or not all(shapes.values()) or len({shape[0] for shape in shapes.values()}) != 1:
        got = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"data: expected entries of as many samples each, got {got or 'none'}")
    n = next(iter(shapes.values()))[0]
    if not n or n % config.shards:
        raise ValueError(
            f"data: expected a multiple of the {config.shards} shards of a batch, got {n} samples; change train.shards, or "
            "the batch"
        )
    kinds = {name: "float" if np.asarray(entry).dtype.kind == "f" else "int" for name, entry in data.items()}
    check_batch(config, {name: Input(shape[1:], kinds[name]) for name, shape in shapes.items()}, "the batch")
    _check_labels(config, data)
    return n


def _check_labels(config: Config, data: Batch) -> None:
    """ValueError for a label that a network does not know: a table is looked up, and what lies beyond it is anything. The
    number after the last class stands for none where a network reads labels; a classifier is asked for one."""
    for name, network in config.networks.items():
        classes, reads = getattr(network.model, "classes", 0), "label" in inputs(network.model)
        if not classes or "label" not in data or not (reads or name == "classifier"):
            continue
        low, high, null = (
            np.min(data["label"]),
            np.max(data["label"]),
            reads and getattr(network.model, "null_label", True),
        )
        if low < 0 or high >= classes + null:
            none = f", or {classes} for none" if null else ""
            raise ValueError(
                f"networks.{name}: expected labels from 0 to {classes - 1}{none}, got {low} to {high} in the batch; give "
                f"{setting(f'networks.{name}.classes', high + 1)}, or other labels"
            )


def remembered(objective: Objective, memory: Tree, terms: dict[str, Any]) -> Tree:
    """The memory after a step. ValueError unless `update` gives arrays of the same names, shapes and dtypes."""
    after = objective.update(memory, terms)
    if isinstance(after, dict):
        after = tree_map(np.asarray, after)  # arithmetic with arrays () gives numbers
    expected, actual = (
        {path: (leaf.shape, str(leaf.dtype)) for path, leaf in flatten(tree).items()}
        if isinstance(tree, dict)
        else tree
        for tree in (memory, after)
    )
    if actual != expected:
        raise ValueError(f"{objective_name(objective)}.update: expected a memory of {expected}, got {actual}")
    return after


def both(objective: Objective, measured: Any) -> tuple[Any, Any]:
    """What `loss_and_gradient` gave. ValueError unless that is a pair."""
    if not isinstance(measured, tuple | list) or len(measured) != 2:
        raise ValueError(
            f"{objective_name(objective)}.loss_and_gradient: expected terms and gradients, got {type(measured).__name__}; "
            "return both"
        )
    return measured[0], measured[1]


def check_terms(objective: Objective, terms: Any, n: int) -> None:
    """ValueError unless the terms are named, one of them "loss", each one number a sample."""
    name = objective_name(objective)
    if not isinstance(terms, dict) or "loss" not in terms:
        got = ", ".join(terms) if isinstance(terms, dict) else type(terms).__name__
        raise ValueError(f"{name}: expected terms by name with 'loss' among them, got {got or 'none'}")
    for term, value in terms.items():
        shape = tuple(value.shape) if hasattr(value, "shape") else np.shape(value)
        if shape != (n,):
            raise ValueError(f"{name}: expected one number a sample, ({n},), for the term {term!r}, got shape {shape}")


def check_gradients(objective: Objective, g: Any, networks: dict[str, Network]) -> None:
    """ValueError unless g has a tree for each network that is trained, with the keys and shapes of its parameters."""
    name = objective_name(objective)
    if not isinstance(g, dict) or set(g) != set(objective.trains):
        got = ", ".join(g) if isinstance(g, dict) else type(g).__name__
        raise ValueError(f"{name}: expected gradients of {', '.join(objective.trains)}, got {got or 'none'}")
    for network in objective.trains:
        expected, actual = _shapes(networks[network].p), _shapes(g[network])
        if expected != actual:
            path = next(p for p in [*expected, *actual] if expected.get(p) != actual.get(p))
            raise ValueError(
                f"{name}: the gradient of {network}: expected {path} of shape {expected.get(path, 'none')}, got "
                f"{actual.get(path, 'none')}; backward gives the keys and shapes of the parameters"
            )


def check_batch(config: Config, entries: dict[str, Input], source: str) -> None:
    """ValueError unless the data have what the objective reads of them, in each of its turns.

    entries: those that the data have, of one sample; source: where they are from.
    """
    networks = {name: network.model for name, network in config.networks.items()}
    for objective in config.objective.turns(1 << 30):
        reads = objective.reads(networks)
        check_inputs(f"{objective_name(objective)}.reads", reads)
        for entry, expected in reads.items():
            readers = [f"networks.{name}" for name in objective.trains if entry in inputs(networks[name])]
            reader = readers[0] if readers else objective_name(objective)
            if entry not in entries:
                raise ValueError(
                    f"{reader}: expected data with {entry!r}, which it reads, got {', '.join(entries)} from "
                    f"{source}; choose data that have it, or {_instead(objective, entry)}"
                )
            if not _fits(entries[entry], expected):
                raise ValueError(
                    f"{reader}: expected {expected.kind} {entry!r} of shape {expected.shape}, got "
                    f"{entries[entry].kind} of {entries[entry].shape} from {source}"
                )


def _instead(objective: Objective, entry: str) -> str:
    """What helps where data have no such entry."""
    if entry == "low_res" and hasattr(objective, "downscale"):
        return f"{setting('objective.downscale', 2)} to make it from x, with low_res half of size"
    return "a network without it"


def check_inputs(name: str, entries: dict[str, Input]) -> None:
    """ValueError unless each entry is said by an `Input`. name: whose they are."""
    for entry, given in entries.items():
        if not isinstance(given, Input):
            raise ValueError(
                f"{name}: expected a refdiff.models.Input for the entry {entry!r}, got {given!r}; write Input(shape, kind)"
            )


def _fits(actual: Input, expected: Input) -> bool:
    shapes = len(actual.shape) == len(expected.shape) and all(
        a == b or b == -1 for a, b in zip(actual.shape, expected.shape, strict=True)
    )
    return shapes and actual.kind == expected.kind


def _shapes(tree: Tree) -> dict[str, tuple[int, ...]]:
    return {path: tuple(getattr(leaf, "shape", ())) for path, leaf in flatten(tree).items()}
