"""Memory that is let go of early: by a prediction, which keeps nothing for a backward, and by a backward on its way."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

__all__ = ["Forgetful", "once"]


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


class _Once(dict[str, Any]):
    def __getitem__(self, key: str) -> Any:
        value = self.pop(key)
        return _Once(value) if type(value) is dict else value


def once(saved: dict[str, Any]) -> dict[str, Any]:
    """What a forward saved, for one backward: each value is let go as it is read. `saved` is empty afterwards."""
    taken = _Once(saved)
    saved.clear()
    return taken
