"""What begins anew in a child process of fork, which has none of its parent's threads: queues, locks that one may hold."""

from __future__ import annotations

import os
from collections.abc import Callable

__all__ = ["after_fork"]

_resets: list[Callable[[], None]] = []


def after_fork(reset: Callable[[], None]) -> Callable[[], None]:
    """A decorator: reset() is called in each child process, in the order of the decorations."""
    _resets.append(reset)
    return reset


def _reset() -> None:
    for reset in _resets:
        reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset)
