"""Work that is the same each time: launched once to warm up, then captured as one graph, then replayed."""

from __future__ import annotations

from collections.abc import Callable

from .arena import Arena
from .context import Context, use
from .device import Graph
from .dry_run import DryRunDevice

__all__ = ["Captured", "memory_needed"]


class Captured:
    """Work as one graph. The first `run` launches it: kernels are compiled, and its arrays find their places. The second
    captures it, and replays that; all others replay it.

    The work is the same each time: the same kernels with the same arguments. What varies, it reads from arrays; it neither
    copies nor waits. Its arrays come from `context`, and those that it makes last no longer than the call.
    """

    def __init__(self, context: Context) -> None:
        self.context = context
        self.graph: Graph | None = None
        self._warm = False

    def run(self, body: Callable[[], object]) -> None:
        """Queue the work once. body() does it; it is not stored, so who holds this object may be who has the method."""
        with use(self.context):
            if not self._warm:
                body()
                self._warm = True
                return
            if self.graph is None:
                self.graph = self.context.capture(body)
        self.graph.replay()


def memory_needed(run: Callable[[Arena], object]) -> int:
    """Bytes of one arena that hold all arrays which run(arena) makes: it is run on an arena whose device runs nothing."""
    arena = Arena(DryRunDevice(), 1 << 40)
    run(arena)
    return arena.extent
