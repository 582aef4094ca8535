"""A classifier that judges samples: the network `classifier` of a finished run, fitting the model that it judges."""

from __future__ import annotations

from ..config import Config
from ..config.classifiers import check_class_names
from ..errors import argument
from ..evaluation.judging import Judge, judge_function
from ..models import inputs
from ..sampling import Trained
from .state import State

__all__ = ["judge_of"]


def judge_of(config: Config, state: State, model: Trained, classes: tuple[str, ...] = ()) -> Judge:
    """judge(x) -> logits (N, classes), by the classifier of a run, as `load_state` gives it, with the moving average of its
    weights.

    classes: the names of the model's, as `data.classes` of its run has them.
    ValueError unless the run has a network `classifier` of samples of the model's shape and of as many classes, in the same
    order where both know their names.
    """
    name = argument("judge")
    if not model.classes:
        raise ValueError(f"{name}: expected a model with classes, got one without; leave it out")
    network = state.networks(config).get("classifier")
    if network is None:
        raise ValueError(
            f"{name}: expected a run with a network `classifier`, got one of {', '.join(config.networks)}; train one with "
            "the preset digits-judge, or on other data"
        )
    for what, expected, actual in (
        ("samples of shape", model.shape, inputs(network.config)["x"].shape),
        ("as many classes as the model,", model.classes, getattr(network.config, "classes", 0)),
    ):
        if expected != actual:
            raise ValueError(f"{name}: expected a classifier of {what} {expected}, got {actual}")
    check_class_names(name, classes, config.data.classes)
    return judge_function(model.engine, network, model.dtype)
