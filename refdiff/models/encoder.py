"""The half on the way down, which the U-Net and the classifier share: first convolution, encoder and middle.

`encoder` and `middle` list the layers of a configuration; layout, forward and backward each walk those lists, so what the
network is stands in one place. Backward walks them the other way round.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, NamedTuple

from ..random import Key
from . import blocks
from .encoder_config import EncoderConfig
from .network import Network, Saved
from .parameters import conv_layout
from .trees import Tree

__all__ = [
    "Layer", "apply", "apply_backward", "backward", "encoder", "forward", "layer_layout", "layout", "middle",
]  # fmt: skip

_RESIDUAL = ("residual", "residual_projected")  # the ways of resampling that are a residual block's


class Layer(NamedTuple):
    """name: its place in the parameters; kind: "block", "down" or "up"; channels in and out; attention after a block."""

    name: str
    kind: str
    c_in: int
    c_out: int
    attention: bool = False


def _is_residual(config: EncoderConfig, layer: Layer) -> bool:
    """Whether a layer is a residual block; the others resample between blocks."""
    return layer.kind == "block" or config.resampling in _RESIDUAL


def encoder(config: EncoderConfig) -> list[Layer]:
    """The layers on the way down. The output of each, and of the first convolution, goes to the decoder too."""
    layers, c, size = [], config.stem_width, min(config.sides)
    for level, (c_out, depth) in enumerate(zip(config.widths, config.depths, strict=True)):
        for i in range(depth):
            layers.append(Layer(f"down{level}_block{i}", "block", c, c_out, size in config.attention))
            c = c_out
        if level < len(config.widths) - 1:
            layers.append(Layer(f"down{level}_halve", "down", c, c))
            size //= 2
    return layers


def middle(config: EncoderConfig) -> list[Layer]:
    """Two blocks at the smallest size, attention between them."""
    c = config.widths[-1]
    return [Layer("middle_block0", "block", c, c, attention=True), Layer("middle_block1", "block", c, c)]


def layer_layout(config: EncoderConfig, layer: Layer) -> Tree:
    """The parameters of one layer, of which a mean has none."""
    if not _is_residual(config, layer):
        if layer.kind == "down":
            return blocks.downsample_layout(layer.c_in, config.resampling)
        return blocks.upsample_layout(layer.c_in, config.resampling)
    projected = layer.kind != "block" and config.resampling == "residual_projected"
    p = {
        "residual": blocks.residual_layout(
            layer.c_in, layer.c_out, 4 * config.width, config.conditioning, projected
        )
    }  # fmt: skip
    if layer.attention:
        p["attention"] = blocks.attention_layout(layer.c_out)
    return p


def layout(config: EncoderConfig, c_in: int) -> Tree:
    """The parameters of the first convolution, which takes c_in channels, of the encoder and of the middle."""
    p: Tree = {"conv_in": conv_layout(3, c_in, config.stem_width)}
    return p | {layer.name: own for layer in encoder(config) + middle(config) if (own := layer_layout(config, layer))}


def apply(
    engine: ModuleType, net: Network, layer: Layer, h: Any, emb: Any, key: Key | None = None
) -> tuple[Any, Saved]:
    """One layer.   h (N, H, W, c_in), emb (N, E) -> (N, H', W', c_out)

    key: switches dropout on; the mask of a block is named after it.
    """
    config, p = net.config, net.p.get(layer.name, {})
    if not _is_residual(config, layer):
        if layer.kind == "down":
            return blocks.downsample(engine, p, h, config.resampling)
        return blocks.upsample(engine, p, h)
    saved: Saved = {}
    dropout = key(f"{layer.name}/dropout") if key else None
    shared = {"epsilon": config.epsilon, "factor": config.branch_factor}
    h, saved["residual"] = blocks.residual(
        engine, p["residual"], h, emb, config.groups, config.dropout, dropout, conditioning=config.conditioning,
        resample="" if layer.kind == "block" else layer.kind, **shared,
    )  # fmt: skip
    if layer.attention:
        heads = config.heads_of(layer.c_out)
        h, saved["attention"] = blocks.attention(
            engine, p["attention"], h, config.groups, heads, qkv=config.qkv, **shared
        )  # fmt: skip
    return h, saved


def apply_backward(engine: ModuleType, layer: Layer, dh: Any, saved: Saved, dembs: list[Any]) -> tuple[Any, Tree]:
    """-> dh of what went in, and gradients; what goes to emb is appended to dembs."""
    if "residual" not in saved:
        if layer.kind == "down":
            return blocks.downsample_backward(engine, dh, saved)
        return blocks.upsample_backward(engine, dh, saved)
    g: Tree = {}
    if layer.attention:
        dh, g["attention"] = blocks.attention_backward(engine, dh, saved["attention"])
    dh, demb, g["residual"] = blocks.residual_backward(engine, dh, saved["residual"])
    dembs.append(demb)
    return dh, g


def forward(
    engine: ModuleType, net: Network, x: Any, emb: Any, saved: Saved, key: Key | None = None
) -> tuple[Any, list[Any]]:
    """-> the state after the middle, and those after the first convolution and each layer of the encoder. x (N, H, W, C),
    emb (N, E); what is saved goes into `saved`, under the layers' names."""
    h, saved["conv_in"] = engine.conv2d(x, **net.p["conv_in"])
    skips = [h]
    for layer in encoder(net.config):
        h, saved[layer.name] = apply(engine, net, layer, h, emb, key)
        skips.append(h)
    for layer in middle(net.config):
        h, saved[layer.name] = apply(engine, net, layer, h, emb, key)
    return h, skips


def backward(
    engine: ModuleType,
    config: EncoderConfig,
    dh: Any,
    dskips: list[Any],
    saved: Saved,
    dembs: list[Any],
    needs_dx: bool,
) -> tuple[Any, Tree]:
    """-> dx, None unless needs_dx, and gradients. dskips: of the states beside dh, used up; none where nobody else has read
    them. dembs: as for `apply_backward`."""
    g: Tree = {}
    for layer in reversed(middle(config)):
        dh, g[layer.name] = apply_backward(engine, layer, dh, saved[layer.name], dembs)
    for layer in reversed(encoder(config)):
        dh = engine.accumulate(dh, dskips.pop()) if dskips else dh
        dh, own = apply_backward(engine, layer, dh, saved[layer.name], dembs)
        g |= {layer.name: own} if own else {}
    dh = engine.accumulate(dh, dskips.pop()) if dskips else dh
    dx, g["conv_in"] = engine.conv2d_backward(dh, saved["conv_in"], needs_dx=needs_dx)
    return dx, g
