"""A codebook that no gradient moves: each code is the mean of what was nearest to it, by the rule "average".
[VQVAE] appendix A.1"""

import sys
from dataclasses import dataclass

import numpy as np

from refdiff.models import Input, Parameter, register


@dataclass(frozen=True)
class Codebook:
    """codes: how many; size: of a code."""

    codes: int = 8
    size: int = 3


def inputs(config):
    return {"z": Input((-1, config.size))}


def layout(config):
    return {
        "count": Parameter((config.codes,), first=1.0),
        "sum": Parameter((config.codes, config.size), fan=1.0),
    }


def forward(engine, net, inputs, key=None):
    """z (N, L, size) -> {"index": (N, L) of the nearest code, "code": (N, L, size)}: a dictionary"""
    z, code = engine.stop(inputs["z"]), net.p["sum"] / net.p["count"][:, None]
    index = ((z[..., None, :] - code) ** 2).sum(-1).argmin(-1)
    return {"index": index, "code": code[index]}, (z, index)


def backward(engine, net, dy, saved, wrt=()):
    """Of no loss: how many were nearest to each code, and their sum, which the rule averages."""
    z, index = saved
    one = np.eye(net.config.codes, dtype=z.dtype)[index.reshape(-1)]
    return {}, {"count": one.sum(0), "sum": one.T @ z.reshape(-1, net.config.size)}


register("codebook", Codebook, sys.modules[__name__])
