"""Memory that is free early: a prediction saves nothing for a backward, and a backward uses up what was saved."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

__all__ = ["InferenceEngine", "consume"]


class InferenceEngine:
    """The operations of an engine, of which those with a backward give (y, None): what they saved is discarded, and its
    memory used again. y may be several arrays, as of `split`; what has no backward, as `columns`, gives what it gives."""

    def __init__(self, engine: ModuleType) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Callable[..., Any]:
        operation = getattr(self._engine, name)
        if not hasattr(self._engine, f"{name}_backward"):
            setattr(self, name, operation)
            return operation

        def run(*args: Any, **kwargs: Any) -> Any:
            y, _ = operation(*args, **kwargs)
            return y, None

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
