"""Where arrays live: in one arena, in a fixed order, so that every step finds the same addresses."""

from __future__ import annotations

import sys

from ....errors import option
from ...arena import Places
from .device import Device, DeviceError
from .memory import ALIGNMENT

__all__ = ["Arena"]


class Arena:
    """First fit in blocks of memory reserved from the device, given back to it only at the end.

    used, peak: bytes in arrays now and at most; reserved: bytes taken from the device; extent: where the furthest array
    ended, so the size of one block that would do for the same calls.

    The same sequence of calls gives the same addresses, which is what lets a step be captured once and replayed. An array
    that is freed may be given out again at once: all work is queued in one order, so the next use comes after the last.
    """

    def __init__(self, device: Device, block: int = 64 << 20) -> None:
        """block: bytes reserved at a time, at least."""
        self.device, self.block = device, block
        self.reserved = self.extent = 0
        self._closing = False
        self._places = Places()
        self._bases: dict[int, int] = {}  # first address of a block -> what the device gave

    @property
    def used(self) -> int:
        return self._places.used

    @property
    def peak(self) -> int:
        return self._places.peak

    @property
    def free_places(self) -> tuple[tuple[int, int], ...]:
        """(address, bytes) of what is reserved and free, by address."""
        return self._places.free

    def allocate(self, nbytes: int) -> int:
        """DeviceError if the device has no more."""
        assert not self._closing, "this arena is closed"
        size = -(-max(nbytes, 1) // ALIGNMENT) * ALIGNMENT
        pointer = self._places.take(size)
        if pointer is None:
            self._grow(size)
            pointer = self._places.take(size)
            assert pointer is not None
        self.extent = max(self.extent, pointer + size - min(self._bases))
        return pointer

    def free(self, pointer: int) -> None:
        if not self._bases:
            return  # array and arena were garbage of one cycle, and the arena went first
        self._places.give_back(pointer)
        if self._closing:
            self.close()

    def close(self) -> None:
        """Give everything back to the device, as soon as the last array is freed. Nothing more can be allocated."""
        self._closing = True
        if not self.used:
            self._release()

    def __del__(self) -> None:
        """No array is left that anybody can reach: each keeps its arena."""
        if not sys.is_finalizing():
            self._release()

    def _release(self) -> None:
        for base in self._bases.values():
            self.device.release(base)
        self._places.clear()
        self._bases, self.reserved = {}, 0

    def _grow(self, size: int) -> None:
        size = max(size, self.block) + ALIGNMENT
        free = self.device.free_bytes()
        if size > free:
            raise DeviceError(
                f"not enough memory on {self.device.name}: {self.reserved >> 20} MiB are in use, {size >> 20} MiB more are "
                f"needed, {free >> 20} MiB are free; lower train.batch or take {option('dtype', 'bfloat16')}"
            )
        base = self.device.reserve(size)
        pointer = -(-base // ALIGNMENT) * ALIGNMENT
        self._bases[pointer] = base
        self.reserved += size
        self._places.add_region(pointer, base + size - pointer)
