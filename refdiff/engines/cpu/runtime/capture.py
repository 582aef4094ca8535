"""A captured list of NumPy's calls, on arrays that stay where they are."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Any

import numpy as np

__all__ = ["Capture"]


class Capture:
    """Calls of NumPy, in order. spans: first call, end and (operation, shapes, algorithm) of each operation. dry: whether
    none is made."""

    dry = False

    def __init__(self) -> None:
        self.calls: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
        self.spans: list[tuple[int, int, tuple[str, str, str]]] = []
        self._errors: dict[str, Any] = {**np.geterr()}
        self._places: dict[tuple[Any, ...], np.ndarray] = {}
        self._starts: dict[mmap.mmap, int] = {}

    def run(self, first: int, last: int) -> None:
        """Make the calls first .. last - 1."""
        for f, args in islice(self.calls, first, last):
            f(*args)

    def add(self, f: Callable[..., Any], *args: Any) -> None:
        """f(*args) is the next call, under those floating-point error modes that are not as at the beginning."""
        if changed := {kind: mode for kind, mode in np.geterr().items() if mode != self._errors[kind]}:
            f = partial(_under, changed, f)
        self.calls.append((f, tuple(self.place(a) for a in args)))

    def place(self, a: Any) -> Any:
        """The same place as a plain array, which keeps the memory and not the array: the place can be used again."""
        if type(a) in (list, tuple):
            return [self.place(b) for b in a]
        if not isinstance(a, np.ndarray):
            return a
        address = a.__array_interface__["data"][0]
        name = address, a.shape, a.strides, a.dtype
        if name not in self._places:
            memory: Any = a
            while isinstance(memory, np.ndarray):
                memory = memory.base
            if isinstance(memory, mmap.mmap):
                self._places[name] = np.ndarray(a.shape, a.dtype, memory, address - self._start(memory), a.strides)
            else:
                self._places[name] = a.view(np.ndarray)
        return self._places[name]

    def end(self) -> None:
        """Nothing more will be added."""
        self._places.clear()
        self._starts.clear()

    def _start(self, memory: mmap.mmap) -> int:
        """Its address."""
        if memory not in self._starts:
            self._starts[memory] = np.frombuffer(memory, np.uint8, 1).__array_interface__["data"][0]
        return self._starts[memory]


def _under(errors: Any, f: Callable[..., Any], *args: Any) -> None:
    with np.errstate(**errors):
        f(*args)
