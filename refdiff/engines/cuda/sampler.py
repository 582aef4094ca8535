"""Sampling on the device, two launches a step beside the network's: kernels/sampler.cu.

    state = sampler_state(tables(schedule, settings, prediction), sample_ids, shape, seed, dtype)
    for _ in range(steps):
        y = network(state.input, state.t)
        sampler_step(state, y)          # state.x, state.input and state.t are now those of the next step
    x0 = state.x

The state is written in place and the step's number is the device's, so the loop's body can be captured once and replayed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ...random import Key
from .random_numbers import advance, normal, sequence_struct
from .runtime.context import THREADS, Array, blocks, current
from .structs import struct
from .tensor_ops import cast

__all__ = ["METHODS", "SamplerState", "SamplerTables", "sampler_state", "sampler_step"]

Arguments = struct("sampler.cu", "SamplerStep")
ROW = np.dtype(struct("sampler.cu", "Row"))
METHODS = ("ancestral", "ddim", "dpmpp_2m", "euler", "euler_ancestral")  # those with one prediction a step


class SamplerTables(NamedTuple):
    """coefficients (S, 8) float32: rows (cx, cy, a, b, c, s, 0, 0), as in ROW; timesteps (S,) int32: the t that
    each row leaves, from the last down; clip_x0: whether x0_hat is held within [-1, 1]."""

    coefficients: np.ndarray
    timesteps: np.ndarray
    clip_x0: bool


class SamplerState(NamedTuple):
    """x (N, ...) float32; input: x in the network's dtype, x itself in float32; t (N,) int32: what the network is told;
    step () int32: steps done; sample_ids (N,) int32; before: x0_hat of the last step, or None."""

    x: Array
    input: Array
    t: Array
    step: Array
    sample_ids: Array
    before: Array | None
    coefficients: Array
    timesteps: Array
    clip_x0: bool
    key: Key


def sampler_state(
    given: SamplerTables,
    sample_ids: Any,
    shape: tuple[int, ...],
    seed: int = 0,
    dtype: Any = np.float32,
    path: str = "sample",
) -> SamplerState:
    """The state at T: noise that depends on (seed, path, sample id) alone.   sample_ids (N,); shape: of one sample; path:
    what the names of its random sequences stand under."""
    context, key = current(), Key(seed).under(path)
    ids = context.array(sample_ids, "int32")
    assert given.coefficients.shape[1:] == (ROW.itemsize // 4,), f"coefficients: {given.coefficients.shape}"
    x = normal(key("start"), ids, shape)
    t = context.array(np.full(len(ids), given.timesteps[0]), "int32")
    return SamplerState(
        x, cast(x, dtype), t, context.array(0, "int32"), ids,
        context.empty(x.shape) if given.coefficients.view(ROW)["c"].any() else None,
        context.array(given.coefficients), context.array(given.timesteps, "int32"), given.clip_x0, key,
    )  # fmt: skip


def sampler_step(state: SamplerState, y: Array) -> None:
    """x, t and what else changes become those of the next step, in place.   y (N, ...): the network's of (input, t)."""
    x, context = state.x, state.x.context
    assert (y.shape, y.dtype, y.dense) == (x.shape, state.input.dtype, True), f"sampler_step: {y} for {state.input}"
    n, count = x.shape[0], x.size // x.shape[0]
    context.launch(
        "sampler.cu", "sampler_step", blocks(n * blocks(count, 4), THREADS), THREADS,
        Arguments(
            x=x, input=None if state.input is x else state.input, y=y, before=state.before, table=state.coefficients,
            timesteps=state.timesteps, counter=state.step, sample_ids=state.sample_ids, t=state.t,
            rows=len(state.timesteps), samples=n, count=count, clip_x0=state.clip_x0,
            noise=sequence_struct(state.key("step")),
        ),
        dtype=y.dtype,
    )  # fmt: skip
    advance(state.step)
