"""Ctrl-C and SIGTERM, handled at the end of a step: what a step writes is then whole, and nothing is lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Stop", "stoppable"]


class Stop:
    """asked: how often somebody asked to stop."""

    asked = 0

    def check(self) -> None:
        """KeyboardInterrupt if somebody asked."""
        if self.asked:
            raise KeyboardInterrupt


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Inside, the first SIGINT or SIGTERM is only noted; a second one raises KeyboardInterrupt where it comes.

    An exception raised wherever a signal happens to arrive may be lost, as in the freeing of an array. Python delivers
    signals to the main thread alone; in another there are none to wait for.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def note(number: int, frame: Any) -> None:
        stop.asked += 1
        if stop.asked > 1:
            raise KeyboardInterrupt

    former = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in former.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
