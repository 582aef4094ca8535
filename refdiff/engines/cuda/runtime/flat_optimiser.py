"""The parameters of a network in flat buffers, with their gradients brought together and AdamW over all of them at once."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np

from ..optimiser import COPY_CHUNK, OptimiserSettings, adamw, copy_segments, copy_table, flat_state
from .context import Array, Context, use

__all__ = ["FlatOptimiser", "OptimiserSettings"]

Places = Mapping[str, tuple[int, tuple[int, ...]]]


class FlatOptimiser:
    """p, average, m and v of one network, written in place, and its gradient: each (size,) float32.

    parameters: by name, views of p for the network to compute with; where dtype is bfloat16, those of two and more
    dimensions are views of a copy in it. All of it lies at the same addresses from step to step.
    """

    def __init__(
        self,
        context: Context,
        places: Places,
        size: int,
        values: Mapping[str, np.ndarray] | None,
        dtype: str,
        settings: OptimiserSettings,
        scalars: Array,
        bad: Array,
    ) -> None:
        """places: name -> (offset in elements, shape), each parameter once, in buffers of `size` elements.

        values: what p, average, m and v begin with, (size,) each; None: whatever is there, to learn what memory it takes.
        scalars (8,) float32, bad () int32: where a step leaves what it worked out, see `optimiser.FlatState`.
        """
        self.context, self.places, self.settings = context, places, settings
        p, average, m, v = (
            context.empty((size,)) if values is None else context.array(values[name])
            for name in ("p", "average", "m", "v")
        )
        with use(context):
            state = flat_state(p, average, m, v, bfloat16=dtype == "bfloat16")
        self.state = state._replace(scalars=scalars, bad=bad)
        self.gradient = context.empty((size,)) if values is None else context.array(np.zeros(size, np.float32))
        self.parameters = {name: self._parameter(name, dtype) for name in places}
        segments = 1 + sum(-(-prod(shape) // COPY_CHUNK) for _, shape in places.values())
        self._segments = context.empty((segments, 3), np.int64)
        self._table: np.ndarray | None = None

    def collect(self, gradients: Mapping[str, Array], loss: Array, loss_place: Array) -> None:
        """The gradients, each where its operation left it, into the flat buffer, and the loss to its place, in one launch.

        The addresses are those of every step, so the table of them is written in the first one and never again.
        """
        assert gradients.keys() == self.places.keys(), "collect: expected one gradient a parameter"
        base = self.gradient.pointer
        copies = [(g, base + 4 * self.places[name][0]) for name, g in gradients.items()] + [(loss, loss_place.pointer)]
        table = np.concatenate([copy_table(x, to) for x, to in copies])
        if self._table is None:
            self._table = table
            self.context.device.write(self._segments.pointer, table)
        assert np.array_equal(table, self._table), "a step found other addresses than the one before"
        copy_segments(self._segments)

    def update(self, number: Array, loss: Array) -> None:
        """Step `number` (int32 on the device, from 1) on what was collected, in place. Where the loss or the gradient's norm
        is not finite nothing is written, now or later, and `state.bad` keeps the number."""
        adamw(self.state, self.gradient, number, self.settings, loss)

    def _parameter(self, name: str, dtype: str) -> Array:
        (offset, shape), state = self.places[name], self.state
        if len(shape) > 1:
            flat = state.p if state.weights is None else state.weights
            return Array(flat.buffer, shape, dtype, offset)
        return Array(state.p.buffer, shape, "float32", offset)
