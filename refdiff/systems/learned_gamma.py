"""A learned noise schedule, gamma(t) = gamma_0 + (gamma_1 - gamma_0) f(t) [VDM] eq. 59, of two networks:

ends     a table of one row (b, w): gamma_0 = b, gamma_1 = b + log(1 + e^w), so that it rises
gamma    f, which rises from 0 to 1, as of `models.monotone`

forward and backward in operations of the engine, and as a `ContinuousSchedule` once it is trained."""

from __future__ import annotations

from functools import lru_cache
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from .. import models
from ..errors import setting
from ..models import Batch, TableConfig, Tree, trees
from ..objectives import Objective
from ..process import ContinuousSchedule, between_ends
from ..random import Key
from .compositions import constant, zeros
from .system import Asked

__all__ = ["LARGEST", "Levels", "OfLevels", "check_schedule", "draw_times", "levels", "levels_backward", "schedule_of"]


LARGEST = 100.0  # of |gamma|: float32 has no e^-gamma beyond


class OfLevels(Objective):
    """One of data that have `bins` levels from -1 to 1."""

    bins: int

    def check_samples(self, x: np.ndarray) -> None:
        """ValueError unless each value is one of the levels."""
        off = np.abs((place := (x.astype(np.float64) + 1) * (0.5 * (self.bins - 1))) - np.rint(place))
        if wrong := int(np.count_nonzero((off > 0.01) | (np.abs(x) > 1))):
            raise ValueError(
                f"data.source: expected values on {self.bins} levels from -1 to 1, got {wrong} of {x.size} that are not; "
                f"give {setting('objective.bins', 'N')}, the levels that the data have"
            )


class Levels(NamedTuple):
    """gamma at t = 0, at t = 1 and at the t of each sample, and its slope there: gamma'(t), or T expm1(gamma_t - gamma_s) of
    T steps.   (N,) each; also their gradients"""

    first: Any
    last: Any
    here: Any
    slope: Any


def draw_times(engine: ModuleType, n: int, key: Key, T: int) -> Batch:
    """Antithetic t, of T steps i / T, and then s = (i - 1) / T beside it; and the only row of the table, once a sample.

    -> {"t": (N,), "index": (N,)}, and "s" (N,) where T > 0"""
    index = zeros(engine, n, key)
    if not T:
        return {"index": index, "t": engine.antithetic(key("t"), n, key.total)}
    s, t = engine.columns(_half_times(T), engine.antithetic_steps(key("t"), n, key.total, T))
    one = constant(engine, 1.0, engine.uniform(key("one"), n), key)
    return {"index": index, "t": engine.affine(t, one, t, one), "s": engine.affine(s, one, s, one)}


def levels(engine: ModuleType, networks: dict[str, Any], batch: Batch, T: int) -> tuple[Levels, Any]:
    """The levels of a batch of `draw_times`, and what the backward needs."""
    n = batch["t"].shape[0]
    ends, of_ends = models.forward(engine, networks["ends"], batch)
    (b, w), of_split = engine.split(ends, 2)
    (first, of_column), (w, _) = engine.reshape(b, (n,)), engine.reshape(w, (n,))
    span, of_span = engine.softplus(w)
    inside, of_inside = models.forward(engine, networks["gamma"], batch)
    rise, of_rise = engine.multiply(span, inside["f"])
    saved = {"ends": (of_ends, of_split, of_column, of_span), "gamma": of_inside, "rise": of_rise}
    if not T:
        slope, saved["slope"] = engine.multiply(span, inside["slope"])
    else:
        before, saved["before"] = models.forward(engine, networks["gamma"], {"t": batch["s"]})
        step, saved["step"] = engine.multiply(span, engine.add(inside["f"], engine.scale(before["f"], -1.0)[0])[0])
        slope, saved["expm1"] = engine.expm1(step)
        slope, saved["steps"] = engine.scale(slope, T)
    return Levels(first, engine.add(first, span)[0], engine.add(first, rise)[0], slope), saved


def levels_backward(
    engine: ModuleType, networks: dict[str, Any], d: Levels, weight: Any, saved: dict[str, Any]
) -> dict[str, Tree]:
    """The gradients of the networks ends and gamma, each sample's part of the latter's times its weight (N,)."""

    def of_gamma(df: Any, dslope: Any, of_inside: Any) -> Tree:
        dy = {"f": engine.multiply(df, weight)[0], "slope": engine.multiply(dslope, weight)[0]}
        return models.backward(engine, networks["gamma"], dy, of_inside)[1]

    dspan, df = engine.multiply_backward(d.here, saved["rise"])
    if "slope" in saved:
        dspan_slope, dslope = engine.multiply_backward(d.slope, saved["slope"])
        g_gamma = of_gamma(df, dslope, saved["gamma"])
    else:
        dstep = engine.expm1_backward(engine.scale_backward(d.slope, saved["steps"]), saved["expm1"])
        dspan_slope, dgap = engine.multiply_backward(dstep, saved["step"])
        none, _ = engine.scale(dgap, 0.0)  # no part of it asks for the slope of f
        now = of_gamma(engine.accumulate(df, dgap), none, saved["gamma"])
        g_gamma = trees.add(engine, now, of_gamma(engine.scale(dgap, -1.0)[0], none, saved["before"]))
    of_ends, of_split, of_column, of_span = saved["ends"]
    db = engine.accumulate(d.here, d.first, d.last)
    dw = engine.softplus_backward(engine.accumulate(dspan, dspan_slope, d.last), of_span)
    dends = engine.split_backward(tuple(engine.reshape_backward(a, of_column) for a in (db, dw)), of_split)
    return {"ends": models.backward(engine, networks["ends"], dends, of_ends)[1], "gamma": g_gamma}


@lru_cache(maxsize=8)
def _half_times(T: int) -> np.ndarray:
    """Half of s and of t of each step, [(i - 1) / T, i / T] / 2: a number is made of it as a sum of two.   (T + 1, 2)"""
    i = np.arange(T + 1)[:, None]
    table = np.maximum(np.concatenate([i - 1, i], axis=1), 0) / (2 * T)
    table.flags.writeable = False
    return table


def check_schedule(networks: dict[str, Any]) -> None:
    """ValueError unless networks.ends and networks.gamma are a table of two numbers and a monotone network."""
    ends, gamma = networks["ends"], networks["gamma"]
    if not isinstance(ends, TableConfig) or (ends.rows, ends.width) != (1, 2):
        raise ValueError(
            f"networks.ends: expected a table of one row of two numbers, got {ends}; give "
            f"{setting('networks.ends.kind', 'table')}, {setting('networks.ends.width', 2)}"
        )
    if getattr(gamma, "says", ()) != ("f", "slope"):
        raise ValueError(
            f"networks.gamma: expected a monotone network, got {type(gamma).__name__}; give "
            f"{setting('networks.gamma.kind', 'monotone')}"
        )
    b, w = np.broadcast_to(ends.first, 2).tolist()
    _ends(b, w, "give others as networks.ends.first")


def _ends(b: float, w: float, advice: str) -> tuple[float, float]:
    """gamma_0 and gamma_1. ValueError unless they rise, in float32 too, and neither is so large that sigmoids vanish."""
    with np.errstate(invalid="ignore"):
        last = b + float(np.logaddexp(0, w))
    if not (b >= -LARGEST and last <= LARGEST and np.float32(b) < np.float32(last)):
        raise ValueError(
            f"networks.ends: expected a schedule that rises, {-LARGEST:g} <= gamma_0 < gamma_1 <= {LARGEST:g}, got {b:g} "
            f"and {last:g}; {advice}"
        )
    return b, last


def schedule_of(networks: dict[str, Asked]) -> ContinuousSchedule:
    """What was learned. ValueError, which says where, if it does not rise, to the last digit of the networks' precision."""
    b, w = np.asarray(networks["ends"]({"index": np.zeros(1, np.int64)}), np.float64)[0].tolist()
    first, last = _ends(b, w, "train with a lower networks.ends.learning_rate")

    def inside(t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        said = networks["gamma"]({"t": np.ravel(t)})
        return said["f"].reshape(np.shape(t)), said["slope"].reshape(np.shape(t))

    try:
        return between_ends(first, last, inside)
    except ValueError as error:
        got = str(error).partition(", got ")[2].partition(";")[0]
        raise ValueError(
            f"networks.gamma: expected a function that rises from t = 0 to 1, got {got}; train with a lower "
            "networks.gamma.learning_rate"
        ) from None
