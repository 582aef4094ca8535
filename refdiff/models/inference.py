"""Memory that is free early: a prediction saves nothing for a backward, and a backward uses up what was saved."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

__all__ = ["InferenceEngine", "consume"]


class InferenceEngine:
    """The operations of an engine, each of which gives (y, None): what it saved is discarded, and its memory used again."""

    def __init__(self, engine: ModuleType) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Callable[..., Any]:
        operation = getattr(self._engine, name)

        def run(*args: Any, **kwargs: Any) -> Any:
            result = operation(*args, **kwargs)
            return (result[0], None) if isinstance(result, tuple) else result

        setattr(self, name, run)
        return run


class _Consumed(dict[str, Any]):
    def __getitem__(self, key: str) -> Any:
        value = self.pop(key)
        return _Consumed(value) if type(value) is dict else value


def consume(saved: dict[str, Any]) -> dict[str, Any]:
    """What a forward saved, for one backward: each value is free once it is read. `saved` is empty afterwards."""
    taken = _Consumed(saved)
    saved.clear()
    return taken
