"""Linear layers with SiLU between them: what encodes and decodes points and small images. Without hidden layers it is one
linear map, as in probabilistic principal components [PPCA]."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import prod
from types import ModuleType
from typing import Any

from ..random import Key
from .network import Batch, Input, Network, Saved
from .parameters import linear_layout
from .shapes import check_integers, check_shape, freeze_lists
from .trees import Tree

__all__ = ["PerceptronConfig", "backward", "forward", "inputs", "layout"]


@dataclass(frozen=True)
class PerceptronConfig:
    """inputs: the shape of a sample that it reads, which is flattened; hidden: units of each hidden layer, none for a linear
    map; outputs: the shape of what it says of a sample; parts: how many such stand side by side along the last axis, 2 for a
    mean and a log variance; entry: of the batch, which it reads. ValueError for anything of size zero.
    """

    inputs: tuple[int, ...] = (2,)
    hidden: tuple[int, ...] = (64,)
    outputs: tuple[int, ...] = (2,)
    parts: int = 1
    entry: str = "x"

    def __post_init__(self) -> None:
        freeze_lists(self, "inputs", "hidden", "outputs")
        for name in ("inputs", "hidden", "outputs"):
            check_shape(name, getattr(self, name), empty=name == "hidden")
        check_integers(self, "parts")
        if not self.entry:
            raise ValueError("entry: expected the name of what it reads, such as x or z, got ''")

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return self.inputs

    @property
    def widths(self) -> tuple[int, ...]:
        """Numbers before, between and behind the layers."""
        return prod(self.inputs), *self.hidden, self.parts * prod(self.outputs)


def inputs(config: PerceptronConfig) -> dict[str, Input]:
    """The one entry, of the shape `inputs`."""
    return {config.entry: Input(config.inputs)}


def layout(config: PerceptronConfig) -> Tree:
    """The parameters of the network, as a tree of `Parameter`."""
    widths = config.widths
    return {f"linear{i}": linear_layout(a, b) for i, (a, b) in enumerate(pairwise(widths))}


def forward(engine: ModuleType, net: Network, inputs: Batch, key: Key | None = None) -> tuple[Any, Saved]:
    """W_L silu(... silu(W_1 x + b_1) ...) + b_L.   (N, *inputs) -> (N, *outputs[:-1], parts outputs[-1]), saved"""
    config, p = net
    saved: Saved = {}
    x = inputs[config.entry]
    h, saved["flatten"] = engine.reshape(x, (x.shape[0], prod(config.inputs)))
    for i in range(len(config.hidden) + 1):
        if i:
            h, saved[f"silu{i}"] = engine.silu(h)
        h, saved[f"linear{i}"] = engine.linear(h, **p[f"linear{i}"])
    *places, last = config.outputs
    y, saved["unflatten"] = engine.reshape(h, (x.shape[0], *places, config.parts * last))
    return y, saved


def backward(
    engine: ModuleType, net: Network, dy: Any, saved: Saved, wrt: tuple[str, ...] = ()
) -> tuple[dict[str, Any], Tree]:
    """The entry's gradient (N, *inputs) where wrt names it, and the gradients, a tree with the keys of the parameters."""
    config, g = net.config, {}
    dh = engine.reshape_backward(dy, saved["unflatten"])
    for i in reversed(range(len(config.hidden) + 1)):
        dh, g[f"linear{i}"] = engine.linear_backward(dh, saved[f"linear{i}"], needs_dx=i > 0 or config.entry in wrt)
        if i:
            dh = engine.silu_backward(dh, saved[f"silu{i}"])
    return {config.entry: engine.reshape_backward(dh, saved["flatten"])} if config.entry in wrt else {}, g
