"""The classifier of [ADM] section 4: the encoder half of the U-Net and its middle, and one row of logits of what they say.

It is trained on noisy images, so it is told t; what it says of them guides a sampler through its gradient in x.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

from ..errors import one_of
from ..random import Key
from . import blocks, encoder
from .encoder_config import EncoderConfig
from .network import Batch, Input, Network, Saved
from .parameters import norm_layout
from .trees import Tree

__all__ = ["ClassifierConfig", "backward", "forward", "inputs", "layout"]

LAST = ("attention", "adaptive")  # the poolings of the last state, after a norm and a SiLU; the others read every state


@dataclass(frozen=True)
class ClassifierConfig(EncoderConfig):
    """What `EncoderConfig` says, and beside it:

    classes: how many there are to tell apart. pooling: "attention", "adaptive", "spatial" or "spatial_v2", see
    `blocks/pooling.py`. ValueError when something does not fit.
    """

    classes: int = 10
    pooling: str = "attention"

    def __post_init__(self) -> None:
        if not isinstance(self.classes, int) or self.classes < 2:
            raise ValueError(f"classes: expected at least 2 to tell apart, got {self.classes}")
        super().__post_init__()
        one_of("pooling", self.pooling, blocks.POOLINGS)


def inputs(config: ClassifierConfig) -> dict[str, Input]:
    """x (height, width, channels) and t."""
    return {"x": Input(config.shape), **blocks.conditioning_inputs()}


def layout(config: ClassifierConfig) -> Tree:
    """The parameters of the network, as a tree of `Parameter`."""
    c, halvings = config.widths[-1], len(config.widths) - 1
    p = blocks.conditioning_layout(config.width, 4 * config.width)
    p |= encoder.layout(config, config.channels)
    if config.pooling not in LAST:
        states = config.stem_width + sum(layer.c_out for layer in encoder.encoder(config)) + c
        return p | {"pool": blocks.spatial_pool_layout(states, config.classes, config.pooling == "spatial_v2")}
    p["norm_out"] = norm_layout(c)
    if config.pooling == "adaptive":
        return p | {"pool": blocks.mean_pool_layout(c, config.classes)}
    height, width = (side // 2**halvings for side in config.sides)
    return p | {"pool": blocks.attention_pool_layout(c, height * width, config.classes)}


def forward(engine: ModuleType, net: Network, inputs: Batch, key: Key | None = None) -> tuple[Any, Saved]:
    """log p(y | x_t, t) up to a constant of each row.   x (N, height, width, channels), t (N,) -> (N, classes), saved.

    key: switches dropout on; the mask of a block is named after it.
    """
    config, p = net
    saved: Saved = {}
    emb, saved["conditioning"] = blocks.conditioning(engine, p, inputs, config.time)
    h, states = encoder.forward(engine, net, inputs["x"], emb, saved, key)
    if config.pooling not in LAST:
        y, saved["pool"] = blocks.spatial_pool(engine, p["pool"], [*states, h], config.groups, config.epsilon)
        return y, saved
    groups = blocks.groups_of(h.shape[-1], config.groups)
    h, saved["norm_out"] = engine.group_norm_silu(h, **p["norm_out"], groups=groups, epsilon=config.epsilon)
    if config.pooling == "adaptive":
        y, saved["pool"] = blocks.mean_pool(engine, p["pool"], h)
    else:
        y, saved["pool"] = blocks.attention_pool(engine, p["pool"], h, config.heads_of(h.shape[-1]))
    return y, saved


def backward(
    engine: ModuleType, net: Network, dy: Any, saved: Saved, wrt: tuple[str, ...] = ()
) -> tuple[dict[str, Any], Tree]:
    """x (N, height, width, channels) and t (N,) where wrt names them, and the gradients, a tree with the keys of the
    parameters."""
    config = net.config
    g: Tree = {}
    dembs: list[Any] = []
    dstates: list[Any] = []
    if config.pooling not in LAST:
        (*dstates, dh), g["pool"] = blocks.spatial_pool_backward(engine, dy, saved["pool"])
    else:
        backward_of_pool = blocks.mean_pool_backward if config.pooling == "adaptive" else blocks.attention_pool_backward
        dh, g["pool"] = backward_of_pool(engine, dy, saved["pool"])
        dh, g["norm_out"] = engine.group_norm_silu_backward(dh, saved["norm_out"])
    dx, of_encoder = encoder.backward(engine, config, dh, dstates, saved, dembs, needs_dx="x" in wrt)
    demb = engine.accumulate(*dembs)
    dt, of_conditioning = blocks.conditioning_backward(engine, demb, saved["conditioning"], needs_dt="t" in wrt)
    return {name: d for name, d in (("x", dx), ("t", dt)) if name in wrt}, g | of_encoder | of_conditioning
