"""What is so for the calling thread while it runs operations, as one value.

    with using(threads=1, shards=1):
        ...

Inside, these fields are replaced, and afterwards all are as before; blocks nest in any order. A thread begins with the
defaults: what one sets, no other sees. (The thread pool's own threads keep them too, so working space is never shared.)
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from .blocks import Allocator, Workspace, pool
from .capture import Capture
from .gradient_buffer import GradientBuffer

__all__ = ["Context", "current", "using"]


@dataclass(slots=True)
class Context:
    """threads: most that an operation may use, None as many as `cpu.threads()`.
    shards: what operations get consists of so many, a power of two; each is computed as if the others were not there.
    allocator, kind: where results come from, as arrays of which class. workspace: where working space comes from.
    gradients: where the gradients of parameters go, None to fresh memory.
    capture: where calls of NumPy are captured, None where they are only made.
    algorithm: that the operation which runs has chosen, for `profile`."""

    threads: int | None = None
    shards: int = 2
    allocator: Allocator = pool
    kind: type[np.ndarray] = np.ndarray
    workspace: Workspace = field(default_factory=Workspace)
    gradients: GradientBuffer | None = None
    capture: Capture | None = None
    algorithm: str = ""

    def changed(self, **changes: Any) -> Context:
        """A context with other values of these fields. TypeError for a field that there is not."""
        if unknown := changes.keys() - FIELDS:
            raise TypeError(
                f"using: expected fields of Context ({', '.join(sorted(FIELDS))}), got {', '.join(unknown)}"
            )
        other: Context = object.__new__(Context)
        for name in FIELDS:  # a third of the time that `dataclasses.replace` takes, and it is done at every step
            setattr(other, name, changes[name] if name in changes else getattr(self, name))
        return other


FIELDS = frozenset(f.name for f in fields(Context))


class _Thread(threading.local):
    def __init__(self) -> None:
        self.context = Context()


_thread = _Thread()


def current() -> Context:
    """The calling thread's."""
    return _thread.context


@contextmanager
def using(**changes: Any) -> Iterator[Context]:
    """Inside, on this thread, these fields of the context have these values. TypeError for a field that there is not."""
    before = _thread.context
    _thread.context = before.changed(**changes)
    try:
        yield _thread.context
    finally:
        _thread.context = before
