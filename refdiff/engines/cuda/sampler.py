"""Sampling on the device, two launches a step beside the network's: kernels/sampler.cu.

    state = sampler_state(tables(schedule, settings, prediction), numbers, shape, seed, dtype)
    for _ in range(steps):
        y = network(state.input, state.t)
        sampler_step(state, y)          # state.x, state.input and state.t are now those of the next step
    x0 = state.x

The state is written in place and the step's number is the device's, so the loop's body can be captured once and replayed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ...random import Sequence, Stream
from .noise import advance, key_arguments, normal
from .runtime.context import THREADS, Array, blocks, current
from .structure import cast

__all__ = ["METHODS", "SamplerState", "SamplerTables", "sampler_state", "sampler_step"]

METHODS = ("ancestral", "ddim", "dpmpp_2m", "euler", "euler_ancestral")  # those with one prediction a step


class SamplerTables(NamedTuple):
    """coefficients (S, 8) float32: rows (cx, cy, a, b, c, s, 0, 0) of kernels/sampler.cu; timesteps (S,) int32: the t that
    each row leaves, from the last down; clip: whether x0_hat is held within [-1, 1]."""

    coefficients: np.ndarray
    timesteps: np.ndarray
    clip: bool


class SamplerState(NamedTuple):
    """x (N, ...) float32; input: x in the network's dtype, x itself in float32; t (N,) int32: what the network is told;
    step () int32: steps done; numbers (N,) int32: the samples'; before: x0_hat of the last step, or None."""

    x: Array
    input: Array
    t: Array
    step: Array
    numbers: Array
    before: Array | None
    coefficients: Array
    timesteps: Array
    clip: bool
    seed: int


def sampler_state(
    given: SamplerTables, numbers: Any, shape: tuple[int, ...], seed: int = 0, dtype: Any = np.float32
) -> SamplerState:
    """The state at T: noise that depends on (seed, the number) alone.   numbers (N,): the samples', shape: of one."""
    context = current()
    index = context.array(numbers, "int32")
    x = normal(Sequence(seed, Stream.START), index, shape)
    t = context.array(np.full(len(index), given.timesteps[0]), "int32")
    return SamplerState(
        x, cast(x, dtype), t, context.array(0, "int32"), index,
        context.empty(x.shape) if given.coefficients[:, 4].any() else None,
        context.array(given.coefficients), context.array(given.timesteps, "int32"), given.clip, seed,
    )  # fmt: skip


def sampler_step(state: SamplerState, y: Array) -> None:
    """x, t and what else changes become those of the next step, in place.   y (N, ...): the network's of (input, t)."""
    x, context = state.x, state.x.context
    assert (y.shape, y.dtype, y.dense) == (x.shape, state.input.dtype, True), f"sampler_step: {y} for {state.input}"
    n, count = x.shape[0], x.size // x.shape[0]
    low, high, stream, *_ = key_arguments(Sequence(state.seed, Stream.STEP))
    context.launch(
        "sampler.cu", "sampler_step", blocks(n * blocks(count, 4), THREADS), THREADS, x,
        None if state.input is x else state.input, y, state.before, state.coefficients, state.timesteps,
        len(state.timesteps), state.step, state.t, state.numbers, n, count, state.clip, low, high, stream, dtype=y.dtype,
    )  # fmt: skip
    advance(state.step)
