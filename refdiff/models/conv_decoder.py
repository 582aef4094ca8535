"""A convolutional decoder: latents to images, or to what a likelihood p(x|z) needs [VAE]: the mirror of `conv_encoder`. One
linear layer, then for each level SiLU (a group norm before it from the second on, since the first would take the length of z
away), each pixel four times and a 3x3 convolution; a last one makes the channels."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from types import ModuleType
from typing import Any

from ..random import Key
from . import blocks
from .convolutional import ConvolutionalConfig
from .network import Batch, Input, Network, Saved
from .parameters import conv_layout, linear_layout, norm_layout
from .trees import Tree

__all__ = ["ConvDecoderConfig", "backward", "forward", "inputs", "layout"]


@dataclass(frozen=True)
class ConvDecoderConfig(ConvolutionalConfig):
    """What `ConvolutionalConfig` says: it reads z (latent,) and says (height, width, parts channels)."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample that it reads."""
        return (self.latent,)

    @property
    def outputs(self) -> tuple[int, ...]:
        """The shape of each part of what it says of a sample."""
        return self.image


def inputs(config: ConvDecoderConfig) -> dict[str, Input]:
    """z (latent,)."""
    return {"z": Input((config.latent,))}


def layout(config: ConvDecoderConfig) -> Tree:
    """The parameters of the network, as a tree of `Parameter`."""
    widths = config.widths
    p: Tree = {"linear_in": linear_layout(config.latent, prod(config.smallest))}
    for level in reversed(range(1, len(widths))):
        c_out, c_in = widths[level - 1 : level + 1]
        p[f"level{level}"] = {"conv": conv_layout(3, c_in, c_out), "norm": norm_layout(c_out)}
    return p | {"conv_out": conv_layout(3, widths[0], config.parts * config.channels)}


def forward(engine: ModuleType, net: Network, inputs: Batch, key: Key | None = None) -> tuple[Any, Saved]:
    """z (N, latent) -> (N, height, width, parts channels), saved"""
    config, p = net
    saved: Saved = {}
    h, saved["linear_in"] = engine.linear(inputs["z"], **p["linear_in"])
    h, saved["unflatten"] = engine.reshape(h, (h.shape[0], *config.smallest))
    h, saved["silu"] = engine.silu(h)
    for level in reversed(range(1, len(config.widths))):
        q, s = p[f"level{level}"], saved.setdefault(f"level{level}", {})
        h, s["up"] = engine.upsample_nearest(h)
        h, s["conv"] = engine.conv2d(h, **q["conv"])
        groups = blocks.groups_of(config.widths[level - 1], config.groups)
        h, s["norm"] = engine.group_norm_silu(h, **q["norm"], groups=groups)
    y, saved["conv_out"] = engine.conv2d(h, **p["conv_out"])
    return y, saved


def backward(
    engine: ModuleType, net: Network, dy: Any, saved: Saved, wrt: tuple[str, ...] = ()
) -> tuple[dict[str, Any], Tree]:
    """z (N, latent) where wrt names it, and the gradients, a tree with the keys of the parameters."""
    g: Tree = {}
    dh, g["conv_out"] = engine.conv2d_backward(dy, saved["conv_out"])
    for level in range(1, len(net.config.widths)):
        s, q = saved[f"level{level}"], g.setdefault(f"level{level}", {})
        dh, q["norm"] = engine.group_norm_silu_backward(dh, s["norm"])
        dh, q["conv"] = engine.conv2d_backward(dh, s["conv"])
        dh = engine.upsample_nearest_backward(dh, s["up"])
    dh = engine.silu_backward(dh, saved["silu"])
    dh = engine.reshape_backward(dh, saved["unflatten"])
    dz, g["linear_in"] = engine.linear_backward(dh, saved["linear_in"], needs_dx="z" in wrt)
    return {"z": dz} if "z" in wrt else {}, g
