"""The U-Net of [DDPM] appendix B: an encoder, a middle and a decoder that sees every state of the encoder again.

`encoder` and `decoder` list the layers of a configuration; layout, forward and backward each walk those lists, so what
the network is stands in one place. Backward walks them the other way round.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from math import gcd
from types import ModuleType
from typing import Any, NamedTuple

from ..errors import one_of
from ..random import Key
from . import blocks
from .network import Batch, Input, Network, Saved
from .parameters import conv_layout, norm_layout
from .trees import Tree

__all__ = ["DOWNSAMPLINGS", "UNetConfig", "backward", "forward", "inputs", "layout"]

DOWNSAMPLINGS = ("strided", "pooled")


@dataclass(frozen=True)
class UNetConfig:
    """size: height and width of the images, one number or (height, width); channels: theirs; width: the feature channels of
    the first level.

    multipliers: the width of each level as a multiple of `width`; each level but the last halves the size.
    blocks: residual blocks a level (the decoder has one more). attention: sizes at which attention follows each block; left
    out, the largest of at most 16 below the images' own, if there is one (the middle has attention always); the size of a
    level that is not square is its smaller side.
    heads: of the attention. groups: most groups of a group norm. dropout: rate in [0, 1). downsampling: "strided" or
    "pooled". time: "ddpm" or "adm" sinusoids. classes: how many labels there are, 0 for none. outputs: how many arrays of
    the images' shape it says, side by side: 2 for a prediction and v, of which a learned variance is made. ValueError when
    something does not fit.
    """

    size: int | tuple[int, int] = 32
    channels: int = 3
    width: int = 128
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    blocks: int = 2
    attention: tuple[int, ...] = None  # type: ignore[assignment]  # until __post_init__ has seen the sizes
    heads: int = 1
    groups: int = 32
    dropout: float = 0.0
    downsampling: str = "strided"
    time: str = "ddpm"
    classes: int = 0
    outputs: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.size, tuple) and (
            len(self.size) != 2 or not all(type(s) is int and s >= 1 for s in self.size)
        ):
            raise ValueError(f"size: expected a side, or height and width, of at least 1 each, got {self.size}")
        if not isinstance(self.classes, int) or self.classes < 0:
            raise ValueError(f"classes: expected how many labels there are, 0 for none, got {self.classes}")
        sides = () if isinstance(self.size, tuple) else ("size",)
        for name in (*sides, "channels", "width", "blocks", "heads", "groups", "outputs"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise ValueError(f"{name}: expected an integer of at least 1, got {getattr(self, name)}")
        if not self.multipliers or not all(isinstance(m, int) and m >= 1 for m in self.multipliers):
            raise ValueError(f"multipliers: expected at least one integer of at least 1, got {self.multipliers}")
        if self.width < 4:
            raise ValueError(f"width: expected at least 4, the least that carries a time embedding, got {self.width}")
        halvings = len(self.multipliers) - 1
        if any(side % 2**halvings for side in self.sides):
            padded = "x".join(str(-(-side // 2**halvings) * 2**halvings) for side in self.sides)
            possible = min((side & -side).bit_length() for side in self.sides)
            raise ValueError(
                f"size: expected a multiple of {2**halvings}, since {len(self.multipliers)} multipliers halve it "
                f"{halvings} times, got {self.size}; pad the images to {padded}, or give at most {possible}: "
                f"multipliers={str(list(self.multipliers[:possible])).replace(' ', '')}"
            )
        sizes = level_sizes(min(self.sides), self.multipliers)
        if self.attention is None:
            object.__setattr__(self, "attention", tuple(s for s in sizes[1:] if s <= 16)[:1])
        if not set(self.attention) <= set(sizes):
            fits = str([s for s in sizes[1:] if s <= 16][:1]).replace(" ", "")
            raise ValueError(
                f"attention: expected sizes among {sizes}, got {list(self.attention)}; give attention={fits}"
            )
        widths = {self.width * self.multipliers[-1], *(self.width * m for m, s in zip(self.multipliers, sizes, strict=True)
                                                      if s in self.attention)}  # fmt: skip
        if any(c % self.heads for c in widths):
            raise ValueError(
                f"heads: expected a divisor of {gcd(*widths)}, the channels with attention, got {self.heads}"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout: expected a rate in [0, 1), got {self.dropout}")
        one_of("downsampling", self.downsampling, DOWNSAMPLINGS)
        one_of("time", self.time, blocks.TIMES)

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of the images."""
        return self.size if isinstance(self.size, tuple) else (self.size, self.size)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return *self.sides, self.channels


def level_sizes(size: int, multipliers: Collection[int]) -> list[int]:
    """The side of each level, from the images' own down."""
    return [size // 2**level for level in range(len(multipliers))]


class Layer(NamedTuple):
    """name: its place in the parameters; kind: "block", "down" or "up"; channels in and out; attention after a block."""

    name: str
    kind: str
    c_in: int
    c_out: int
    attention: bool = False


def encoder(config: UNetConfig) -> list[Layer]:
    """The layers on the way down. The output of each, and of the first convolution, goes to the decoder too."""
    layers, c, size = [], config.width, min(config.sides)
    for level, multiplier in enumerate(config.multipliers):
        c_out = config.width * multiplier
        for i in range(config.blocks):
            layers.append(Layer(f"down{level}_block{i}", "block", c, c_out, size in config.attention))
            c = c_out
        if level < len(config.multipliers) - 1:
            layers.append(Layer(f"down{level}_halve", "down", c, c))
            size //= 2
    return layers


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
    embedded = 4 * config.width
    deep = config.width * config.multipliers[-1]

    def layer_layout(layer: Layer) -> Tree:
        if layer.kind == "down":
            return blocks.downsample_layout(layer.c_in, config.downsampling)
        if layer.kind == "up":
            return blocks.upsample_layout(layer.c_in)
        p = {"residual": blocks.residual_layout(layer.c_in, layer.c_out, embedded)}
        if layer.attention:
            p["attention"] = blocks.attention_layout(layer.c_out)
        return p

    p = blocks.conditioning_layout(config.width, embedded, config.classes)
    p["conv_in"] = conv_layout(3, config.channels, config.width)
    p |= {layer.name: own for layer in encoder(config) if (own := layer_layout(layer))}  # a mean has no parameters
    p["middle_block0"] = layer_layout(Layer("middle_block0", "block", deep, deep, attention=True))
    p["middle_block1"] = layer_layout(Layer("middle_block1", "block", deep, deep))
    p |= {layer.name: layer_layout(layer) for layer in decoder(config)}
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

    def block(name: str, h: Any) -> Any:
        s = saved[name] = {}
        dropout = key(f"{name}/dropout") if key else None
        h, s["residual"] = blocks.residual(engine, p[name]["residual"], h, emb, config.groups, config.dropout, dropout)
        if "attention" in p[name]:
            h, s["attention"] = blocks.attention(engine, p[name]["attention"], h, config.groups, config.heads)
        return h

    emb, saved["conditioning"] = blocks.conditioning(engine, p, inputs, config.time)
    h, saved["conv_in"] = engine.conv2d(inputs["x"], **p["conv_in"])
    skips = [h]
    for layer in encoder(config):
        if layer.kind == "block":
            h = block(layer.name, h)
        else:
            h, saved[layer.name] = blocks.downsample(engine, p.get(layer.name, {}), h)
        skips.append(h)
    h = block("middle_block0", h)
    h = block("middle_block1", h)
    for layer in decoder(config):
        if layer.kind == "block":
            h, concat = engine.concat(h, skips.pop())
            h = block(layer.name, h)
            saved[layer.name]["concat"] = concat
        else:
            h, saved[layer.name] = blocks.upsample(engine, p[layer.name], h)
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
    dembs, dskips = [], []

    def block_backward(name: str, dh: Any) -> Any:
        s, g[name] = saved[name], {}
        if "attention" in s:
            dh, g[name]["attention"] = blocks.attention_backward(engine, dh, s["attention"])
        dh, demb, g[name]["residual"] = blocks.residual_backward(engine, dh, s["residual"])
        dembs.append(demb)
        if "concat" in s:
            dh, dskip = engine.concat_backward(dh, s["concat"])
            dskips.append(dskip)
        return dh

    dh, g["conv_out"] = engine.conv2d_backward(dy, saved["conv_out"])
    dh, g["norm_out"] = engine.group_norm_silu_backward(dh, saved["norm_out"])
    for layer in reversed(decoder(config)):
        if layer.kind == "block":
            dh = block_backward(layer.name, dh)
        else:
            dh, g[layer.name] = blocks.upsample_backward(engine, dh, saved[layer.name])
    dh = block_backward("middle_block1", dh)
    dh = block_backward("middle_block0", dh)
    for layer in reversed(encoder(config)):
        dh = engine.accumulate(dh, dskips.pop())
        if layer.kind == "block":
            dh = block_backward(layer.name, dh)
        else:
            dh, own = blocks.downsample_backward(engine, dh, saved[layer.name])
            g |= {layer.name: own} if own else {}
    dh = engine.accumulate(dh, dskips.pop())
    dx, g["conv_in"] = engine.conv2d_backward(dh, saved["conv_in"], needs_dx="x" in wrt)
    demb = engine.accumulate(*dembs)
    dt, of_conditioning = blocks.conditioning_backward(engine, demb, saved["conditioning"], needs_dt="t" in wrt)
    return {name: d for name, d in (("x", dx), ("t", dt)) if name in wrt}, g | of_conditioning
