"""The inside of a learned noise schedule: a monotone function that is 0 at 0 and 1 at 1, and its slope.
[VDM] appendix H"""

import sys
from dataclasses import dataclass

import numpy as np

from refdiff.models import Input, Parameter, register
from systems import operations


@dataclass(frozen=True)
class Monotone:
    """width: of the sum of sigmoids."""

    width: int = 8


def inputs(config):
    return {"t": Input()}


def layout(config):
    w = (config.width,)
    return {"a": Parameter((1,)), "b": Parameter(w, fan=0.3), "u": Parameter(w, fan=0.3), "w": Parameter(w, first=-1.0)}


def forward(engine, net, inputs, key=None):
    """f = (m(t) - m(0)) / (m(1) - m(0)), m(t) = s(a) t + sum s(w) sigmoid(s(u) t + b), s = softplus.

    t (N,) -> {"f": (N,), "slope": (N,)}
    """
    t = np.concatenate([inputs["t"], np.array([0, 1], inputs["t"].dtype)])[:, None]
    (a, of_a), (u, of_u), (w, of_w) = (operations.softplus(net.p[name]) for name in "auw")
    z, _ = operations.sigmoid(t * u + net.p["b"])
    z1 = z * (1 - z)
    z2 = z1 * (1 - 2 * z)
    m, slope = (a * t)[:, 0] + z @ w, a + z1 @ (w * u)
    span = m[-1] - m[-2]
    f, slope = (m[:-2] - m[-2]) / span, slope[:-2] / span
    # what m and its slope change by with a, u, w and b
    by = {
        "a": (t, np.ones_like(t)),
        "b": (w * z1, w * u * z2),
        "u": (w * z1 * t, w * (z1 + z2 * u * t)),
        "w": (z, z1 * u),
    }
    return {"f": f, "slope": slope}, (by, f, slope, span, {"a": of_a, "u": of_u, "w": of_w})


def backward(engine, net, dy, saved, wrt=()):
    """dy: {"f", "slope"}. With s = m(1) - m(0): df = (dm - dm(0) - f ds) / s,  dslope = (dm' - slope ds) / s."""
    by, f, slope, span, of = saved
    df, dslope = dy["f"][:, None] / span, dy["slope"][:, None] / span
    g = {}
    for name, (m, m1) in by.items():
        ds = m[-1] - m[-2]
        d = (df * (m[:-2] - m[-2] - f[:, None] * ds) + dslope * (m1[:-2] - slope[:, None] * ds)).sum(0)
        g[name] = operations.softplus_backward(d, of[name]) if name in of else d
    return {}, g


register("monotone", Monotone, sys.modules[__name__])
