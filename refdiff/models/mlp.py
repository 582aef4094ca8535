"""A multilayer perceptron for points: residual layers conditioned on the timestep, enough for two-dimensional data."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from types import ModuleType
from typing import Any

from ..errors import one_of
from ..random import Key
from . import blocks
from .network import Batch, Input, Network, Saved
from .parameters import linear_layout
from .shapes import check_integers, check_shape, freeze_lists
from .trees import Tree

__all__ = ["MLPConfig", "backward", "forward", "inputs", "layout"]


@dataclass(frozen=True)
class MLPConfig:
    """size: coordinates of a point, or a shape, which is flattened; width: hidden units; layers: residual layers; time:
    "ddpm" or "adm" sinusoids; classes: of the labels that it is told, 0 for none; outputs: 2 where it also says v, of which
    a learned variance is made.
    """

    size: int | tuple[int, ...] = 2
    width: int = 128
    layers: int = 3
    time: str = "ddpm"
    classes: int = 0
    outputs: int = 1

    def __post_init__(self) -> None:
        freeze_lists(self, "size")
        if isinstance(self.size, tuple):
            check_shape("size", self.size)
        else:
            check_integers(self, "size")
        for name, least in (("width", 4), ("layers", 1), ("classes", 0), ("outputs", 1)):
            check_integers(self, name, least=least)
        one_of("time", self.time, blocks.TIMES)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return self.size if isinstance(self.size, tuple) else (self.size,)


def inputs(config: MLPConfig) -> dict[str, Input]:
    """x of the shape, t, and the label of a network with classes."""
    return {"x": Input(config.shape), **blocks.conditioning_inputs(config.classes)}


def layout(config: MLPConfig) -> Tree:
    """The parameters of the network, as a tree of `Parameter`."""
    w = config.width
    p = blocks.conditioning_layout(w, w, config.classes)
    p["linear_in"] = linear_layout(prod(config.shape), w)
    for i in range(config.layers):
        p[f"layer{i}"] = {
            "time": linear_layout(w, w),
            "linear1": linear_layout(w, w),
            "linear2": linear_layout(w, w, zero=True),
        }
    p["linear_out"] = linear_layout(w, config.outputs * prod(config.shape), zero=True)
    return p


def forward(engine: ModuleType, net: Network, inputs: Batch, key: Key | None = None) -> tuple[Any, Saved]:
    """h + W2 silu(W1 silu(h) + time), layer after layer.   x (N, *shape), t (N,) -> like x, with
    `outputs` parts along the last axis"""
    config, p = net
    saved: Saved = {}
    emb, saved["conditioning"] = blocks.conditioning(engine, p, inputs, config.time)
    x, saved["flatten"] = engine.reshape(inputs["x"], (inputs["x"].shape[0], prod(config.shape)))
    h, saved["linear_in"] = engine.linear(x, **p["linear_in"])
    for i in range(config.layers):
        q, s = p[f"layer{i}"], saved.setdefault(f"layer{i}", {})
        r, s["silu1"] = engine.silu(h)
        r, s["linear1"] = engine.linear(r, **q["linear1"])
        e, s["time"] = engine.linear(emb, **q["time"])
        r, s["add_time"] = engine.add(r, e)
        r, s["silu2"] = engine.silu(r)
        r, s["linear2"] = engine.linear(r, **q["linear2"])
        h, s["add"] = engine.add(h, r)
    h, saved["silu_out"] = engine.silu(h)
    y, saved["linear_out"] = engine.linear(h, **p["linear_out"])
    *places, last = config.shape
    y, saved["unflatten"] = engine.reshape(y, (y.shape[0], *places, config.outputs * last))
    return y, saved


def backward(
    engine: ModuleType, net: Network, dy: Any, saved: Saved, wrt: tuple[str, ...] = ()
) -> tuple[dict[str, Any], Tree]:
    """{"x": (N, *shape)} and {"t": (N,)} where wrt names them, and the gradients, a tree with the keys of the parameters."""
    g: Tree = {}
    dembs = []
    dy = engine.reshape_backward(dy, saved["unflatten"])
    dh, g["linear_out"] = engine.linear_backward(dy, saved["linear_out"])
    dh = engine.silu_backward(dh, saved["silu_out"])
    for i in reversed(range(net.config.layers)):
        s, q = saved[f"layer{i}"], g.setdefault(f"layer{i}", {})
        dh, dr = engine.add_backward(dh, s["add"])
        dr, q["linear2"] = engine.linear_backward(dr, s["linear2"])
        dr = engine.silu_backward(dr, s["silu2"])
        dr, de = engine.add_backward(dr, s["add_time"])
        demb, q["time"] = engine.linear_backward(de, s["time"])
        dembs.append(demb)
        dr, q["linear1"] = engine.linear_backward(dr, s["linear1"])
        dr = engine.silu_backward(dr, s["silu1"])
        dh = engine.accumulate(dh, dr)
    dx, g["linear_in"] = engine.linear_backward(dh, saved["linear_in"], needs_dx="x" in wrt)
    dx = engine.reshape_backward(dx, saved["flatten"]) if "x" in wrt else None
    demb = engine.accumulate(*dembs)
    dt, of_conditioning = blocks.conditioning_backward(engine, demb, saved["conditioning"], needs_dt="t" in wrt)
    return {name: d for name, d in (("x", dx), ("t", dt)) if name in wrt}, g | of_conditioning
