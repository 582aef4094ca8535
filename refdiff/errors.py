"""The errors of the public edge: ValueError for an argument, these for the rest."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class FormatError(ValueError):
    """A file is not what it should be: the message names the file, what was expected, what came, what to do."""


class TrainingError(ValueError):
    """Training cannot go on: the message names the step, what happened, and what is kept."""


class DeviceError(RuntimeError):
    """No usable GPU, too little memory, a kernel that does not compile or run, or a helping process that ended; the message
    says what to do."""


def one_of(name: str, value: Any, known: Iterable[str]) -> None:
    """ValueError unless `value` is one of the known names; it lists them, and the nearest to what came."""
    names = list(known)
    if value not in names:
        close = difflib.get_close_matches(str(value), names, 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ValueError(f"{name}: expected one of {', '.join(names)}, got {value!r}{hint}")
