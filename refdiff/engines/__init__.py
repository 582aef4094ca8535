"""The operations, forward and backward, three times: to be read (reference), to be used (cpu), to be fast (cuda).

An engine is a module whose names and contract are those of `refdiff.engines.reference`.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from ..errors import one_of, option

ENGINES = ("reference", "cpu", "cuda")


def get(name: str) -> ModuleType:
    """The engine of this name, or "auto". ValueError for an unknown one."""
    one_of("engine", name, ("auto", *ENGINES))
    return import_module(f"refdiff.engines.{resolve(name)}")


def resolve(name: str) -> str:
    """The name itself, or what "auto" stands for here: "cuda" where CuPy finds a GPU, else "cpu"."""
    if name != "auto":
        return name
    return "cuda" if has_gpu() else "cpu"


def check_dtype(name: str, dtype: str) -> None:
    """ValueError if this engine does not compute in this dtype."""
    if resolve(name) != "cuda" and dtype != "float32":
        raise ValueError(
            f"dtype: expected float32 on the {resolve(name)} engine, got {dtype}; take {option('dtype', 'float32')}"
        )


@cache
def has_gpu() -> bool:
    if find_spec("cupy") is None:
        return False
    try:
        return bool(import_module("cupy").cuda.is_available())
    except Exception:  # a CuPy that cannot be used: --engine cuda says why
        return False
