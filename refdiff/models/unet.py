"""The U-Net of [DDPM] appendix B: an encoder, a middle and a decoder that sees every state of the encoder again; with the
options of [IDDPM], [ADM] section 3 and [SDE].

`encoder` and `decoder` list the layers of a configuration; layout, forward and backward each walk those lists, so what
the network is stands in one place. Backward walks them the other way round.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

from ..errors import one_of
from ..random import Key
from . import blocks
from . import encoder as shared
from .encoder import Layer, encoder
from .encoder_config import EncoderConfig, check_sides
from .network import Batch, Input, Network, Saved
from .parameters import conv_layout, norm_layout
from .shapes import check_integers, freeze_lists
from .trees import Tree

__all__ = ["RESCALES", "UNetConfig", "backward", "decoder", "encoder", "forward", "inputs", "layout"]

RESCALES = ("none", "residual", "skips")


@dataclass(frozen=True)
class UNetConfig(EncoderConfig):
    """What `EncoderConfig` says, and beside it:

    classes: how many labels there are, 0 for none; null_label: whether one more row of the table stands for no label, which
    guidance without a classifier asks for [CFG]; [ADM]'s networks have none. outputs: how many arrays of the images' shape
    it says, side by side: 2 for a prediction and v, of which a learned variance is made.
    rescale: "residual", the sum of a residual or attention block's two paths times 1/sqrt 2 [SDE]; "skips", the encoder's
    states times 1/sqrt 2 [Imagen]; or "none". embedding_silu: "sum", silu(time + label), or "time", silu(time) + label.
    low_res: the side, or height and width, of a small image (entry `low_res`) which is interpolated and lies beside x, as in
    the upsamplers of [ADM]; 0 for none. fourier: exponents n of the features sin and cos of 2^n pi x that are put beside x,
    which bring its last bits into the open [VDM] appendix C. ValueError when something does not fit.
    """

    classes: int = 0
    outputs: int = 1
    rescale: str = "none"
    embedding_silu: str = "sum"
    null_label: bool = True
    low_res: int | tuple[int, int] = 0
    fourier: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.classes, int) or self.classes < 0:
            raise ValueError(f"classes: expected how many labels there are, 0 for none, got {self.classes}")
        check_integers(self, "outputs")
        super().__post_init__()
        freeze_lists(self, "low_res", "fourier")
        if not all(type(n) is int for n in self.fourier) or len(set(self.fourier)) < len(self.fourier):
            raise ValueError(f"fourier: expected exponents, integers and each once, got {list(self.fourier)}")
        one_of("rescale", self.rescale, RESCALES)
        one_of("embedding_silu", self.embedding_silu, blocks.EMBEDDING_SILUS)
        check_sides("low_res", self.low_res)
        if not isinstance(self.low_res, tuple):
            check_integers(self, "low_res", least=0)
        if self.low_res and any(low >= side for low, side in zip(self.low_sides, self.sides, strict=True)):
            raise ValueError(f"low_res: expected less than size = {self.size}, or 0 for none, got {self.low_res}")

    @property
    def low_sides(self) -> tuple[int, int]:
        """Height and width of the small image, 0 and 0 where there is none."""
        return self.low_res if isinstance(self.low_res, tuple) else (self.low_res, self.low_res)

    @property
    def channels_in(self) -> int:
        """The channels that the first convolution sees: x, its Fourier features, the small image."""
        return self.channels * (1 + 2 * len(self.fourier) + bool(self.low_res))

    @property
    def branch_factor(self) -> float:
        """What the sum of a block's two paths is multiplied by."""
        return 2**-0.5 if self.rescale == "residual" else 1.0


def decoder(config: UNetConfig) -> list[Layer]:
    """The layers on the way up. The input of each block is joined with the latest of these skips that is not yet used."""
    skips = [config.stem_width, *(layer.c_out for layer in encoder(config))]
    layers, c = [], skips[-1]
    size = min(config.sides) // 2 ** (len(config.widths) - 1)
    for level, (c_out, depth) in reversed(list(enumerate(zip(config.widths, config.depths, strict=True)))):
        for i in range(depth + 1):
            layers.append(Layer(f"up{level}_block{i}", "block", c + skips.pop(), c_out, size in config.attention))
            c = c_out
        if level:
            layers.append(Layer(f"up{level}_double", "up", c, c))
            size *= 2
    return layers


def inputs(config: UNetConfig) -> dict[str, Input]:
    """x (height, width, channels), t, the label of a network with classes, and the small image of one that enlarges."""
    low_res = {"low_res": Input((*config.low_sides, config.channels))} if config.low_res else {}
    return {"x": Input(config.shape), **blocks.conditioning_inputs(config.classes), **low_res}


def layout(config: UNetConfig) -> Tree:
    """The parameters of the network, as a tree of `Parameter`."""
    p = blocks.conditioning_layout(config.width, 4 * config.width, config.classes, config.null_label)
    p |= shared.layout(config, config.channels_in)
    p |= {layer.name: own for layer in decoder(config) if (own := shared.layer_layout(config, layer))}
    out = config.widths[0]
    p["norm_out"] = norm_layout(out)
    p["conv_out"] = conv_layout(3, out, config.outputs * config.channels, zero=True)
    return p


def forward(engine: ModuleType, net: Network, inputs: Batch, key: Key | None = None) -> tuple[Any, Saved]:
    """The network's prediction.   x (N, height, width, channels), t (N,) -> (N, height, width, outputs channels), saved.

    key: switches dropout on; the mask of a block is named after it. None: no dropout, as in sampling.
    """
    config, p = net
    saved: Saved = {}
    emb, saved["conditioning"] = blocks.conditioning(engine, p, inputs, config.time, config.embedding_silu)
    x = inputs["x"]
    if config.fourier:
        x, saved["fourier"] = engine.fourier_features(x, config.fourier)
    if config.low_res:
        low, saved["resize"] = engine.resize_bilinear(inputs["low_res"], config.sides)
        x, saved["concat_low_res"] = engine.concat(x, low)
    h, skips = shared.forward(engine, net, x, emb, saved, key)
    for layer in decoder(config):
        own: Saved = {}
        if layer.kind == "block":
            skip = skips.pop()
            if config.rescale == "skips":
                skip, own["scale_skip"] = engine.scale(skip, 2**-0.5)
            h, own["concat"] = engine.concat(h, skip)
        h, of_layer = shared.apply(engine, net, layer, h, emb, key)
        saved[layer.name] = of_layer | own
    groups = blocks.groups_of(h.shape[-1], config.groups)
    h, saved["norm_out"] = engine.group_norm_silu(h, **p["norm_out"], groups=groups, epsilon=config.epsilon)
    y, saved["conv_out"] = engine.conv2d(h, **p["conv_out"])
    return y, saved


def backward(
    engine: ModuleType, net: Network, dy: Any, saved: Saved, wrt: tuple[str, ...] = ()
) -> tuple[dict[str, Any], Tree]:
    """x (N, height, width, channels), low_res (N, ...) and t (N,) where wrt names them, and the gradients, a tree with the
    keys of the parameters."""
    config = net.config
    g: Tree = {}
    dembs: list[Any] = []
    dskips: list[Any] = []
    dh, g["conv_out"] = engine.conv2d_backward(dy, saved["conv_out"])
    dh, g["norm_out"] = engine.group_norm_silu_backward(dh, saved["norm_out"])
    for layer in reversed(decoder(config)):
        own = saved[layer.name]
        dh, of_layer = shared.apply_backward(engine, layer, dh, own, dembs)
        g |= {layer.name: of_layer} if of_layer else {}
        if layer.kind == "block":
            dh, dskip = engine.concat_backward(dh, own["concat"])
            if "scale_skip" in own:
                dskip = engine.scale_backward(dskip, own["scale_skip"])
            dskips.append(dskip)
    dinputs: dict[str, Any] = {}
    needs_dx = "x" in wrt or "low_res" in wrt
    dinputs["x"], of_encoder = shared.backward(engine, config, dh, dskips, saved, dembs, needs_dx)
    if config.low_res:
        of_concat, of_resize = saved["concat_low_res"], saved["resize"]
        if needs_dx:
            dinputs["x"], dlow = engine.concat_backward(dinputs["x"], of_concat)
        if "low_res" in wrt:
            dinputs["low_res"] = engine.resize_bilinear_backward(dlow, of_resize)
    if config.fourier and "x" in wrt:
        dinputs["x"] = engine.fourier_features_backward(dinputs["x"], saved["fourier"])
    demb = engine.accumulate(*dembs)
    dinputs["t"], of_conditioning = blocks.conditioning_backward(
        engine, demb, saved["conditioning"], needs_dt="t" in wrt
    )
    return {name: d for name, d in dinputs.items() if name in wrt}, g | of_encoder | of_conditioning
