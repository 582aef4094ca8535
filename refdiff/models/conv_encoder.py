"""A convolutional encoder: images to latents, or to the mean and log variance of q(z|x) [VAE]. A 3x3 convolution, then for
each level a group norm, SiLU and a 3x3 convolution of stride 2, then one linear layer."""

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

__all__ = ["ConvEncoderConfig", "backward", "forward", "inputs", "layout"]

PADDING = (0, 1)  # of the convolutions of stride 2: a row and a column of zeros behind the last


@dataclass(frozen=True)
class ConvEncoderConfig(ConvolutionalConfig):
    """What `ConvolutionalConfig` says: it reads x (height, width, channels) and says (parts latent,)."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return self.image

    @property
    def outputs(self) -> tuple[int, ...]:
        """The shape of each part of what it says of a sample."""
        return (self.latent,)


def inputs(config: ConvEncoderConfig) -> dict[str, Input]:
    """x (height, width, channels)."""
    return {"x": Input(config.image)}


def layout(config: ConvEncoderConfig) -> Tree:
    """The parameters of the network, as a tree of `Parameter`."""
    widths = config.widths
    p: Tree = {"conv_in": conv_layout(3, config.channels, widths[0])}
    for level in range(1, len(widths)):
        c_in, c_out = widths[level - 1 : level + 1]
        p[f"level{level}"] = {"norm": norm_layout(c_in), "conv": conv_layout(3, c_in, c_out)}
    p["norm_out"] = norm_layout(widths[-1])
    return p | {"linear_out": linear_layout(prod(config.smallest), config.parts * config.latent)}


def forward(engine: ModuleType, net: Network, inputs: Batch, key: Key | None = None) -> tuple[Any, Saved]:
    """x (N, height, width, channels) -> (N, parts latent), saved"""
    config, p = net
    saved: Saved = {}
    h, saved["conv_in"] = engine.conv2d(inputs["x"], **p["conv_in"])
    for level, c in enumerate(config.widths[:-1], 1):
        q, s = p[f"level{level}"], saved.setdefault(f"level{level}", {})
        h, s["norm"] = engine.group_norm_silu(h, **q["norm"], groups=blocks.groups_of(c, config.groups))
        h, s["conv"] = engine.conv2d(h, **q["conv"], stride=2, padding=PADDING)
    groups = blocks.groups_of(config.widths[-1], config.groups)
    h, saved["norm_out"] = engine.group_norm_silu(h, **p["norm_out"], groups=groups)
    h, saved["flatten"] = engine.reshape(h, (h.shape[0], prod(config.smallest)))
    y, saved["linear_out"] = engine.linear(h, **p["linear_out"])
    return y, saved


def backward(
    engine: ModuleType, net: Network, dy: Any, saved: Saved, wrt: tuple[str, ...] = ()
) -> tuple[dict[str, Any], Tree]:
    """x (N, height, width, channels) where wrt names it, and the gradients, a tree with the keys of the parameters."""
    g: Tree = {}
    dh, g["linear_out"] = engine.linear_backward(dy, saved["linear_out"])
    dh = engine.reshape_backward(dh, saved["flatten"])
    dh, g["norm_out"] = engine.group_norm_silu_backward(dh, saved["norm_out"])
    for level in reversed(range(1, len(net.config.widths))):
        s, q = saved[f"level{level}"], g.setdefault(f"level{level}", {})
        dh, q["conv"] = engine.conv2d_backward(dh, s["conv"])
        dh, q["norm"] = engine.group_norm_silu_backward(dh, s["norm"])
    dx, g["conv_in"] = engine.conv2d_backward(dh, saved["conv_in"], needs_dx="x" in wrt)
    return {"x": dx} if "x" in wrt else {}, g
