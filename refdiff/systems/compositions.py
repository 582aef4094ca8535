"""What objectives of several systems compose of an engine's operations: Gaussians that a network says, and constants."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from .. import models
from ..models import Batch, Network, Tree
from ..random import Key

__all__ = ["constant", "moments", "moments_backward", "zeros"]


def moments(engine: ModuleType, network: Network, batch: Batch, key: Key) -> tuple[tuple[Any, Any], Any]:
    """Mean and log variance, as a network of two parts says them: (N, ...) each, and what the backward needs."""
    y, of_network = models.forward(engine, network, batch, key)
    said, of_split = engine.split(y, 2)
    return said, (of_network, of_split)


def moments_backward(
    engine: ModuleType, network: Network, d: tuple[Any, Any], saved: Any, wrt: tuple[str, ...] = ()
) -> tuple[dict[str, Any], Tree]:
    """d: of the mean and of the log variance -> the gradients of the entries in wrt, and of the network."""
    of_network, of_split = saved
    dy = engine.split_backward(d, of_split)
    return models.backward(engine, network, dy, models.consume(of_network), wrt)


def zeros(engine: ModuleType, n: int, key: Key) -> Any:
    """The row of a table of one row, n times.   -> (n,) integers"""
    return engine.integers(key("zeros"), n, 0, 0)


def constant(engine: ModuleType, value: float, x: Any, key: Key) -> Any:
    """The number everywhere, in the shape and dtype of x (N, ...)."""
    return engine.where(engine.integers(key("ones"), x.shape[0], 1, 1), value, x)
