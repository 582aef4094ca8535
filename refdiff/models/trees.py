"""Trees: nested dictionaries of arrays. Parameters, their gradients and their averages are trees with the same keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

Tree: TypeAlias = dict[str, Any]

__all__ = ["Tree", "add", "flatten", "leaves", "tree_map", "unflatten"]


def add(engine: Any, a: Tree, b: Tree) -> Tree:
    """The sum of two trees of gradients, by the engine's operation: of a network that was used twice."""
    return tree_map(engine.accumulate, a, b)


def leaves(tree: Tree, prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(path, leaf) of each leaf, in the order of insertion."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, (*prefix, key))
        else:
            yield (*prefix, key), value


def flatten(tree: Tree) -> dict[str, Any]:
    """{"a": {"b": x}} -> {"a/b": x}."""
    return {"/".join(path): leaf for path, leaf in leaves(tree)}


def unflatten(flat: dict[str, Any]) -> Tree:
    """{"a/b": x} -> {"a": {"b": x}}, the inverse of `flatten`."""
    tree: Tree = {}
    for name, leaf in flat.items():
        *path, last = name.split("/")
        node = tree
        for key in path:
            node = node.setdefault(key, {})
        node[last] = leaf
    return tree


def tree_map(f: Callable[..., Any], tree: Tree, *others: Tree) -> Tree:
    """A tree of f(leaf, leaf of each other tree). KeyError if another tree lacks a key."""
    return {
        key: tree_map(f, value, *(o[key] for o in others))
        if isinstance(value, dict)
        else f(value, *(o[key] for o in others))
        for key, value in tree.items()
    }
