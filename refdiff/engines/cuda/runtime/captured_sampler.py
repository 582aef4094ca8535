"""Sampling on the device: one step, the network and what follows it, captured as a graph and replayed for the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from ..sampler import METHODS, SamplerState, SamplerTables, sampler_state, sampler_step
from ..transfer import host
from .arena import Arena
from .capture import Captured, memory_needed
from .context import Array, Context, use
from .device import Device
from .memory import require_memory

__all__ = ["METHODS", "CapturedSampler", "SamplerTables"]


class CapturedSampler:
    """A sampler with one prediction a step (METHODS), whose coefficients are `tables`.

    predict(x_t, t, conditions) -> the network's prediction: arrays of the device, x_t of dtype, (N, *shape); t (N,) int32;
    conditions by name, (N, ...) each. path: what the names of the random sequences stand under.
    """

    def __init__(
        self,
        device: Device,
        tables: SamplerTables,
        shape: tuple[int, ...],
        dtype: Any,
        predict: Callable[[Array, Array, dict[str, Array]], Array],
        path: str = "sample",
    ) -> None:
        self.device, self.tables, self.shape, self.dtype, self.predict = device, tables, shape, dtype, predict
        self.path = path

    def __call__(
        self,
        sample_ids: np.ndarray,
        seed: int = 0,
        every: bool = True,
        conditions: Mapping[str, np.ndarray] | None = None,
    ) -> Iterator[np.ndarray | None]:
        """x_T, then x after each step.   (len(sample_ids), *shape) float32, on the host.

        conditions: (len(sample_ids), ...) by name, float32 or int32.

        every: copy each state to the host; else all but the first and the last are None, and the device need not wait.
        DeviceError if it has too little memory for so many samples.
        """

        given = dict(conditions or {})

        def step(arena: Arena) -> None:
            dry = Context(arena.device, arena)
            self.body(self.state(dry, sample_ids, 0), on_device(dry, given))

        need = memory_needed(step)
        need = require_memory(self.device, need, f"{len(sample_ids)} samples at once need", "take fewer")
        arena = Arena(self.device, need)
        context = Context(self.device, arena)
        state, inputs = self.state(context, sample_ids, seed), on_device(context, given)
        yield host(state.x)
        captured, last = Captured(context), len(self.tables.timesteps) - 1
        for i in range(last + 1):
            captured.run(lambda: self.body(state, inputs))
            yield host(state.x) if every or i == last else None
        arena.close()

    def state(self, context: Context, sample_ids: np.ndarray, seed: int) -> SamplerState:
        """The state at T."""
        with use(context):
            return sampler_state(self.tables, sample_ids, self.shape, seed, self.dtype, self.path)

    def body(self, state: SamplerState, conditions: dict[str, Array]) -> None:
        """What one step launches."""
        with use(state.x.context):
            sampler_step(state, self.predict(state.input, state.t, conditions))


def on_device(context: Context, arrays: Mapping[str, np.ndarray]) -> dict[str, Array]:
    return {name: context.array(a, a.dtype) for name, a in arrays.items()}
