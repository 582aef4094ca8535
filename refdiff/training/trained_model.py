"""From a run to what samples and measurements are made with."""

from __future__ import annotations

import numpy as np

from ..config import Config
from ..models import Batch, Network
from ..objectives import Denoising
from ..sampling import Trained
from .frozen import frozen_trees
from .state import State

__all__ = ["every_class", "trained"]


def trained(config: Config, state: State) -> Trained:
    """The networks of a run with the moving averages of their weights. ValueError unless its objective is `Denoising`."""
    if not isinstance(config.objective, Denoising):
        raise ValueError(
            f"objective.kind: expected denoising, from which samples are drawn, got {type(config.objective).__name__}"
        )
    networks = state.networks(config) | {
        name: Network(config.networks[name].model, p) for name, p in frozen_trees(config, state).items()
    }
    return Trained(networks, config.objective, config.sample, config.engine, config.dtype)


def every_class(model: Trained, n: int) -> Batch:
    """Conditions of n samples in which each class has its share, in order; none for a model without classes."""
    return {"label": np.arange(n) * model.classes // n} if model.classes else {}
