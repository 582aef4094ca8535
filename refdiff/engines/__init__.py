"""The operations, forward and backward, three times: to be read (reference), to be used (cpu), to be fast (cuda).

An engine is a module whose names and contract are those of `refdiff.engines.reference`.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from ..errors import one_of

ENGINES = ("reference",)


def get(name: str) -> ModuleType:
    """The engine of this name. ValueError for an unknown one."""
    one_of("engine", name, ENGINES)
    return import_module(f"refdiff.engines.{name}")
