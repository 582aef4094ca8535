"""The networks, written once against an engine. A model is a frozen configuration; these functions take any of them.

p        = initialise(layout(config), seed)               parameters, a tree
y, saved = forward(engine, config, p, x, t)
dx, g    = backward(engine, config, dy, saved)             g has the keys and shapes of p
y        = predict(engine, config, p, x, t)                where no gradient is wanted
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, TypeAlias

from ..random import Sequence
from . import mlp, unet
from .blocks import Saved
from .forgetful import Forgetful, once
from .mlp import MLPConfig
from .parameters import Spec, count, initialise
from .presets import MODELS
from .trees import Tree, flatten, leaves, tree_map, unflatten
from .unet import UNetConfig

__all__ = [
    "KINDS",
    "MODELS",
    "MLPConfig",
    "ModelConfig",
    "Spec",
    "Tree",
    "UNetConfig",
    "backward",
    "count",
    "flatten",
    "forward",
    "initialise",
    "layout",
    "leaves",
    "once",
    "predict",
    "tree_map",
    "unflatten",
]  # fmt: skip

ModelConfig: TypeAlias = UNetConfig | MLPConfig
KINDS: dict[str, type[UNetConfig] | type[MLPConfig]] = {"unet": UNetConfig, "mlp": MLPConfig}
_MODULES: dict[type, Any] = {UNetConfig: unet, MLPConfig: mlp}


def layout(config: ModelConfig) -> Tree:
    """The parameters of the model, as a tree of `Spec`."""
    return _MODULES[type(config)].layout(config)


def forward(
    engine: ModuleType, config: ModelConfig, p: Tree, x: Any, t: Any, key: Sequence | None = None
) -> tuple[Any, Saved]:
    """The prediction for x at t.   x (N, ...), t (N,) -> (N, ...), saved. A key switches dropout on."""
    return _MODULES[type(config)].forward(engine, config, p, x, t, key)


def predict(engine: ModuleType, config: ModelConfig, p: Tree, x: Any, t: Any) -> Any:
    """`forward` without dropout where no `backward` follows: memory that only that would need is used again at once."""
    return _MODULES[type(config)].forward(Forgetful(engine), config, p, x, t, None)[0]


def backward(engine: ModuleType, config: ModelConfig, dy: Any, saved: Saved, needs_dx: bool = True) -> tuple[Any, Tree]:
    """The gradients of `forward`: dx, and a tree with the keys and shapes of p.

    needs_dx: False in training, where x is data: dx is then None and its convolution is left out.
    """
    return _MODULES[type(config)].backward(engine, config, dy, saved, needs_dx)
