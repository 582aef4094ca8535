"""Prediction without gradients: an engine whose operations keep nothing for a backward."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

__all__ = ["Forgetful"]


class Forgetful:
    """The operations of an engine, each of which gives (y, None): what it saved is let go, and its memory used again."""

    def __init__(self, engine: ModuleType) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Callable[..., Any]:
        operation = getattr(self._engine, name)

        def run(*args: Any, **kwargs: Any) -> Any:
            result = operation(*args, **kwargs)
            return (result[0], None) if isinstance(result, tuple) else result

        setattr(self, name, run)
        return run
