"""What an operation takes and returns: arrays alone, or in trees of tuples and dictionaries, nested at will."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["inner", "leaves", "tree_map"]


def tree_map(f: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """The tree of f(leaf, leaf of each other tree)."""
    if isinstance(tree, dict):
        return {key: tree_map(f, part, *(other[key] for other in others)) for key, part in tree.items()}
    if isinstance(tree, tuple):
        return tuple(tree_map(f, *parts) for parts in zip(tree, *others, strict=True))
    return f(tree, *others)


def leaves(tree: Any, name: str = "") -> dict[str, Any]:
    """Each leaf by its name, the keys on the way to it joined by "/"; an array alone has the name ""."""
    if not isinstance(tree, dict | tuple):
        return {name: tree}
    parts = tree.items() if isinstance(tree, dict) else enumerate(tree)
    return {n: leaf for key, part in parts for n, leaf in leaves(part, f"{name}/{key}".lstrip("/")).items()}


def inner(a: dict[str, Any], b: dict[str, Any]) -> float:
    """<a, b>, over all the leaves of a, both by name."""
    return float(sum(np.vdot(leaf, b[name]) for name, leaf in a.items()))
