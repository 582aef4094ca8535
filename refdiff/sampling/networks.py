"""A network on the engine that samples with it: arrays of NumPy in and out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .. import engines, models
from ..models import Batch, Network, inputs
from .denoisers import Predict
from .trained import Trained

__all__ = ["encoder_function", "network_function"]


def network_function(engine: str, network: Network, dtype: str = "float32") -> Predict:
    """predict(batch) -> what the network says, for arrays of NumPy; the weights are put where the engine has them once."""
    engines.check_dtype(engine, dtype)
    name, module = engines.resolve(engine), engines.get(engine)
    if name == "cpu":
        from .cpu import ParallelNetwork

        return ParallelNetwork(network)
    if name == "cuda":
        from .cuda import on_device

        network = Network(network.config, on_device(network.p, dtype))
    entries = inputs(network.config)

    def predict(batch: Batch) -> np.ndarray:
        own = {n: module.array(batch[n], dtype) if entries[n].kind == "float" else batch[n] for n in entries}
        return module.host(models.predict(module, network, own))

    return predict


def encoder_function(trained: Trained) -> Callable[[Batch], Batch]:
    """encode(conditions) -> the conditions, and those that the objective's encoders make of them for the denoiser, once for
    all t; the encoders' weights are put where the engine has them once."""
    encoders = {
        condition: network_function(trained.engine, trained.networks[name], trained.dtype)
        for condition, name in trained.objective.encoders
    }
    return lambda conditions: {**conditions, **{name: encode(conditions) for name, encode in encoders.items()}}
