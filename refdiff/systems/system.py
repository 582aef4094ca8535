"""What a system is besides the objective that it registers: a module of functions, and the model that a run makes of it.

check(networks, objective)                              ValueError where they do not fit; networks: {name: configuration}
trajectory(networks, objective, settings, ids, key, conditions) -> (t, x), ..., (0, samples), x (len(ids), ...) float32
evaluate(networks, objective, data, key, progress)      -> {name: a number, or a list}, of what is held out of the data
plot(networks, objective, data, found, path)            the picture of an evaluation; found: what `evaluate` gave

A system of which nothing can be drawn has no `trajectory`. One whose `trajectory` takes conditions names them in CONDITIONS,
a tuple; `conditions` is empty for the others. SETTINGS, a tuple, names the keys of [sample] that it reads; without it any
may be given. In the last three `networks` are {name: Asked}. Where fields of the objective follow from the networks, as the
size of a latent does, follows(networks, objective) -> {field: value} says them, and a configuration fills them in.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite
from typing import Any, NamedTuple

import numpy as np

from ..divergence import Overflows, require_finite
from ..errors import NotFiniteError
from ..models import Batch, Network
from ..objectives import Objective, register_objective
from ..progress import pieces
from ..random import Key
from ..sampling import SampleConfig, network_function
from ..sampling.denoisers import Predict

__all__ = [
    "Asked", "Networks", "SystemModel", "can_draw", "check_trains", "conditions_of_system", "draw", "measure",
    "register_system", "settings_of_system", "system_of",
    "trajectory",
]  # fmt: skip

_SYSTEMS: dict[type[Objective], Any] = {}
FUNCTIONS = ("check", "evaluate", "plot")
_ADVICE = "look at the weights: has the training diverged?"


class Asked(NamedTuple):
    """A trained network, asked on the engine of its run: arrays of NumPy by name in, what it says out."""

    config: Any
    predict: Predict

    def __call__(self, batch: Batch) -> Any:
        return self.predict(batch)


Networks = dict[str, Asked]


class SystemModel(NamedTuple):
    """What a run of a system gives: its networks with their weights, its objective, and how samples are drawn."""

    networks: dict[str, Asked]
    objective: Objective
    settings: SampleConfig = SampleConfig()

    @property
    def module(self) -> Any:
        """Of the system."""
        return system_of(self.objective)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample."""
        return self.objective.reads({name: network.config for name, network in self.networks.items()})["x"].shape

    @classmethod
    def of(
        cls,
        networks: dict[str, Network],
        objective: Objective,
        settings: SampleConfig,
        engine: str = "auto",
        dtype: str = "float32",
    ) -> SystemModel:
        """The model of these networks on an engine, where their weights are put once."""
        asked = {
            name: Asked(network.config, network_function(engine, network, dtype)) for name, network in networks.items()
        }
        return cls(asked, objective, settings)


def register_system(name: str, cls: type[Objective], module: Any) -> None:
    """Make a system known: its objective by this name, as `register_objective` does, and with it what its module does.

    ValueError as of `register_objective`, and if a function is missing.
    """
    missing = [f for f in FUNCTIONS if not callable(getattr(module, f, None))]
    if missing:
        raise ValueError(
            f"module: expected the functions {', '.join(FUNCTIONS)} for the system {name!r}, got none named "
            f"{', '.join(missing)}"
        )
    register_objective(name, cls)
    _SYSTEMS[cls] = module


def system_of(objective: Objective) -> Any:
    """The module of an objective's system, that of a class it derives from included; None where it has none."""
    return next((_SYSTEMS[cls] for cls in type(objective).__mro__ if cls in _SYSTEMS), None)


def check_trains(objective: Objective, names: tuple[str, ...]) -> None:
    """ValueError unless the objective trains these networks."""
    if set(objective.trains) != set(names):
        raise ValueError(
            f"objective.trains: expected {', '.join(names)}, got {', '.join(objective.trains) or 'none'}; leave it out"
        )


def can_draw(objective: Objective) -> bool:
    """Whether samples can be drawn of the system of this objective."""
    return hasattr(system_of(objective), "trajectory")


def conditions_of_system(objective: Objective) -> tuple[str, ...]:
    """The names of what samples of the system of this objective may be told; () where that is nothing."""
    names: tuple[str, ...] = getattr(system_of(objective), "CONDITIONS", ())
    return names


def settings_of_system(objective: Objective) -> tuple[str, ...] | None:
    """The keys of [sample] by which samples of the system of this objective are drawn; None where any may be."""
    names: tuple[str, ...] | None = getattr(system_of(objective), "SETTINGS", None)
    return names


def trajectory(
    model: SystemModel, ids: np.ndarray, seed: int = 0, conditions: Batch | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """(t, x_t) from the first state to (0, samples), for samples of these numbers; each is the same whatever the others are.

    x_t (len(ids), ...) float32. ValueError where nothing can be drawn, and for conditions of which the system has none."""
    if not can_draw(model.objective):
        raise ValueError(
            f"objective.kind: expected a system of which samples can be drawn, got {type(model.objective).__name__}, which "
            "has no distribution of its latents; look at it with refdiff eval, or train digits-vae"
        )
    if conditions and not conditions_of_system(model.objective):
        raise ValueError(
            f"conditions: expected none, since samples of {type(model.objective).__name__} are told nothing, got "
            f"{', '.join(sorted(conditions))}; leave them out"
        )
    key = Key(seed).under("sample")
    return model.module.trajectory(model.networks, model.objective, model.settings, ids, key, conditions or {})


def measure(model: SystemModel, data: Any, seed: int = 0, progress: bool = True) -> dict[str, Any]:
    """What the system's `evaluate` finds of what is held out of the data: numbers, and lists of them, by name.

    ValueError for samples that the objective cannot have, and where a number is none: no measure of a model that diverged.
    """
    model.objective.check_samples(data.held_out)
    key, overflows = Key(seed).under("evaluate"), Overflows(_ADVICE)
    with overflows.watched("measuring"):
        found: dict[str, Any] = model.module.evaluate(model.networks, model.objective, data, key, progress)
        bad = [name for name, value in found.items() if isinstance(value, float) and not isfinite(value)]
        if bad:
            raise NotFiniteError(f"{bad[0]}: expected a finite number, got {found[bad[0]]}; have the weights diverged?")
    overflows.tell()
    return found


def draw(
    model: SystemModel, n: int, seed: int = 0, conditions: Batch | None = None, batch: int = 256, progress: bool = True
) -> np.ndarray:
    """n samples.   -> (n, ...) float32.   conditions: one entry a sample, (n, ...), or a number for all, as the
    system takes them.

    ValueError for n < 1, where nothing can be drawn, and where a sample holds what is no number.
    """
    if n < 1:
        raise ValueError(f"n: expected at least one sample, got {n}")
    for name, value in (conditions or {}).items():
        if np.ndim(value) and len(value) != n:
            raise ValueError(f"{name}: expected one a sample, {n}, or a number for all, got {len(value)}")
    done, overflows = [], Overflows(_ADVICE)
    for ids in pieces(n, batch, "sampling", progress):
        own = {name: np.asarray(value)[ids] if np.ndim(value) else value for name, value in (conditions or {}).items()}
        with overflows.watched("sampling"):
            for _, x in trajectory(model, ids, seed, own):  # noqa: B007
                pass
            require_finite("samples", x)
        done.append(x)
    overflows.tell()
    return np.concatenate(done)
