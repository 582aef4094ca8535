"""The state of a run, and the checkpoint that holds all of it: to continue from it is to have never stopped."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..config import Config
from ..errors import FormatError
from ..models import Tree, flatten, initialise, layout, unflatten
from ..storage import load_checkpoint, save_checkpoint
from .optimiser import zeros_like

__all__ = ["CHECKPOINT", "State", "load_state", "save_state"]

CHECKPOINT = "checkpoint.safetensors"  # its name in a run's folder


class State(NamedTuple):
    """step: steps done; p: the weights; average: their moving average; m, v: Adam's moments; seen: samples shown."""

    step: int
    p: Tree
    average: Tree
    m: Tree
    v: Tree
    seen: int = 0

    @classmethod
    def first(cls, config: Config) -> State:
        """Before the first step."""
        p = initialise(layout(config.model), config.seed)
        return cls(0, p, p, zeros_like(p), zeros_like(p))


_TREES = ("p", "average", "m", "v")


def save_state(path: str | Path, config: Config, state: State) -> None:
    """Write a checkpoint, whole or not at all. OSError when it cannot be written; a former one then stays whole."""
    arrays = {f"{tree}/{name}": leaf for tree in _TREES for name, leaf in flatten(getattr(state, tree)).items()}
    save_checkpoint(path, arrays, {"config": config.to_dict(), "step": state.step, "seen": state.seen})


def load_state(path: str | Path) -> tuple[Config, State]:
    """What `save_state` wrote; a folder means the checkpoint in it. FormatError when it does not hold together."""
    path = Path(path)
    if path.is_dir():
        path = path / CHECKPOINT
    arrays, metadata = load_checkpoint(path)
    try:
        config = Config.from_dict(metadata["config"])
        step, seen = int(metadata["step"]), int(metadata["seen"])
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"{path}: expected the configuration and step of a run of refdiff: {error}") from None
    expected = {name: spec.shape for name, spec in flatten(layout(config.model)).items()}
    for tree in _TREES:
        for name, shape in expected.items():
            array = arrays.get(f"{tree}/{name}")
            if array is None or array.shape != shape or array.dtype != np.float32:
                came = "nothing" if array is None else f"{array.dtype} {array.shape}"
                raise FormatError(f"{path}: {tree}/{name}: expected float32 {shape} for its model, got {came}")
    trees = {tree: unflatten({name: arrays[f"{tree}/{name}"] for name in expected}) for tree in _TREES}
    return config, State(step, **trees, seen=seen)
