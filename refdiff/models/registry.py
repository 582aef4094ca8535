"""Every kind of network by name, ours and a user's alike: a frozen configuration and four functions of its module.

inputs(config) -> {name: Input}                               what `forward` reads of a batch; it ignores the rest
layout(config) -> Tree of Parameter                           shapes and first values
forward(engine, net, inputs, key=None) -> y, saved            y an array, or a dictionary of several, whose configuration
                                                              then has their names as `says`; a key: dropout
backward(engine, net, dy, saved, wrt=()) -> dinputs, g        of the inputs named in wrt; g has the keys of net.p
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from types import ModuleType
from typing import Any

from ..errors import new_name
from ..random import Key
from . import classifier, conv_decoder, conv_encoder, mlp, monotone, perceptron, table, unet
from .inference import InferenceEngine
from .network import Batch, Input, Network, Saved
from .trees import Tree

__all__ = ["KINDS", "backward", "forward", "inputs", "kind_of", "layout", "predict", "register"]

KINDS: dict[str, type] = {}
_MODULES: dict[type, Any] = {}
FUNCTIONS = ("inputs", "layout", "forward", "backward")


def register(name: str, config: type, module: Any) -> None:
    """Make a kind of network known by this name, as configurations write it: `networks.denoiser.kind = "name"`.

    config: a frozen dataclass; module: anything with the four functions above. ValueError if the name is taken by another
    configuration or is none, or if something is missing.
    """
    new_name(name)
    parameters = getattr(config, "__dataclass_params__", None)
    if not isinstance(config, type) or not is_dataclass(config) or not getattr(parameters, "frozen", False):
        raise ValueError(f"config: expected a frozen dataclass for the network {name!r}, got {config!r}")
    if "kind" in (f.name for f in fields(config)):
        raise ValueError(
            f"config: expected no field 'kind' in {config.__name__}, since that names the network; rename it"
        )
    missing = [f for f in FUNCTIONS if not callable(getattr(module, f, None))]
    if missing:
        raise ValueError(
            f"module: expected the functions {', '.join(FUNCTIONS)} for the network {name!r}, got none named "
            f"{', '.join(missing)}"
        )
    if KINDS.get(name, config) is not config:
        raise ValueError(f"name: expected one that no other network has, got {name!r}, which is {KINDS[name].__name__}")
    KINDS[name], _MODULES[config] = config, module


def kind_of(config: Any) -> str:
    """The name under which this configuration's class is registered. ValueError if it is not."""
    for name, known in KINDS.items():
        if type(config) is known:
            return name
    raise ValueError(
        f"config: expected one of {', '.join(c.__name__ for c in KINDS.values())}, got {type(config).__name__}; "
        "make it known with refdiff.models.register, in the module that defines it"
    )


def inputs(config: Any) -> dict[str, Input]:
    """What the network reads of a batch."""
    return _module(config).inputs(config)


def layout(config: Any) -> Tree:
    """The parameters of the network, as a tree of `Parameter`."""
    return _module(config).layout(config)


def forward(engine: ModuleType, net: Network, inputs: Batch, key: Key | None = None) -> tuple[Any, Saved]:
    """What the network says of a batch, and what its backward needs. A key switches dropout on.

    ValueError where the batch lacks an input.
    """
    return _ready(net, inputs).forward(engine, net, inputs, key)


def predict(engine: ModuleType, net: Network, inputs: Batch) -> Any:
    """`forward` without dropout where no `backward` follows: memory that only that would need is used again at once."""
    return _ready(net, inputs).forward(InferenceEngine(engine), net, inputs, None)[0]


def backward(
    engine: ModuleType, net: Network, dy: Any, saved: Saved, wrt: tuple[str, ...] = ()
) -> tuple[dict[str, Any], Tree]:
    """The gradients of `forward`: of the inputs named in wrt, by name, and a tree with the keys and shapes of net.p."""
    return _module(net.config).backward(engine, net, dy, saved, wrt)


def _ready(net: Network, batch: Batch) -> Any:
    """The module of a network whose inputs the batch has."""
    module = _module(net.config)
    missing = [name for name in module.inputs(net.config) if name not in batch]
    if missing:
        raise ValueError(
            f"inputs: expected {', '.join(module.inputs(net.config))}, which {type(net.config).__name__} reads, got "
            f"{', '.join(batch)}; {', '.join(missing)} is missing"
        )
    return module


def _module(config: Any) -> Any:
    kind_of(config)
    return _MODULES[type(config)]


register("unet", unet.UNetConfig, unet)
register("mlp", mlp.MLPConfig, mlp)
register("classifier", classifier.ClassifierConfig, classifier)
register("perceptron", perceptron.PerceptronConfig, perceptron)
register("conv_encoder", conv_encoder.ConvEncoderConfig, conv_encoder)
register("conv_decoder", conv_decoder.ConvDecoderConfig, conv_decoder)
register("table", table.TableConfig, table)
register("monotone", monotone.MonotoneConfig, monotone)
