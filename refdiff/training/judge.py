"""A classifier that judges samples: the network `classifier` of a finished run, fitting the model that it judges."""

from __future__ import annotations

from pathlib import Path

from ..errors import argument
from ..evaluation.judging import Judge, judge_function
from ..models import inputs
from ..sampling import Trained
from .state import load_state

__all__ = ["load_judge"]


def load_judge(run: str | Path, model: Trained) -> Judge:
    """judge(x) -> logits (N, classes), by the classifier of this run with the moving average of its weights.

    ValueError unless the run has a network `classifier` of samples of the model's shape and of as many classes.
    """
    name = argument("judge")
    if not model.classes:
        raise ValueError(f"{name}: expected a model with classes, got one without; leave it out")
    config, state = load_state(run)
    network = state.networks(config).get("classifier")
    classes = getattr(network.config, "classes", 0) if network else 0
    if network is None or not classes:
        raise ValueError(
            f"{name}: expected a run with a network `classifier`, got {run}, whose networks are "
            f"{', '.join(config.networks)}; train one with the preset digits-judge, or on other data"
        )
    for what, expected, actual in (
        ("samples of", model.shape, inputs(network.config)["x"].shape),
        ("as many classes as the model,", model.classes, classes),
    ):
        if expected != actual:
            raise ValueError(f"{name}: expected a classifier of {what} {expected}, got {actual} in {run}")
    return judge_function(model.engine, network, model.dtype)
