"""What the run of a classifier must be to the run whose samples it guides: of the same data, in the same noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import argument
from ..models import inputs
from .config import Config

__all__ = ["check_class_names", "check_classifier"]


def check_classifier(config: Config, other: Config) -> None:
    """ValueError, which names what differs and both values, unless `other` trains a classifier of what `config` draws: its
    samples' shape, its classes in their order as far as both know them, and its schedule."""
    name = argument("classifier")
    if "classifier" not in other.networks or "classifier" not in other.objective.trains:
        raise ValueError(
            f"{name}: expected a run that trains a network 'classifier', got one that trains "
            f"{', '.join(other.objective.trains) or 'none'}"
        )
    if not getattr(other.objective, "noised", True):
        raise ValueError(
            f"{name}: expected a classifier of images in noise, got one of clean images; train one with "
            "objective.noised = true"
        )
    model = other.networks["classifier"].model
    shape, own = inputs(config.model)["x"].shape, inputs(model)["x"].shape if "x" in inputs(model) else None
    if own != shape:
        raise ValueError(f"{name}: expected one of samples of {shape}, the model's shape, got {own}")
    _check_classes(name, config, other)
    ours, theirs = config.schedule, other.schedule
    if ours.T != theirs.T:
        raise ValueError(f"{name}: expected one trained with schedule.T = {ours.T}, the model's, got {theirs.T}")
    if not np.array_equal(ours.build().beta, theirs.build().beta):
        raise ValueError(
            f"{name}: expected one trained with the schedule {ours.kind} {ours.options or ''}".rstrip()
            + f", the model's, got {theirs.kind} {theirs.options or ''}".rstrip()
        )


def _check_classes(name: str, config: Config, other: Config) -> None:
    """As many, and where both runs know their names, the same ones in the same order."""
    ours, theirs = config.data.classes, other.data.classes
    told, classes = getattr(config.model, "classes", 0), getattr(other.networks["classifier"].model, "classes", 0)
    if (expected := told or len(ours)) and classes != expected:
        raise ValueError(f"{name}: expected one of {expected} classes, the model's, got {classes}")
    check_class_names(name, ours, theirs)


def check_class_names(name: str, ours: Sequence[str], theirs: Sequence[str]) -> None:
    """ValueError where two runs know the names of their classes, and one has another name."""
    for i, (a, b) in enumerate(zip(ours, theirs, strict=False)):
        if a != b:
            what = "in the model's order" if sorted(ours) == sorted(theirs) else "that are the model's"
            raise ValueError(f"{name}: expected classes {what}, {a!r} as number {i}, got {b!r}")
