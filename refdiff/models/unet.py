"""The U-Net of [DDPM] appendix B: an encoder, a middle and a decoder that sees every state of the encoder again.

`encoder` and `decoder` list the layers of a configuration; layout, forward and backward each walk those lists, so what
the network is stands in one place. Backward walks them the other way round.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

from ..random import Key
from . import blocks
from . import encoder as shared
from .encoder import Layer, encoder
from .encoder_config import EncoderConfig
from .network import Batch, Input, Network, Saved
from .parameters import conv_layout, norm_layout
from .trees import Tree

__all__ = ["UNetConfig", "backward", "decoder", "encoder", "forward", "inputs", "layout"]


@dataclass(frozen=True)
class UNetConfig(EncoderConfig):
    """What `EncoderConfig` says, and beside it:

    classes: how many labels there are, 0 for none. outputs: how many arrays of the images' shape it says, side by side: 2 for
    a prediction and v, of which a learned variance is made. ValueError when something does not fit.
    """

    classes: int = 0
    outputs: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.classes, int) or self.classes < 0:
            raise ValueError(f"classes: expected how many labels there are, 0 for none, got {self.classes}")
        self._check_integers("outputs")
        super().__post_init__()


def decoder(config: UNetConfig) -> list[Layer]:
    """The layers on the way up. The input of each block is joined with the latest of these skips that is not yet used."""
    skips = [config.width, *(layer.c_out for layer in encoder(config))]
    layers, c = [], skips[-1]
    size = min(config.sides) // 2 ** (len(config.multipliers) - 1)
    for level, multiplier in reversed(list(enumerate(config.multipliers))):
        c_out = config.width * multiplier
        for i in range(config.blocks + 1):
            layers.append(Layer(f"up{level}_block{i}", "block", c + skips.pop(), c_out, size in config.attention))
            c = c_out
        if level:
            layers.append(Layer(f"up{level}_double", "up", c, c))
            size *= 2
    return layers


def inputs(config: UNetConfig) -> dict[str, Input]:
    """x (height, width, channels), t, and the label of a network with classes."""
    return {"x": Input(config.shape), **blocks.conditioning_inputs(config.classes)}


def layout(config: UNetConfig) -> Tree:
    """The parameters of the network, as a tree of `Parameter`."""
    p = blocks.conditioning_layout(config.width, 4 * config.width, config.classes)
    p |= shared.layout(config, config.channels)
    p |= {layer.name: shared.layer_layout(config, layer) for layer in decoder(config)}
    out = config.width * config.multipliers[0]
    p["norm_out"] = norm_layout(out)
    p["conv_out"] = conv_layout(3, out, config.outputs * config.channels, zero=True)
    return p


def forward(engine: ModuleType, net: Network, inputs: Batch, key: Key | None = None) -> tuple[Any, Saved]:
    """The network's prediction.   x (N, height, width, channels), t (N,) -> (N, height, width, outputs channels), saved.

    key: switches dropout on; the mask of a block is named after it. None: no dropout, as in sampling.
    """
    config, p = net
    saved: Saved = {}
    emb, saved["conditioning"] = blocks.conditioning(engine, p, inputs, config.time)
    h, skips = shared.forward(engine, net, inputs["x"], emb, saved, key)
    for layer in decoder(config):
        concat = None
        if layer.kind == "block":
            h, concat = engine.concat(h, skips.pop())
        h, saved[layer.name] = shared.apply(engine, net, layer, h, emb, key)
        if layer.kind == "block":
            saved[layer.name]["concat"] = concat
    groups = blocks.groups_of(h.shape[-1], config.groups)
    h, saved["norm_out"] = engine.group_norm_silu(h, **p["norm_out"], groups=groups)
    y, saved["conv_out"] = engine.conv2d(h, **p["conv_out"])
    return y, saved


def backward(
    engine: ModuleType, net: Network, dy: Any, saved: Saved, wrt: tuple[str, ...] = ()
) -> tuple[dict[str, Any], Tree]:
    """x (N, height, width, channels) and t (N,) where wrt names them, and the gradients, a tree with the keys of the
    parameters."""
    config = net.config
    g: Tree = {}
    dembs: list[Any] = []
    dskips: list[Any] = []
    dh, g["conv_out"] = engine.conv2d_backward(dy, saved["conv_out"])
    dh, g["norm_out"] = engine.group_norm_silu_backward(dh, saved["norm_out"])
    for layer in reversed(decoder(config)):
        own = saved[layer.name]
        dh, g[layer.name] = shared.apply_backward(engine, layer, dh, own, dembs)
        if layer.kind == "block":
            dh, dskip = engine.concat_backward(dh, own["concat"])
            dskips.append(dskip)
    dx, of_encoder = shared.backward(engine, config, dh, dskips, saved, dembs, needs_dx="x" in wrt)
    demb = engine.accumulate(*dembs)
    dt, of_conditioning = blocks.conditioning_backward(engine, demb, saved["conditioning"], needs_dt="t" in wrt)
    return {name: d for name, d in (("x", dx), ("t", dt)) if name in wrt}, g | of_encoder | of_conditioning
