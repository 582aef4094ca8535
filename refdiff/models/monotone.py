"""A function of t that rises from 0 at t = 0 to 1 at t = 1 whatever its parameters are, with its derivative: the inside of a
learned noise schedule [VDM] appendix H, whose ends are somebody else's [VDM] eq. 59."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from ..random import Key
from .network import Batch, Input, Network, Saved
from .parameters import Parameter
from .shapes import check_integers
from .trees import Tree

__all__ = ["MonotoneConfig", "backward", "forward", "inputs", "layout"]


@dataclass(frozen=True)
class MonotoneConfig:
    """hidden: sigmoid units; 0 for a straight line, which has nothing to learn."""

    hidden: int = 1024

    says = ("f", "slope")  # names of what it answers, several arrays (N,)

    def __post_init__(self) -> None:
        check_integers(self, "hidden", least=0)


def inputs(config: MonotoneConfig) -> dict[str, Input]:
    """t, from 0 to 1."""
    return {"t": Input(())}


def layout(config: MonotoneConfig) -> Tree:
    """slope (1,), rate, shift, weight (hidden,). At first nearly a straight line, with a hundredth of sigmoids whose middles
    lie evenly over [0, 1], of rates from 4 to 64."""
    K = config.hidden
    rate = 4.0 * 16.0 ** (np.arange(K) * 0.6180339887 % 1)  # spread over the middles, without drawing
    middle = (np.arange(K) + 0.5) / max(K, 1)
    return {
        "slope": Parameter((1,), first=1.0),
        "rate": Parameter((K,), first=rate),
        "shift": Parameter((K,), first=-rate * middle),
        "weight": Parameter((K,), first=0.01),
    }


def forward(engine: ModuleType, net: Network, inputs: Batch, key: Key | None = None) -> tuple[Any, Saved]:
    """f(t) and f'(t), as `monotone` of the engines.   t (N,) -> {"f": (N,), "slope": (N,)}, saved"""
    (f, slope), saved = engine.monotone(inputs["t"], **net.p)
    return {"f": f, "slope": slope}, {"monotone": saved}


def backward(
    engine: ModuleType, net: Network, dy: Any, saved: Saved, wrt: tuple[str, ...] = ()
) -> tuple[dict[str, Any], Tree]:
    """dy: {"f": (N,), "slope": (N,)}; t has no gradient, and of a straight line the slope has none but rounding."""
    g = engine.monotone_backward((dy["f"], dy["slope"]), saved["monotone"])
    return {}, g if net.config.hidden else {name: engine.scale(d, 0.0)[0] for name, d in g.items()}
