"""Time on a device: what is queued between two events, as a graph, with none of its operands in the level-2 cache.

The cache is flushed before each repeat by reading, not by writing: lines that a memset leaves there would be written back
inside what is timed. So that a graph's own start is divided by something, it holds the work several times, each time on
operands of its own. The flush takes longer than it takes to queue what follows, so the host's delays are not in the time.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Sequence
from typing import Any

from ..engines.cuda.runtime.arena import Arena
from ..engines.cuda.runtime.context import Context, use
from ..engines.cuda.runtime.device import Device, Kernel

__all__ = ["COPIES", "Stopwatch", "captured"]

COPIES = 10  # of an operation in one graph

_FLUSH = 256 << 20  # bytes: at least twice the level-2 cache of any GPU
_READ, _BLOCKS, _THREADS = (
    Kernel("optimiser.cu", "sum_squares"),
    1024,
    256,
)  # which reads all and writes a number a block


class Stopwatch:
    """Seconds of runs on this device; on one that is no GPU, the host's seconds."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.cupy: Any = getattr(device, "cupy", None)
        if self.cupy is not None:
            self.stream = device.stream  # type: ignore[attr-defined]
            self.buffer, self.sums = device.reserve(_FLUSH), device.reserve(4 * _BLOCKS)

    def seconds(self, run: Callable[[], Any], repeats: int, copies: int = 1) -> list[float]:
        """Seconds of each run. run() queues the work `copies` times, or replays a graph of it, and does not wait."""
        if self.cupy is None:
            return [self._host(run) / copies for _ in range(repeats)]
        cuda = self.cupy.cuda
        pairs = [(cuda.Event(), cuda.Event()) for _ in range(repeats)]
        for start, stop in pairs:
            self._flush()
            start.record(self.stream)
            run()
            stop.record(self.stream)
        self.device.synchronise()
        return [cuda.get_elapsed_time(start, stop) / 1e3 / copies for start, stop in pairs]

    def _flush(self) -> None:
        arguments = [ctypes.c_void_p(self.buffer), ctypes.c_void_p(self.sums), ctypes.c_int(_FLUSH // 4)]
        self.device.launch(_READ, (_BLOCKS,), (_THREADS,), arguments)

    def _host(self, run: Callable[[], Any]) -> float:
        start = time.perf_counter()
        run()
        self.device.synchronise()
        return time.perf_counter() - start


def captured(context: Context, runs: Sequence[Callable[[], Any]]) -> tuple[Callable[[], None], int]:
    """All runs, one after another, as one graph.   -> its replay, how many launches it has.

    What they return is freed only at the end, so that no two of them write to one place. They are run before, until the
    arena has room for all of it: each replay finds that room free. The graph keeps no references: nothing else may be
    allocated in this arena from now on.
    """
    memory = context.memory
    assert isinstance(memory, Arena)

    def together() -> None:
        [run() for run in runs]

    with use(context):
        reserved = -1
        while memory.reserved != reserved:
            reserved = memory.reserved
            together()
        graph = context.capture(together)
    return graph.replay, graph.launches
