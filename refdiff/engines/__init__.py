"""The operations, forward and backward, three times: to be read (reference), to be used (cpu), to be fast (cuda).

An engine is a module whose names and contract are those of `refdiff.engines.reference`.
"""

from __future__ import annotations

import difflib
from importlib import import_module
from types import ModuleType

ENGINES = ("reference",)


def get(name: str) -> ModuleType:
    """The engine of this name. ValueError for an unknown one."""
    if name not in ENGINES:
        close = difflib.get_close_matches(name, ENGINES, 1)
        raise ValueError(
            f"engine: expected one of {', '.join(ENGINES)}, came {name!r}"
            + (f"; did you mean {close[0]}?" if close else "")
        )
    return import_module(f"refdiff.engines.{name}")
