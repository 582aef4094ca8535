"""A step that takes a batch and gives a small record, captured as a graph: the host need not wait for it.

The batch goes from pinned memory of the host into one buffer an entry; the record comes back into pinned memory while the
next step is queued. So the host is at most one step ahead of what it has seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ..random_numbers import advance
from .capture import Captured
from .context import Array, Context, dtype_name
from .device import Device, Graph

__all__ = ["CapturedStep"]


class _Slot(NamedTuple):
    """Pinned memory of one step under way: its batch, and its record. Two take turns."""

    batch: dict[str, np.ndarray]
    record: np.ndarray


class CapturedStep:
    """A step as `Captured` runs it, with its number, its batch and its record on the device.

    number: int32 of shape (), 1 more in each step, before anything else. inputs: one array an entry of the batch.
    field(name): a part of the record, for the step's body to write; `number` is one too.
    """

    def __init__(
        self,
        context: Context,
        entries: Mapping[str, tuple[tuple[int, ...], Any]],
        fields: Sequence[tuple[Any, ...]],
        done: int = 0,
    ) -> None:
        """entries: shape (of the whole batch) and dtype by name. fields: of the record, as np.dtype takes them, each of four
        bytes an element: float32 or int32. done: steps before the first one here."""
        self.context, device = context, context.device
        self.kind = np.dtype([*fields, ("number", "i4")])
        record = np.zeros(1, self.kind)
        record["number"] = done
        self.record = context.array(record.view(np.int32), "int32")
        self.number = self.field("number")
        self.inputs = {name: context.empty(shape, dtype) for name, (shape, dtype) in entries.items()}
        self._captured = Captured(context)
        self._slots = [self._slot(device, entries), self._slot(device, entries)]
        self._queued: tuple[_Slot, Callable[[], None]] | None = None

    def field(self, name: str) -> Array:
        """A part of the record on the device. KeyError for a name that is none."""
        assert self.kind.fields is not None
        part, offset = self.kind.fields[name][:2]
        assert part.base.itemsize == 4, f"field: expected four bytes an element, got {name} of {part.base}"
        return Array(self.record.buffer, part.shape, dtype_name(part.base), offset // 4)

    @property
    def graph(self) -> Graph | None:
        """From the second step on."""
        return self._captured.graph

    def launch(self, body: Callable[[], object]) -> None:
        """Queue a step on the batch that is there; nobody reads its record."""

        def numbered() -> None:
            advance(self.number)
            body()

        self._captured.run(numbered)

    def step(self, body: Callable[[], object], batch: Mapping[str, np.ndarray]) -> np.ndarray | None:
        """Queue one step, whose work body() does. The batch is copied: it is the caller's again.

        -> the record of the step before, () of `kind`; None if there was none or it has been seen.
        """
        slot = self._slots[0]  # whose step is over, since the one after it was queued
        assert batch.keys() == slot.batch.keys(), f"step: expected entries {[*slot.batch]}, got {[*batch]}"
        for name, pinned in slot.batch.items():
            given = batch[name]
            assert given.shape == pinned.shape, f"step: {name}: expected {pinned.shape}, got {given.shape}"
            pinned[...] = given
            self.context.device.send(self.inputs[name].pointer, pinned)
        self.launch(body)
        arrived = self.context.device.fetch(self.record.pointer, slot.record)
        before, self._queued = self._queued, (slot, arrived)
        self._slots.reverse()
        return self._wait(before)

    def settle(self) -> np.ndarray | None:
        """The record of the step under way, when it is over; None if there is none."""
        queued, self._queued = self._queued, None
        return self._wait(queued)

    @staticmethod
    def _wait(queued: tuple[_Slot, Callable[[], None]] | None) -> np.ndarray | None:
        if queued is None:
            return None
        slot, arrived = queued
        arrived()
        return slot.record[0].copy()

    def _slot(self, device: Device, entries: Mapping[str, tuple[tuple[int, ...], Any]]) -> _Slot:
        def pinned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
            return device.pinned(prod(shape) * np.dtype(dtype).itemsize).view(dtype).reshape(shape)

        return _Slot({name: pinned(*entry) for name, entry in entries.items()}, pinned((1,), self.kind))
