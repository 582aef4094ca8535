"""A multilayer perceptron for points: residual layers that hear the time, enough for two-dimensional data."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

from ..random import Sequence
from . import blocks
from .blocks import Saved
from .parameters import linear_layout
from .trees import Tree

__all__ = ["MLPConfig", "backward", "forward", "layout"]


@dataclass(frozen=True)
class MLPConfig:
    """size: coordinates of a point; width: hidden units; layers: residual layers; time: "ddpm" or "adm" sinusoids."""

    size: int = 2
    width: int = 128
    layers: int = 3
    time: str = "ddpm"

    def __post_init__(self) -> None:
        for name, least in (("size", 1), ("width", 4), ("layers", 1)):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < least:
                raise ValueError(f"{name}: expected an integer of at least {least}, got {getattr(self, name)}")
        if self.time not in ("ddpm", "adm"):
            raise ValueError(f'time: expected "ddpm" or "adm", got {self.time!r}')

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return (self.size,)


def layout(config: MLPConfig) -> Tree:
    """The parameters of the network, as a tree of `Spec`."""
    w = config.width
    p: Tree = {"time": blocks.time_layout(w, w), "linear_in": linear_layout(config.size, w)}
    for i in range(config.layers):
        p[f"layer{i}"] = {
            "time": linear_layout(w, w),
            "linear1": linear_layout(w, w),
            "linear2": linear_layout(w, w, zero=True),
        }
    p["linear_out"] = linear_layout(w, config.size, zero=True)
    return p


def forward(
    engine: ModuleType, config: MLPConfig, p: Tree, x: Any, t: Any, key: Sequence | None = None
) -> tuple[Any, Saved]:
    """The network's prediction: h + W2 silu(W1 silu(h) + time), layer after layer.   x (N, size), t (N,) -> (N, size)."""
    saved: Saved = {}
    emb, saved["time"] = blocks.time(engine, p["time"], t, config.time)
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
    return y, saved


def backward(engine: ModuleType, config: MLPConfig, dy: Any, saved: Saved, needs_dx: bool = True) -> tuple[Any, Tree]:
    """dx (N, size), None unless needs_dx, and the gradients, a tree with the keys of the parameters."""
    g: Tree = {}
    dembs = []
    dh, g["linear_out"] = engine.linear_backward(dy, saved["linear_out"])
    dh = engine.silu_backward(dh, saved["silu_out"])
    for i in reversed(range(config.layers)):
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
    dx, g["linear_in"] = engine.linear_backward(dh, saved["linear_in"], needs_dx)
    g["time"] = blocks.time_backward(engine, engine.accumulate(*dembs), saved["time"])
    return dx, g
