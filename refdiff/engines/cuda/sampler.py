"""Sampling on the device, two launches a step beside the network's: kernels/sampler.cu.

    state = sampler_state(tables(schedule, settings, prediction), numbers, shape, seed, dtype)
    for _ in range(steps):
        y = network(state.input, state.t)
        sampler_step(state, y)          # state.x, state.input and state.t are now those of the next step
    x0 = state.x

The state is written in place and the step's number is the device's, so the loop's body can be captured once and replayed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ...process import (
    SPACINGS,
    Schedule,
    ancestral,
    convert,
    ddim,
    dpmpp_2m,
    eps_from_x0,
    euler,
    euler_ancestral,
    posterior_variance,
    step_variance,
)  # fmt: skip
from ...random import Key, Stream
from .array import Array
from .context import THREADS, blocks, current
from .noise import advance, key_arguments, normal
from .structure import cast

__all__ = ["METHODS", "SamplerState", "SamplerTables", "sampler_state", "sampler_step", "tables"]

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


def tables(schedule: Schedule, settings: Any, prediction: str = "eps") -> SamplerTables:
    """What each step multiplies by, from the samplers of `process` themselves. ValueError for a method not of METHODS.

    settings: method, steps, spacing, eta, variance and clip, as `training.SampleConfig`. The sampler runs in float64 on
    linear forms instead of images: arrays of four numbers, the parts of x, x0_hat, the last x0_hat and z. After each step
    what it holds is named x again, so each row starts from the unit forms.
    """
    if settings.method not in METHODS:
        raise ValueError(f"sample.method: expected one of {', '.join(METHODS)}, came {settings.method!r}")
    of_x, of_x0, of_before, of_z = np.eye(4)
    given = [of_before.copy()]

    def predict(x: np.ndarray, t: int) -> tuple[np.ndarray, np.ndarray]:
        given[-1][:] = of_before  # what a multistep sampler kept of the step before
        given.append(of_x0.copy())
        return given[-1], eps_from_x0(schedule, x, t, of_x0)

    timesteps = SPACINGS[settings.spacing](schedule, settings.steps).tolist()
    walk = _walk(schedule, settings, predict, of_x.copy(), timesteps, lambda t: of_z)
    rows = []
    for t, (_, now) in zip(timesteps[::-1], walk, strict=True):
        conversion = convert(schedule, np.array([1.0, 0.0]), t, np.array([0.0, 1.0]), prediction, "x0")
        rows.append([*conversion, *now, 0, 0])
        now[:] = of_x
    return SamplerTables(np.array(rows, np.float32), np.array(timesteps[::-1], np.int32), bool(settings.clip))


def sampler_state(
    given: SamplerTables, numbers: Any, shape: tuple[int, ...], seed: int = 0, dtype: Any = np.float32
) -> SamplerState:
    """The state at T: noise that depends on (seed, the number) alone.   numbers (N,): the samples', shape: of one."""
    context = current()
    index = context.array(numbers, "int32")
    x = normal(Key(seed, Stream.START), index, shape)
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
    low, high, stream, *_ = key_arguments(Key(state.seed, Stream.STEP))
    context.launch(
        "sampler.cu", "sampler_step", blocks(n * blocks(count, 4), THREADS), THREADS, x,
        None if state.input is x else state.input, y, state.before, state.coefficients, state.timesteps,
        len(state.timesteps), state.step, state.t, state.numbers, n, count, state.clip, low, high, stream, dtype=y.dtype,
    )  # fmt: skip
    advance(state.step)


def _walk(
    schedule: Schedule, s: Any, predict: Any, x: Any, timesteps: list[int], noise: Callable[[int], Any]
) -> Iterator[tuple[int, Any]]:
    """The sampler that the settings choose, as `training.trajectory` calls it."""
    if s.method in ("euler", "dpmpp_2m"):
        return {"euler": euler, "dpmpp_2m": dpmpp_2m}[s.method](schedule, predict, x, timesteps)
    if s.method == "ddim":
        return ddim(schedule, predict, x, timesteps, noise, s.eta)
    if s.method == "euler_ancestral":
        return euler_ancestral(schedule, predict, x, timesteps, noise)
    variance = posterior_variance if s.variance == "posterior" else step_variance
    return ancestral(schedule, predict, x, timesteps, noise, variance)
