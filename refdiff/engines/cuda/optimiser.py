"""Adam, clipping, the rate's schedule and the moving average over all parameters at once: kernels/optimiser.cu.

The only place of the engine that writes in place: the same addresses hold p, m, v and the average from step to step, which
is what lets a captured step be replayed. What it computes is `training.optimiser`, one call there a line of the kernel.
"""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import numpy as np

from .runtime.context import THREADS, Array, blocks
from .structure import cast, zeros
from .transfer import host

__all__ = ["PIECE", "FlatState", "OptimiserSettings", "adamw", "flat_state", "gather", "piece_rows", "scalars"]

PIECE = 4096  # numbers that a block of `gather` copies

_PARTIALS = 1024  # at most so many blocks sum squares


class OptimiserSettings(NamedTuple):
    """As `training.TrainConfig` names them; betas and epsilon as `training.optimiser.adamw`."""

    steps: int
    learning_rate: float
    warmup: int = 0
    decay: str = "cosine"
    clip: float = 0.0
    weight_decay: float = 0.0
    average: float = 0.995
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8


class FlatState(NamedTuple):
    """p, m, v, average (n,) float32: all parameters one after another. weights: p in bfloat16, or None.

    scalars (8,) float32: what a step worked out, see `scalars`; bad () int32: the first step whose loss or gradient was not
    finite, 0 for none. Since then nothing was written.
    """

    p: Array
    m: Array
    v: Array
    average: Array
    weights: Array | None
    scalars: Array
    bad: Array


def flat_state(
    p: Array, average: Array, m: Array | None = None, v: Array | None = None, bfloat16: bool = False
) -> FlatState:
    """The state before a step; p, average, m and v are taken over, not copied. m, v: zeros at first."""
    context, n = p.context, p.size
    for name, x in (("p", p), ("average", average), ("m", m), ("v", v)):
        assert x is None or (x.shape == (n,) and x.dtype == "float32"), f"flat_state: {name} is {x}"
    weights = cast(p, "bfloat16") if bfloat16 else None
    bad = context.array(np.zeros((), np.int32), "int32")
    return FlatState(p, m or zeros((n,)), v or zeros((n,)), average, weights, zeros((8,)), bad)


def adamw(state: FlatState, g: Array, step: Array, settings: OptimiserSettings, loss: Array | None = None) -> None:
    """One step on the gradient g (n,) float32, in place, by three launches.

    step: int32 of shape (), the number of this step, from 1, read on the device. loss: float32 of one element; if it or the
    norm of g is not finite, nothing is written now or later, and `state.bad` keeps the step's number.
    """
    context, n, s = state.p.context, state.p.size, settings
    assert (g.shape, g.dtype) == ((n,), "float32"), f"adamw: expected g ({n},) float32, got {g}"
    assert (step.shape, step.dtype) == ((), "int32"), f"adamw: expected an int32 scalar as step, got {step}"
    assert s.decay in ("cosine", "constant"), f"adamw: {s.decay}"
    partials = min(_PARTIALS, blocks(n, 4 * THREADS * 4))
    partial = context.empty((partials,))
    double = ctypes.c_double
    context.launch("optimiser.cu", "sum_squares", partials, THREADS, g, partial, n)
    context.launch(
        "optimiser.cu", "step_scalars", 1, THREADS, partial, partials, loss, step, state.scalars, state.bad,
        double(s.learning_rate), s.warmup, s.steps, s.decay == "constant", double(s.clip), double(s.beta1),
        double(s.beta2), double(s.average),
    )  # fmt: skip
    context.launch(
        "optimiser.cu", "adamw", blocks(n, 4 * THREADS), THREADS, state.p, g, state.m, state.v, state.average,
        state.weights, state.scalars, s.beta1, 1 - s.beta1, s.beta2, 1 - s.beta2, s.epsilon, float(s.weight_decay), n,
    )  # fmt: skip


def scalars(state: FlatState) -> dict[str, float]:
    """What the last step worked out, on the host: its learning rate, the clipping's scale, the gradient's norm before it,
    the average's d. Waits for the device."""
    x = host(state.scalars)
    return {"learning_rate": float(x[0]), "scale": float(x[1]), "gradient_norm": float(x[6]), "d": float(x[4])}


def piece_rows(x: Array, to: int) -> np.ndarray:
    """What `gather` needs to copy x, float32 and dense, to the address `to`.   -> (pieces, 3) int64: from, to, how many."""
    assert x.dtype == "float32" and x.dense, f"gather: expected dense float32, got {x!r}"
    first = np.arange(0, max(x.size, 1), PIECE)
    return np.stack([x.pointer + 4 * first, to + 4 * first, np.minimum(x.size - first, PIECE)], axis=1)


def gather(pieces: Array) -> None:
    """Copy every piece of the table, in one launch. pieces (n, 3) int64, rows of `piece_rows`."""
    pieces.context.launch("optimiser.cu", "gather", len(pieces), THREADS, pieces)
