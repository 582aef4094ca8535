"""What configurations of networks check: integers and shapes."""

from __future__ import annotations

from typing import Any

__all__ = ["check_integers", "check_shape", "freeze_lists"]


def freeze_lists(config: Any, *names: str) -> None:
    """Lists among these fields become tuples, so that a configuration is a value."""
    for name in names:
        if isinstance(value := getattr(config, name), list):
            object.__setattr__(config, name, tuple(value))


def check_integers(config: Any, *names: str, least: int = 1) -> None:
    """ValueError for a field that is no integer of at least `least`."""
    for name in names:
        if not isinstance(getattr(config, name), int) or getattr(config, name) < least:
            raise ValueError(f"{name}: expected an integer of at least {least}, got {getattr(config, name)}")


def check_shape(name: str, shape: Any, empty: bool = False) -> None:
    """ValueError unless it is a tuple of integers from 1 on; empty: whether () is one."""
    whole = isinstance(shape, tuple) and all(type(n) is int and n >= 1 for n in shape)
    if not whole or not (shape or empty):
        least = "integers" if empty else "at least one integer"
        raise ValueError(f"{name}: expected {least} of at least 1 each, got {shape}")
