"""The parameters of a network in flat buffers, with their gradients brought together and AdamW over all of them at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np

from ..optimiser import COPY_CHUNK, SCALARS, OptimiserSettings, apply, copy_segments, copy_table, flat_state, prepare
from .context import Array, Context, use

__all__ = ["SCALARS", "FlatOptimiser", "OptimiserSettings"]

Places = Mapping[str, tuple[int, tuple[int, ...]]]


class FlatOptimiser:
    """p, ema, m and v of one network, written in place, and its gradient: each (size,) float32.

    parameters: by name, views of p for the network to compute with; those in bfloat16 are views of a copy in it, which
    follows p. All of it lies at the same addresses from step to step.
    """

    def __init__(
        self,
        context: Context,
        places: Places,
        size: int,
        values: Mapping[str, np.ndarray] | None,
        dtypes: Mapping[str, str],
        settings: OptimiserSettings,
        scalars: Array,
        bad: Array,
        extras: Sequence[int] = (),
    ) -> None:
        """places: name -> (offset in elements, shape), each parameter once, in buffers of `size` elements.

        dtypes: float32 or bfloat16 for each name. values: what p, ema, m and v begin with, (size,) each; None: whatever is
        there, to learn what memory it takes. scalars (8,) float32, bad () int32: where a step leaves what it worked out,
        see `optimiser.FlatState`. extras: the sizes of what `collect` copies beside the gradients.
        """
        assert scalars.pointer % 16 == 0, "scalars: expected an address that kernels read 16 bytes at"
        self.context, self.places, self.settings = context, places, settings
        p, ema, m, v = (
            context.empty((size,)) if values is None else context.array(values[name]) for name in ("p", "ema", "m", "v")
        )
        with use(context):
            state = flat_state(p, ema, m, v, bfloat16="bfloat16" in dtypes.values())
        self.state = state._replace(scalars=scalars, bad=bad)
        self.gradient = context.empty((size,)) if values is None else context.array(np.zeros(size, np.float32))
        self.parameters = {name: self._parameter(name, dtypes[name]) for name in places}
        sizes = [*(prod(shape) for _, shape in places.values()), *extras]
        segments = sum(max(1, -(-size // COPY_CHUNK)) for size in sizes)
        self._segments = context.empty((segments, 3), np.int64)
        self._table: np.ndarray | None = None

    def collect(self, gradients: Mapping[str, Array], extra: Sequence[tuple[Array, Array]] = ()) -> None:
        """The gradients, each where its operation left it, into the flat buffer, and what else is to be copied, (from, to),
        in one launch.

        The addresses are those of every step, so the table of them is written in the first one and never again.
        """
        assert gradients.keys() == self.places.keys(), "collect: expected one gradient a parameter"
        base = self.gradient.pointer
        copies = [(g, base + 4 * self.places[name][0]) for name, g in gradients.items()]
        copies += [(x, to.pointer) for x, to in extra]
        table = np.concatenate([copy_table(x, to) for x, to in copies])
        assert len(table) == len(self._segments), f"collect: expected {len(self._segments)} segments, got {len(table)}"
        if self._table is None:
            self._table = table
            self.context.device.write(self._segments.pointer, table)
        assert np.array_equal(table, self._table), "a step found other addresses than the one before"
        copy_segments(self._segments)

    def prepare(self, number: Array, losses: Array) -> None:
        """The scalars of step `number` (int32 on the device, from 1) for what was collected. Where one of the losses or the
        norm of the gradient is not finite, `state.bad` keeps the number, and nothing is written now or later, by no
        optimiser that shares it: all are prepared before the first one updates."""
        prepare(self.state, self.gradient, number, self.settings, losses)

    def update(self) -> None:
        """The step that was prepared, in place."""
        apply(self.state, self.gradient, self.settings)

    def _parameter(self, name: str, dtype: str) -> Array:
        (offset, shape), state = self.places[name], self.state
        flat = state.p if dtype == "float32" or state.weights is None else state.weights
        return Array(flat.buffer, shape, flat.dtype, offset)
