"""What a run learns: how a batch becomes what the networks are asked, and what their answers cost.

An objective is a frozen dataclass. Two functions are all that most need; two say what the data must be, and four more are
there for the papers that ask for them. `engine` is the module of operations, `networks` a dictionary {name: Network}, `key`
names random sequences and says which samples of the step's total these are.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from types import ModuleType
from typing import Any

import numpy as np

from ..errors import new_name
from ..models import Batch, Input, Network, Tree, inputs
from ..random import Key

__all__ = ["OBJECTIVES", "Objective", "kind_of_objective", "objective_name", "register_objective"]

Networks = dict[str, Network]


@dataclass(frozen=True)
class Objective:
    """trains: the names of the networks that learn from it."""

    trains: tuple[str, ...] = ("denoiser",)

    def reads(self, networks: dict[str, Any]) -> dict[str, Input]:
        """The entries that a sample of the data must have, as far as they are known before a step: those are checked before
        anything is computed. networks: {name: configuration}."""
        return {}

    def check_samples(self, x: np.ndarray) -> None:
        """ValueError for samples x that nothing can be learned from, such as values that are no bits: asked of a data set
        before the first step, of samples that are made on the way in each step, and of those that are measured with."""

    def draw(self, engine: ModuleType, data: Batch, key: Key, memory: Tree) -> Batch:
        """All randomness of a step, in operations of the engine: the batch that `loss_and_gradient` gets. A pure function.

        data: samples key.first .. of the step, entries by name.
        """
        return data

    def loss_and_gradient(
        self, engine: ModuleType, networks: Networks, batch: Batch, key: Key
    ) -> tuple[dict[str, Any], dict[str, Tree]]:
        """{term: one number a sample}, and {network: gradient} of what is minimised, in operations of the engine alone.

        That is the mean over all key.total samples of terms[network], or of terms["loss"] where a network has no term of
        its own; of these samples g is their part, so the parts of a batch add up. A network used twice:
        `models.trees.add(engine, g1, g2)`. A sum over samples that is no operation of the engine may follow the number of
        processes in its last digits.
        """
        raise NotImplementedError

    def gather(self, engine: ModuleType, networks: Networks, batch: Batch, key: Key) -> Batch | None:
        """What a sample must know of all others: joined over the whole step, in order, it is in `batch` as all_<name>."""
        return None

    def remember(self) -> Tree:
        """The first memory: state that no gradient changes; a tree of arrays, empty for none."""
        return {}

    def update(self, memory: Tree, terms: dict[str, Any]) -> Tree:
        """The memory after a step. Once a step, on the host, with the terms of the whole batch in order."""
        return memory

    def turns(self, step: int) -> tuple[Objective, ...]:
        """The objectives of step number `step`, one after another, each with a step of the optimiser of its own."""
        return (self,)


def entries_read(trains: tuple[str, ...], networks: dict[str, Any]) -> dict[str, Input]:
    """What the networks of these names read, by entry.   networks: {name: configuration}"""
    return {entry: given for name in trains for entry, given in inputs(networks[name]).items()}


OBJECTIVES: dict[str, type[Objective]] = {}


def register_objective(name: str, cls: type[Objective]) -> None:
    """Make an objective known by this name, as configurations write it: `objective.kind = "name"`.

    ValueError unless it is a frozen dataclass derived from `Objective`, or if the name is another's.
    """
    new_name(name)
    frozen = is_dataclass(cls) and cls.__dataclass_params__.frozen  # type: ignore[attr-defined]
    if not (isinstance(cls, type) and issubclass(cls, Objective) and frozen):
        raise ValueError(f"cls: expected a frozen dataclass derived from Objective for {name!r}, got {cls!r}")
    if "kind" in (f.name for f in fields(cls)):
        raise ValueError(f"cls: expected no field 'kind' in {cls.__name__}, since that names the objective; rename it")
    if OBJECTIVES.get(name, cls) is not cls:
        raise ValueError(
            f"name: expected one that no other objective has, got {name!r}, which is {OBJECTIVES[name].__name__}"
        )
    OBJECTIVES[name] = cls


def kind_of_objective(objective: Objective) -> str:
    """The name under which its class is registered. ValueError if it is not."""
    for name, known in OBJECTIVES.items():
        if type(objective) is known:
            return name
    raise ValueError(
        f"objective: expected one of {', '.join(OBJECTIVES)}, got {type(objective).__name__}; make it known with "
        "refdiff.objectives.register_objective, in the module that defines it"
    )


def objective_name(objective: Objective) -> str:
    """The name that its draws and its memory stand under: that of its class."""
    return type(objective).__name__
