"""What an objective gives is checked before it is used: terms are one number a sample, gradients have the keys of the
parameters; and the data have what the networks read."""

from __future__ import annotations

from typing import Any

from ...config import Config
from ...models import Input, Network, Tree, flatten, inputs
from ...objectives import Objective, objective_name

__all__ = ["check_batch", "check_gradients", "check_terms"]


def check_terms(objective: Objective, terms: Any, n: int) -> None:
    """ValueError unless the terms are named, one of them "loss", each one number a sample."""
    name = objective_name(objective)
    if not isinstance(terms, dict) or "loss" not in terms:
        got = ", ".join(terms) if isinstance(terms, dict) else type(terms).__name__
        raise ValueError(f"{name}: expected terms by name with 'loss' among them, got {got or 'none'}")
    for term, value in terms.items():
        if tuple(value.shape) != (n,):
            raise ValueError(
                f"{name}: expected one number a sample, ({n},), for the term {term!r}, got shape {tuple(value.shape)}"
            )


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


def check_batch(config: Config, entries: dict[str, Input]) -> None:
    """ValueError unless the data have what the networks of an objective with one denoiser ask of them.

    entries: those that the data have, of one sample.
    """
    drawn = {"t"} | {condition for condition, _ in getattr(config.objective, "encoders", ())}
    for name, network in config.networks.items():
        for entry, expected in inputs(network.model).items():
            if entry in drawn or name not in config.objective.trains:
                continue
            if entry not in entries:
                raise ValueError(
                    f"networks.{name}: expected data with {entry!r}, which it reads, got {', '.join(entries)} from "
                    f"{config.data.source}; choose data that have it, or a network without it"
                )
            if not _fits(entries[entry], expected):
                raise ValueError(
                    f"networks.{name}: expected {expected.kind} {entry!r} of shape {expected.shape}, got "
                    f"{entries[entry].kind} of {entries[entry].shape} from {config.data.source}"
                )


def _fits(actual: Input, expected: Input) -> bool:
    shapes = len(actual.shape) == len(expected.shape) and all(
        a == b or b == -1 for a, b in zip(actual.shape, expected.shape, strict=True)
    )
    return shapes and actual.kind == expected.kind


def _shapes(tree: Tree) -> dict[str, tuple[int, ...]]:
    return {path: tuple(leaf.shape) for path, leaf in flatten(tree).items()}
