"""Adam, clipping, the rate's schedule and the moving average over all parameters at once: kernels/optimiser.cu.

The only place of the engine that writes in place: the same addresses hold p, m, v and the average from step to step, which
is what lets a captured step be replayed. What it computes is `training.optimiser`, one call there a line of the kernel.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .runtime.context import THREADS, Array, blocks
from .structs import struct
from .tensor_ops import cast, zeros
from .transfer import host

__all__ = [
    "COPY_CHUNK", "SCALARS", "FlatState", "OptimiserSettings", "adamw", "apply", "copy_segments", "copy_table", "flat_state",
    "prepare", "scalars",
]  # fmt: skip

COPY_CHUNK = 4096  # numbers that a block of `copy_segments` copies

CopySegment = np.dtype(struct("optimiser.cu", "CopySegment"))
StepSettings = struct("optimiser.cu", "StepSettings")
Coefficients = struct("optimiser.cu", "Coefficients")
Parameters = struct("optimiser.cu", "Parameters")
SCALARS = tuple(np.dtype(struct("optimiser.cu", "Scalars")).names or ())  # what each of a step's scalars is

_PARTIALS = 1024  # at most so many blocks sum squares


class OptimiserSettings(NamedTuple):
    """As `training.TrainConfig` names them; betas and epsilon as `training.optimiser.adamw`."""

    steps: int
    learning_rate: float
    warmup: int = 0
    decay: str = "cosine"
    max_grad_norm: float = 0.0
    weight_decay: float = 0.0
    ema_decay: float = 0.995
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8


class FlatState(NamedTuple):
    """p, m, v, ema (n,) float32: all parameters one after another. weights: p in bfloat16, or None.

    scalars (8,) float32: what a step worked out, in the order of SCALARS; bad () int32: the first step whose loss or
    gradient was not finite, 0 for none. Since then nothing was written.
    """

    p: Array
    m: Array
    v: Array
    ema: Array
    weights: Array | None
    scalars: Array
    bad: Array


def flat_state(
    p: Array, ema: Array, m: Array | None = None, v: Array | None = None, bfloat16: bool = False
) -> FlatState:
    """The state before a step; p, ema, m and v are taken over, not copied. m, v: zeros at first."""
    context, n = p.context, p.size
    for name, x in (("p", p), ("ema", ema), ("m", m), ("v", v)):
        assert x is None or (x.shape == (n,) and x.dtype == "float32"), f"flat_state: {name} is {x}"
    weights = cast(p, "bfloat16") if bfloat16 else None
    bad = context.array(np.zeros((), np.int32), "int32")
    return FlatState(p, m or zeros((n,)), v or zeros((n,)), ema, weights, zeros((len(SCALARS),)), bad)


def adamw(state: FlatState, g: Array, step: Array, settings: OptimiserSettings, losses: Array | None = None) -> None:
    """One step on the gradient g (n,) float32, in place: `prepare`, then `apply`."""
    prepare(state, g, step, settings, losses)
    apply(state, g, settings)


def prepare(state: FlatState, g: Array, step: Array, settings: OptimiserSettings, losses: Array | None = None) -> None:
    """The scalars of a step on the gradient g (n,) float32, by two launches.

    step: int32 of shape (), the number of this step, from 1, read on the device. losses: float32; if one of them or the norm
    of g is not finite, nothing is written now or later, and `state.bad` is the step's number. States that share one `bad`
    are all prepared before the first is applied: then a step writes all of them or none.
    """
    context, n, s = state.p.context, state.p.size, settings
    assert (g.shape, g.dtype) == ((n,), "float32"), f"prepare: expected g ({n},) float32, got {g}"
    assert (step.shape, step.dtype) == ((), "int32"), f"prepare: expected an int32 scalar as step, got {step}"
    assert losses is None or (losses.dtype == "float32" and losses.dense), f"prepare: losses {losses}"
    assert s.decay in ("cosine", "constant"), f"prepare: {s.decay}"
    partials = min(_PARTIALS, blocks(n, 4 * THREADS * 4))
    partial = context.empty((partials,))
    context.launch("optimiser.cu", "sum_squares", partials, THREADS, g, partial, n)
    context.launch(
        "optimiser.cu", "step_scalars", 1, THREADS, partial, partials, losses,
        0 if losses is None else losses.size, step, state.scalars, state.bad,
        StepSettings(
            peak=s.learning_rate, max_norm=s.max_grad_norm, beta1=s.beta1, beta2=s.beta2, ema_decay=s.ema_decay,
            warmup=s.warmup, steps=s.steps, constant=s.decay == "constant",
        ),
    )  # fmt: skip


def apply(state: FlatState, g: Array, settings: OptimiserSettings) -> None:
    """The step whose scalars were prepared, in place, by one launch."""
    context, n, s = state.p.context, state.p.size, settings
    context.launch(
        "optimiser.cu", "adamw", blocks(n, 4 * THREADS), THREADS,
        Parameters(p=state.p, g=g, m=state.m, v=state.v, ema=state.ema, weights=state.weights, n=n),
        state.scalars, state.bad,
        Coefficients(
            beta1=s.beta1, rest1=1 - s.beta1, beta2=s.beta2, rest2=1 - s.beta2, epsilon=s.epsilon,
            weight_decay=s.weight_decay,
        ),
    )  # fmt: skip


def scalars(state: FlatState) -> dict[str, float]:
    """What the last step worked out, on the host: its learning rate, the clipping's scale, the gradient's norm before it,
    the average's d. Waits for the device."""
    x = dict(zip(SCALARS, host(state.scalars).tolist(), strict=True))
    return {"learning_rate": x["rate"], "scale": x["scale"], "gradient_norm": x["norm"], "d": x["d"]}


def copy_table(x: Array, to: int) -> np.ndarray:
    """What `copy_segments` needs to copy x, float32 and dense, to the address `to`.   -> (segments, 3) int64, the fields of
    CopySegment in kernels/optimiser.cu: from, to, count."""
    assert x.dtype == "float32" and x.dense, f"copy_table: expected dense float32, got {x!r}"
    first = np.arange(0, max(x.size, 1), COPY_CHUNK)
    table = np.empty(len(first), CopySegment)
    table["from"], table["to"] = x.pointer + 4 * first, to + 4 * first
    table["count"] = np.minimum(x.size - first, COPY_CHUNK)
    return table.view(np.int64).reshape(len(first), -1)


def copy_segments(table: Array) -> None:
    """Copy every segment of the table, in one launch. table (n, 3) int64, rows of `copy_table`."""
    table.context.launch("optimiser.cu", "copy_segments", len(table), THREADS, table)
