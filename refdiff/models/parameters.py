"""What parameters a model has, before any array exists: a tree of `Parameter`, from which they are counted or drawn."""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import numpy as np

from ..random import Sequence, stream, uniform
from .trees import Tree, flatten, leaves, unflatten

__all__ = ["Parameter", "conv_layout", "count", "dtypes", "initialise", "linear_layout", "norm_layout"]


class Parameter(NamedTuple):
    """A parameter: its shape, and its first value: a number, an array of the shape, or a uniform one of variance 1 / fan.

    keep_float32: float32 in a network of bfloat16 too, as vectors are: numbers that are not factors of large products, and
    whose digits count, such as the ends of a noise level.
    """

    shape: tuple[int, ...]
    first: Any = 0.0
    fan: float = 0.0  # (fan_in + fan_out) / 2; 0: not random
    keep_float32: bool = False


def linear_layout(c_in: int, c_out: int, zero: bool = False, parts: int = 1) -> Tree:
    """weight (in, out), bias (out,); `parts` equal products side by side, each drawn as if alone; zero: all zeros."""
    return {
        "weight": Parameter((c_in, c_out), fan=0 if zero else (c_in + c_out / parts) / 2),
        "bias": Parameter((c_out,)),
    }


def conv_layout(k: int, c_in: int, c_out: int, zero: bool = False) -> Tree:
    """weight (k, k, in, out), bias (out,)."""
    return {
        "weight": Parameter((k, k, c_in, c_out), fan=0 if zero else k * k * (c_in + c_out) / 2),
        "bias": Parameter((c_out,)),
    }


def norm_layout(channels: int) -> Tree:
    """weight 1, bias 0, (C,) each."""
    return {"weight": Parameter((channels,), first=1.0), "bias": Parameter((channels,))}


def count(layout: Tree) -> int:
    """The number of parameters."""
    return sum(prod(parameter.shape) for _, parameter in leaves(layout))


def dtypes(layout: Tree, dtype: str) -> dict[str, str]:
    """What each parameter of a network of this type is computed with, by its path: float32 for vectors and for what is kept
    so, else dtype."""
    return {
        path: "float32" if parameter.keep_float32 or len(parameter.shape) < 2 else dtype
        for path, parameter in flatten(layout).items()
    }


def initialise(layout: Tree, seed: int, network: str = "denoiser", dtype: Any = np.float32) -> Tree:
    """First values: uniform with mean 0 and variance 1 / fan, fan = (fan_in + fan_out) / 2 [Glorot] eq. 16, or given.

    The numbers of a parameter depend on (seed, "network/path") alone, whatever else the network has.
    """

    def first(path: str, parameter: Parameter) -> np.ndarray:
        if not parameter.fan:
            return np.array(np.broadcast_to(np.asarray(parameter.first, dtype), parameter.shape))
        sequence = Sequence(seed, stream(f"{network}/{path}"))
        u = uniform(sequence, np.arange(parameter.shape[0]), parameter.shape[1:])
        return ((2 * u - 1) * (3 / parameter.fan) ** 0.5).astype(dtype)

    return unflatten({path: first(path, parameter) for path, parameter in flatten(layout).items()})
