"""A step that diverges says so once: by its TrainingError, not by every operation of NumPy that overflows on the way."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

__all__ = ["noted", "said_if_finite"]


@contextmanager
def noted(note: Callable[[str], None]) -> Iterator[None]:
    """Inside, what NumPy would warn of is told to `note` instead; what it would raise or ignore stays so."""
    modes: dict[str, Any] = {kind: "call" for kind, mode in np.geterr().items() if mode == "warn"}
    with np.errstate(**modes, call=lambda kind, flag: note(kind)):
        yield


@contextmanager
def said_if_finite(what: str) -> Iterator[None]:
    """Inside, floating-point errors are noted; when all has gone well they become one RuntimeWarning, since then none of
    them had to happen. After an exception they are its consequence or its cause, and nothing is said beside it."""
    found: list[str] = []
    with noted(found.append):
        yield
    if found:
        kinds = ", ".join(dict.fromkeys(found))
        warnings.warn(f"{what}: {kinds} in NumPy, though all that came of it is finite", RuntimeWarning, stacklevel=3)
