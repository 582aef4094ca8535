"""Time on a device: what is queued between two events, as a graph, the level-2 cache flushed before each repeat.

The flush takes longer than it takes to queue what follows, so the host's delays are not in the time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ..engines.cuda.context import Context, use
from ..engines.cuda.device import Device
from ..engines.cuda.memory import Arena

__all__ = ["Stopwatch", "captured"]

_FLUSH = 256 << 20  # bytes: several times the level-2 cache of any GPU


class Stopwatch:
    """Seconds of runs on this device; on one that is no GPU, the host's seconds."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.cupy: Any = getattr(device, "_cupy", None)
        if self.cupy is not None:
            self.stream = device._stream  # type: ignore[attr-defined]
            self.buffer = device.reserve(_FLUSH)

    def seconds(self, run: Callable[[], Any], repeats: int) -> list[float]:
        """Of each of so many runs. run() queues work, or replays a graph, and does not wait."""
        if self.cupy is None:
            return [self._host(run) for _ in range(repeats)]
        cuda = self.cupy.cuda
        pairs = [(cuda.Event(), cuda.Event()) for _ in range(repeats)]
        for start, stop in pairs:
            cuda.runtime.memsetAsync(self.buffer, 0, _FLUSH, self.stream.ptr)
            start.record(self.stream)
            run()
            stop.record(self.stream)
        self.device.synchronise()
        return [cuda.get_elapsed_time(start, stop) / 1e3 for start, stop in pairs]

    def _host(self, run: Callable[[], Any]) -> float:
        start = time.perf_counter()
        run()
        self.device.synchronise()
        return time.perf_counter() - start


def captured(context: Context, run: Callable[[], Any]) -> tuple[Callable[[], None], int]:
    """run() as a graph.   -> its replay, how many launches it has.

    It is run once before, so that the arena has room for all of its arrays, which are let go of: each replay finds the
    room free. The graph keeps no references: nothing else may be allocated in this arena from now on.
    """
    assert isinstance(context.memory, Arena)
    with use(context):
        run()
        graph = context.capture(run)
    return graph.replay, graph.launches
