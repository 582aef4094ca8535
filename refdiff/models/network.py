"""What a network is to everybody else: a configuration with parameters, and inputs by name."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

from .trees import Tree

__all__ = ["Batch", "Input", "Network", "Saved"]

Batch: TypeAlias = dict[str, Any]  # arrays by name, axis 0 the samples
Saved: TypeAlias = dict[str, Any]


class Input(NamedTuple):
    """An input: the shape of one sample of it, and whether it holds "float" or "int" numbers. -1: any length."""

    shape: tuple[int, ...] = ()
    kind: str = "float"


class Network(NamedTuple):
    """A network: its configuration and its parameters, a tree."""

    config: Any
    p: Tree
