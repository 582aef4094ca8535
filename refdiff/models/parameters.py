"""What parameters a model has, before any array exists: a tree of `Spec`, from which they are counted or drawn."""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import numpy as np

from ..random import Sequence, Stream, uniform
from .trees import Tree, leaves, unflatten

__all__ = ["Spec", "conv_layout", "count", "initialise", "linear_layout", "norm_layout"]


class Spec(NamedTuple):
    """A parameter: its shape, and either a constant first value or the variance 1 / fan of a uniform one."""

    shape: tuple[int, ...]
    value: float = 0.0
    fan: float = 0.0  # (fan_in + fan_out) / 2; 0: constant


def linear_layout(c_in: int, c_out: int, zero: bool = False, parts: int = 1) -> Tree:
    """weight (in, out), bias (out,); `parts` equal products side by side, each drawn as if alone; zero: all zeros."""
    return {"weight": Spec((c_in, c_out), fan=0 if zero else (c_in + c_out / parts) / 2), "bias": Spec((c_out,))}


def conv_layout(k: int, c_in: int, c_out: int, zero: bool = False) -> Tree:
    """weight (k, k, in, out), bias (out,)."""
    return {"weight": Spec((k, k, c_in, c_out), fan=0 if zero else k * k * (c_in + c_out) / 2), "bias": Spec((c_out,))}


def norm_layout(channels: int) -> Tree:
    """weight 1, bias 0, (C,) each."""
    return {"weight": Spec((channels,), value=1.0), "bias": Spec((channels,))}


def count(layout: Tree) -> int:
    """The number of parameters."""
    return sum(prod(spec.shape) for _, spec in leaves(layout))


def initialise(layout: Tree, seed: int, dtype: Any = np.float32) -> Tree:
    """First values: uniform with mean 0 and variance 1 / fan, fan = (fan_in + fan_out) / 2 [Glorot] eq. 16, or constant.

    The numbers of parameter i depend on (seed, i) alone.
    """
    flat = {}
    for i, (path, spec) in enumerate(leaves(layout)):
        if spec.fan:
            u = uniform(Sequence(seed, Stream.INIT, i), np.arange(spec.shape[0]), spec.shape[1:])
            value = ((2 * u - 1) * (3 / spec.fan) ** 0.5).astype(dtype)
        else:
            value = np.full(spec.shape, spec.value, dtype)
        flat["/".join(path)] = value
    return unflatten(flat)
