"""A network on the engine that samples with it: arrays of NumPy in and out."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np

from .. import engines, models
from ..models import Batch, Input, Network, inputs
from .denoisers import Function, Predict
from .trained import Trained

__all__ = ["encoder_function", "gradient_function", "log_posterior_gradient", "network_function"]

Gradient: TypeAlias = Callable[[np.ndarray, Any, np.ndarray], np.ndarray]


def network_function(
    engine: str,
    network: Network,
    dtype: str = "float32",
    function: Function = models.predict,
    more: dict[str, Input] | None = None,
) -> Predict:
    """predict(batch) -> what the network says, for arrays of NumPy; the weights are put where the engine has them once.

    function(engine, network, batch): what is asked of it instead of a prediction; more: entries that this reads beside the
    network's inputs. On cuda it is launched operation by operation: what is captured there is `CUDASampler`. A network that
    says several arrays answers by name, and is small: on cpu it is asked as it is.
    """
    engines.check_dtype(engine, dtype)
    name, module = engines.resolve(engine), engines.get(engine)
    if name == "cpu" and not hasattr(network.config, "says"):
        from .cpu import ParallelNetwork

        return ParallelNetwork(network, function=function, more=more)
    if name == "cuda":
        from .cuda import on_device

        network = on_device(network, dtype)
    entries = inputs(network.config) | (more or {})

    def predict(batch: Batch) -> Any:
        own = {n: module.array(batch[n]) if entries[n].kind == "float" else batch[n] for n in entries}
        y = function(module, network, own)
        return {n: module.host(a) for n, a in y.items()} if isinstance(y, dict) else module.host(y)

    return predict


def log_posterior_gradient(engine: ModuleType, network: Network, batch: Batch) -> Any:
    """grad_x log p(label | x_t) by the network's own backward: log p = -cross entropy.   [ADM] section 4.1

    network: x, t -> logits (N, classes). batch: x, t and label (N,) -> the shape of x.
    """
    logits, saved = models.forward(engine, network, batch)
    _, of_loss = engine.cross_entropy(logits, batch["label"])
    dlogits = engine.cross_entropy_backward(-1.0, of_loss)
    dinputs, _ = models.backward(engine, network, dlogits, models.consume(saved), ("x",))
    return dinputs["x"]


def gradient_function(engine: str, network: Network, dtype: str = "float32") -> Gradient:
    """f(x_t, t, label) -> grad_x log p(label | x_t) of a classifier, for arrays of NumPy.   x_t (N, ...), t () or (N,),
    label (N,) -> the shape of x_t.

    Computed as a prediction of `network_function` is: on cpu split between processes and captured, on cuda uncaptured; its
    weights are put where the engine has them once.
    """
    ask = network_function(engine, network, dtype, log_posterior_gradient, {"label": Input((), "int")})

    def gradient(x_t: np.ndarray, t: Any, label: np.ndarray) -> np.ndarray:
        return ask({"x": x_t, "t": np.broadcast_to(t, (len(x_t),)), "label": label})

    return gradient


def encoder_function(trained: Trained) -> Callable[[Batch], Batch]:
    """encode(conditions) -> the conditions, and those that the objective's encoders make of them for the denoiser, once for
    all t; the encoders' weights are put where the engine has them once."""
    encoders = {
        condition: network_function(trained.engine, trained.networks[name], trained.dtype)
        for condition, name in trained.objective.encoders
    }
    return lambda conditions: {**conditions, **{name: encode(conditions) for name, encode in encoders.items()}}
