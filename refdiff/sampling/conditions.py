"""What a model is told of samples of data: their labels, and images made small of themselves."""

from __future__ import annotations

import numpy as np

from ..engines import reference
from ..models import Batch
from ..objectives import downscaled
from .denoisers import conditions_taken
from .trained import Trained

__all__ = ["conditions_of"]


def conditions_of(trained: Trained, batch: Batch) -> Batch:
    """The conditions of samples like these: the entries of a batch of data that the model takes, and `low_res`, which is
    made of x as in training where the objective makes it (`objective.downscale`). With a classifier also the label.

    batch: x (N, ...), and entries like label (N,), each one a sample. What is in none is left out.
    """
    downscale, takes = trained.objective.downscale, set(conditions_taken(trained.networks, trained.objective))
    if downscale:
        batch = batch | {"low_res": downscaled(reference, np.asarray(batch["x"]), downscale)}
    if trained.classifier is not None:
        takes.add("label")
    return {name: np.asarray(value) for name, value in batch.items() if name in takes}
