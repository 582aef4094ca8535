"""Linear layers with SiLU between them: encoders, decoders, discriminators."""

import sys
from dataclasses import dataclass

from refdiff.models import Input, linear_layout, register


@dataclass(frozen=True)
class Perceptron:
    """sizes: of the layers, the input's first; entry: what it reads."""

    sizes: tuple[int, ...] = (2, 16, 2)
    entry: str = "x"


def inputs(config):
    return {config.entry: Input((config.sizes[0],))}


def layout(config):
    return {f"layer{i}": linear_layout(*config.sizes[i : i + 2]) for i in range(len(config.sizes) - 1)}


def forward(engine, net, inputs, key=None):
    """(N, sizes[0]) -> (N, sizes[-1])"""
    h, saved = inputs[net.config.entry], {}
    for i, name in enumerate(net.p):
        if i:
            h, saved[f"silu{i}"] = engine.silu(h)
        h, saved[name] = engine.linear(h, **net.p[name])
    return h, saved


def backward(engine, net, dy, saved, wrt=()):
    g, entry = {}, net.config.entry
    for i in reversed(range(len(net.config.sizes) - 1)):
        dy, g[f"layer{i}"] = engine.linear_backward(dy, saved[f"layer{i}"], needs_dx=i > 0 or entry in wrt)
        if i:
            dy = engine.silu_backward(dy, saved[f"silu{i}"])
    return {entry: dy} if entry in wrt else {}, g


register("perceptron", Perceptron, sys.modules[__name__])
