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

from ..random import Sequence
from . import blocks
from .blocks import Saved
from .parameters import conv_layout, norm_layout
from .trees import Tree

__all__ = ["UNetConfig", "backward", "forward", "layout"]


@dataclass(frozen=True)
class UNetConfig:
    """size: height and width of the images; channels: theirs; width: the feature channels of the first level.

    multipliers: the width of each level as a multiple of `width`; each level but the last halves the size.
    blocks: residual blocks a level (the decoder has one more). attention: sizes at which attention follows each block; left
    out, the largest of at most 16 below the images' own, if there is one (the middle has attention always).
    heads: of the attention. groups: most groups of a group norm. dropout: rate in [0, 1). downsampling: "strided" or
    "pooled". time: "ddpm" or "adm" sinusoids. ValueError when something does not fit.
    """

    size: int = 32
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

    def __post_init__(self) -> None:
        for name in ("size", "channels", "width", "blocks", "heads", "groups"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise ValueError(f"{name}: expected an integer of at least 1, got {getattr(self, name)}")
        if not self.multipliers or not all(isinstance(m, int) and m >= 1 for m in self.multipliers):
            raise ValueError(f"multipliers: expected at least one integer of at least 1, got {self.multipliers}")
        if self.width < 4:
            raise ValueError(f"width: expected at least 4, the least that carries a time embedding, got {self.width}")
        halvings = len(self.multipliers) - 1
        if self.size % 2**halvings:
            padded = -(-self.size // 2**halvings) * 2**halvings
            possible = (self.size & -self.size).bit_length()
            raise ValueError(
                f"size: expected a multiple of {2**halvings}, since {len(self.multipliers)} multipliers halve it "
                f"{halvings} times, got {self.size}; pad the images to {padded}x{padded}, or give at most {possible}: "
                f"multipliers={str(list(self.multipliers[:possible])).replace(' ', '')}"
            )
        sizes = level_sizes(self.size, self.multipliers)
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
        if self.downsampling not in ("strided", "pooled"):
            raise ValueError(f'downsampling: expected "strided" or "pooled", got {self.downsampling!r}')
        if self.time not in ("ddpm", "adm"):
            raise ValueError(f'time: expected "ddpm" or "adm", got {self.time!r}')

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return self.size, self.size, self.channels


def level_sizes(size: int, multipliers: Collection[int]) -> list[int]:
    """Height and width of each level, from the images' own down."""
    return [size // 2**level for level in range(len(multipliers))]


class Layer(NamedTuple):
    """name: its place in the parameters; kind: "block", "down" or "up"; channels in and out; attention after a block."""

    name: str
    kind: str
    c_in: int
    c_out: int
    attention: bool = False


def encoder(config: UNetConfig) -> list[Layer]:
    """The layers on the way down. The output of each, and of the first convolution, is kept for the decoder."""
    layers, c, size = [], config.width, config.size
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
    """The layers on the way up. The input of each block is joined with the latest state kept and not yet used."""
    kept = [config.width, *(layer.c_out for layer in encoder(config))]
    layers, c = [], kept[-1]
    size = config.size // 2 ** (len(config.multipliers) - 1)
    for level, multiplier in reversed(list(enumerate(config.multipliers))):
        c_out = config.width * multiplier
        for i in range(config.blocks + 1):
            layers.append(Layer(f"up{level}_block{i}", "block", c + kept.pop(), c_out, size in config.attention))
            c = c_out
        if level:
            layers.append(Layer(f"up{level}_double", "up", c, c))
            size *= 2
    return layers


def layout(config: UNetConfig) -> Tree:
    """The parameters of the network, as a tree of `Spec`."""
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

    p: Tree = {"time": blocks.time_layout(config.width, embedded)}
    p["conv_in"] = conv_layout(3, config.channels, config.width)
    p |= {layer.name: own for layer in encoder(config) if (own := layer_layout(layer))}  # a mean has no parameters
    p["middle_block0"] = layer_layout(Layer("middle_block0", "block", deep, deep, attention=True))
    p["middle_block1"] = layer_layout(Layer("middle_block1", "block", deep, deep))
    p |= {layer.name: layer_layout(layer) for layer in decoder(config)}
    out = config.width * config.multipliers[0]
    p["norm_out"] = norm_layout(out)
    p["conv_out"] = conv_layout(3, out, config.channels, zero=True)
    return p


def forward(
    engine: ModuleType, config: UNetConfig, p: Tree, x: Any, t: Any, key: Sequence | None = None
) -> tuple[Any, Saved]:
    """The network's prediction.   x (N, size, size, channels), t (N,) -> (N, size, size, channels), saved.

    key: switches dropout on; layer i draws from stream key.stream + i. None: no dropout, as in sampling.
    """
    saved: Saved = {}
    streams = iter(range(key.stream, 1 << 32)) if key else None

    def block(name: str, h: Any) -> Any:
        s = saved[name] = {}
        own = key._replace(stream=next(streams)) if key and streams else None
        h, s["residual"] = blocks.residual(engine, p[name]["residual"], h, emb, config.groups, config.dropout, own)
        if "attention" in p[name]:
            h, s["attention"] = blocks.attention(engine, p[name]["attention"], h, config.groups, config.heads)
        return h

    emb, saved["time"] = blocks.time(engine, p["time"], t, config.time)
    h, saved["conv_in"] = engine.conv2d(x, **p["conv_in"])
    kept = [h]
    for layer in encoder(config):
        if layer.kind == "block":
            h = block(layer.name, h)
        else:
            h, saved[layer.name] = blocks.downsample(engine, p.get(layer.name, {}), h)
        kept.append(h)
    h = block("middle_block0", h)
    h = block("middle_block1", h)
    for layer in decoder(config):
        if layer.kind == "block":
            h, concat = engine.concat(h, kept.pop())
            h = block(layer.name, h)
            saved[layer.name]["concat"] = concat
        else:
            h, saved[layer.name] = blocks.upsample(engine, p[layer.name], h)
    groups = blocks.groups_of(h.shape[-1], config.groups)
    h, saved["norm_out"] = engine.group_norm_silu(h, **p["norm_out"], groups=groups)
    y, saved["conv_out"] = engine.conv2d(h, **p["conv_out"])
    return y, saved


def backward(engine: ModuleType, config: UNetConfig, dy: Any, saved: Saved, needs_dx: bool = True) -> tuple[Any, Tree]:
    """dx (N, size, size, channels), None unless needs_dx, and the gradients, a tree with the keys of the parameters."""
    g: Tree = {}
    dembs, dkept = [], []

    def block_backward(name: str, dh: Any) -> Any:
        s, g[name] = saved[name], {}
        if "attention" in s:
            dh, g[name]["attention"] = blocks.attention_backward(engine, dh, s["attention"])
        dh, demb, g[name]["residual"] = blocks.residual_backward(engine, dh, s["residual"])
        dembs.append(demb)
        if "concat" in s:
            dh, dskip = engine.concat_backward(dh, s["concat"])
            dkept.append(dskip)
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
        dh = engine.accumulate(dh, dkept.pop())
        if layer.kind == "block":
            dh = block_backward(layer.name, dh)
        else:
            dh, own = blocks.downsample_backward(engine, dh, saved[layer.name])
            g |= {layer.name: own} if own else {}
    dh = engine.accumulate(dh, dkept.pop())
    dx, g["conv_in"] = engine.conv2d_backward(dh, saved["conv_in"], needs_dx)
    g["time"] = blocks.time_backward(engine, engine.accumulate(*dembs), saved["time"])
    return dx, g
