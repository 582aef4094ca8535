"""A device that is behind its host, as a GPU is: for tests of what may be overwritten, and when."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from refdiff.engines.cuda.runtime.device import Graph

from .device import Emulator


class Late:
    """An emulator on which nothing is done before somebody waits, as on a GPU that is behind. waits: for results alone."""

    name, architecture = "late", "emulated"

    def __init__(self) -> None:
        self.emulator, self.waits, self.recording = Emulator(), 0, False
        self.queue: list[Callable[[], Any]] = []
        for name in ("free_bytes", "reserve", "release", "pinned"):
            setattr(self, name, getattr(self.emulator, name))

    def later(self, name: str, *arguments: Any) -> None:
        self.queue.append(lambda: getattr(self.emulator, name)(*arguments))

    def synchronise(self) -> None:
        while self.queue:
            self.queue.pop(0)()

    def write(self, pointer: int, array: np.ndarray) -> None:
        self.synchronise()
        self.emulator.write(pointer, array)

    def read(self, pointer: int, array: np.ndarray) -> None:
        self.synchronise()
        self.emulator.read(pointer, array)

    def send(self, pointer: int, array: np.ndarray) -> None:
        self.later("write", pointer, array)

    def fetch(self, pointer: int, array: np.ndarray) -> Callable[[], None]:
        done: list[None] = []
        self.queue.append(lambda: done.append(self.emulator.read(pointer, array)))

        def wait() -> None:
            self.waits += 1
            while not done:
                self.queue.pop(0)()

        return wait

    def launch(self, *arguments: Any) -> None:
        self.emulator.launch(*arguments) if self.recording else self.later("launch", *arguments)

    def begin_capture(self) -> None:
        self.synchronise()
        self.recording = True
        self.emulator.begin_capture()

    def end_capture(self) -> Graph:
        self.recording = False
        graph = self.emulator.end_capture()
        return graph._replace(replay=lambda: self.queue.append(graph.replay))
