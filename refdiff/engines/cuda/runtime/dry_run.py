"""A device that runs nothing: to learn what a step would launch and how much memory it would take, before it starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .device import Graph, Kernel

__all__ = ["DryRunDevice"]


class DryRunDevice:
    """Addresses without memory. launches: (kernel, grid, block) of each launch, in order; reserved: bytes that were asked
    for."""

    name, architecture = "a dry run", "none"

    def __init__(self) -> None:
        self.launches: list[tuple[Kernel, tuple[int, ...], tuple[int, ...]]] = []
        self.reserved, self._next = 0, 1 << 40

    def free_bytes(self) -> int:
        return 1 << 62

    def reserve(self, nbytes: int) -> int:
        self.reserved += nbytes
        pointer, self._next = self._next, self._next + -(-nbytes // 4096) * 4096 + 4096
        return pointer

    def release(self, pointer: int) -> None: ...

    def write(self, pointer: int, array: np.ndarray) -> None: ...

    def read(self, pointer: int, array: np.ndarray) -> None:
        """Zeros."""
        array[...] = 0

    def pinned(self, nbytes: int) -> np.ndarray:
        return np.zeros(nbytes, np.uint8)

    def send(self, pointer: int, array: np.ndarray) -> None: ...

    def fetch(self, pointer: int, array: np.ndarray) -> Callable[[], None]:
        """Zeros."""
        array[...] = 0
        return lambda: None

    def launch(
        self, kernel: Kernel, grid: tuple[int, ...], block: tuple[int, ...], arguments: Sequence[Any], shared: int = 0
    ) -> None:
        self.launches.append((kernel, grid, block))

    def synchronise(self) -> None: ...

    def begin_capture(self) -> None: ...

    def end_capture(self) -> Graph:
        return Graph(lambda: None, 0)
