"""From a run to what samples and measurements are made with."""

from __future__ import annotations

import numpy as np

from ..config import Config
from ..config.classifiers import check_classifier
from ..data import Data, Dataset
from ..errors import option
from ..models import Batch, Network
from ..objectives import Denoising
from ..random import Key
from ..sampling import Trained, conditions_of, conditions_taken
from ..systems import SystemModel
from .frozen import frozen_trees
from .state import State

__all__ = ["check_drawable", "conditions_to_show", "every_class", "system_model", "trained"]


def check_drawable(config: Config) -> Denoising:
    """The objective of a run from which samples can be drawn. ValueError for any other."""
    if not isinstance(config.objective, Denoising):
        remedy = ""
        if "classifier" in config.objective.trains:
            remedy = f"; sample from a denoiser and give it {option('classifier', 'RUN')}, to be guided by it"
        raise ValueError(
            f"objective.kind: expected denoising, from which samples are drawn, got {type(config.objective).__name__}"
            + remedy
        )
    return config.objective


def trained(config: Config, state: State, classifier: tuple[Config, State] | None = None) -> Trained:
    """The networks of a run with the moving averages of their weights; with the configuration and the state of another run,
    as of `load_state`, guided by its classifier. ValueError unless its objective is `Denoising`, and for a classifier of
    other classes, in another order, of other samples or with another schedule."""
    objective, guide = check_drawable(config), None
    if classifier is not None:
        other, weights = classifier
        check_classifier(config, other)
        guide = weights.networks(other)["classifier"]
    return Trained(_networks(config, state), objective, config.sample, config.engine, config.dtype, classifier=guide)


def system_model(config: Config, state: State) -> SystemModel:
    """The model of a run of a system, with the moving averages of its weights."""
    return SystemModel.of(_networks(config, state), config.objective, config.sample, config.engine, config.dtype)


def _networks(config: Config, state: State) -> dict[str, Network]:
    frozen = frozen_trees(config, state)
    return state.networks(config) | {name: Network(config.networks[name].model, p) for name, p in frozen.items()}


def every_class(model: Trained, n: int) -> Batch:
    """Conditions of n samples in which each class has its share, in order; none for a model without classes."""
    return {"label": np.arange(n) * model.classes // n} if model.classes else {}


def conditions_to_show(model: Trained, n: int, data: Data) -> tuple[Batch, np.ndarray | None]:
    """Conditions of n samples that show what a model has learned, and the samples of the data that they were made of.

    Each class has its share, in order, and there are no such samples; but a model that takes what only data have, such as a
    small image, is told of the first n that are held out, from the first again where they are fewer, and of training
    samples where none are.
    """
    known = {"label", *(entry for entry, _, _ in model.objective.null)}
    if set(conditions_taken(model.networks, model.objective)) <= known:
        return every_class(model, n), None
    if isinstance(data, Dataset) and len(data.held_out):
        ids = np.arange(n) % len(data.held_out)
        batch: Batch = {"x": data.held_out[ids]}
        if data.held_out_labels is not None:
            batch["label"] = data.held_out_labels[ids]
    else:
        batch = data.rows(np.arange(n) % len(data), Key(0).under("shown"))
    return conditions_of(model, batch), batch.get("x")
