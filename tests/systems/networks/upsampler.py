"""A denoiser of small images with labels; as a later stage of a cascade it is told a noised low_res image and its level.
[CDM] [Imagen]"""

import sys
from dataclasses import dataclass

from refdiff.models import Input, blocks, conv_layout, linear_layout, register


@dataclass(frozen=True)
class Upsampler:
    """size: of the square images; width: of the convolutions; classes: of the labels; low: side of low_res, half of size; 0:
    a first stage, which is told none."""

    size: int = 4
    width: int = 8
    classes: int = 3
    low: int = 0

    def __post_init__(self):
        if self.low and 2 * self.low != self.size:
            raise ValueError(f"low: expected half of size = {self.size}, or 0, got {self.low}")

    @property
    def shape(self):
        return (self.size, self.size, 1)


def inputs(config):
    given = {"x": Input(config.shape), **blocks.conditioning_inputs(config.classes)}
    if config.low:
        given |= {"low_res": Input((config.low, config.low, 1)), "level": Input((), "int")}
    return given


def layout(config):
    w, low = config.width, bool(config.low)
    p = blocks.conditioning_layout(w, w, config.classes)
    if low:
        p["level"] = blocks.conditioning_layout(w, w)
    p |= {"emb": linear_layout(w, w), "conv1": conv_layout(3, 1 + low, w), "conv2": conv_layout(3, w, w)}
    return p | {"conv3": conv_layout(3, w, 1)}


def forward(engine, net, inputs, key=None):
    """x (N, size, size, 1), t, label, level (N,), low_res (N, low, low, 1) -> (N, size, size, 1)"""
    p, saved, h = net.p, {}, inputs["x"]
    emb, saved["conditioning"] = blocks.conditioning(engine, p, inputs, "ddpm")
    if net.config.low:
        e, saved["level"] = blocks.conditioning(engine, p["level"], {"t": inputs["level"]}, "ddpm")
        emb, saved["add_level"] = engine.add(emb, e)
        low, saved["up"] = engine.upsample_nearest(inputs["low_res"])
        h, saved["concat"] = engine.concat(h, low)
    h, saved["conv1"] = engine.conv2d(h, **p["conv1"])
    e, saved["emb"] = engine.linear(emb, **p["emb"])
    h, saved["add_emb"] = engine.broadcast_add(h, e)
    h, saved["silu1"] = engine.silu(h)
    h, saved["conv2"] = engine.conv2d(h, **p["conv2"])
    h, saved["silu2"] = engine.silu(h)
    y, saved["conv3"] = engine.conv2d(h, **p["conv3"])
    return y, saved


def backward(engine, net, dy, saved, wrt=()):
    g, dinputs = {}, {}
    dh, g["conv3"] = engine.conv2d_backward(dy, saved["conv3"])
    dh = engine.silu_backward(dh, saved["silu2"])
    dh, g["conv2"] = engine.conv2d_backward(dh, saved["conv2"])
    dh = engine.silu_backward(dh, saved["silu1"])
    dh, de = engine.broadcast_add_backward(dh, saved["add_emb"])
    demb, g["emb"] = engine.linear_backward(de, saved["emb"])
    told = "x" in wrt or "low_res" in wrt
    dh, g["conv1"] = engine.conv2d_backward(dh, saved["conv1"], needs_dx=told)
    if net.config.low:
        if told:
            dh, dlow = engine.concat_backward(dh, saved["concat"])
            dinputs["low_res"] = engine.upsample_nearest_backward(dlow, saved["up"])
        demb, de = engine.add_backward(demb, saved["add_level"])
        dinputs["level"], g["level"] = blocks.conditioning_backward(engine, de, saved["level"], "level" in wrt)
    dinputs["t"], own = blocks.conditioning_backward(engine, demb, saved["conditioning"], "t" in wrt)
    dinputs["x"] = dh
    return {name: dinputs[name] for name in wrt}, g | own


register("upsampler", Upsampler, sys.modules[__name__])
