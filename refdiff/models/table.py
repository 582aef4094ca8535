"""A table of learned numbers, looked up by an index: one row of numbers that belong to no layer, such as the ends of a noise
schedule [VDM] or the variance of a likelihood, or a row for each step."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from ..random import Key
from .network import Batch, Input, Network, Saved
from .parameters import Parameter
from .shapes import check_integers, freeze_lists
from .trees import Tree

__all__ = ["TableConfig", "backward", "forward", "inputs", "layout"]


@dataclass(frozen=True)
class TableConfig:
    """rows, width: of the table; first: its first values, one for all, or those of one row for each, or all of them, row by
    row. ValueError for a table of no numbers, and for another number of first values.
    """

    rows: int = 1
    width: int = 1
    first: tuple[float, ...] = (0.0,)

    def __post_init__(self) -> None:
        check_integers(self, "rows", "width")
        freeze_lists(self, "first")
        if len(self.first) not in (1, self.width, self.rows * self.width):
            counts = ", ".join(str(n) for n in sorted({1, self.width, self.rows * self.width}))
            raise ValueError(
                f"first: expected so many numbers: {counts}, for {self.rows} rows of {self.width}, got {len(self.first)}"
            )
        if not np.all(np.isfinite(self.first)):
            raise ValueError(f"first: expected finite numbers, got {self.first}")

    @property
    def outputs(self) -> tuple[int, ...]:
        """The shape of what it says of a sample."""
        return (self.width,)


def inputs(config: TableConfig) -> dict[str, Input]:
    """index, from 0 to rows - 1."""
    return {"index": Input((), "int")}


def layout(config: TableConfig) -> Tree:
    """The one parameter, weight (rows, width), float32 where others are bfloat16 too: numbers whose digits count."""
    first = np.asarray(config.first, np.float64)
    if len(first) == config.rows * config.width:
        first = first.reshape(config.rows, config.width)
    return {"weight": Parameter((config.rows, config.width), first=first, keep_float32=True)}


def forward(engine: ModuleType, net: Network, inputs: Batch, key: Key | None = None) -> tuple[Any, Saved]:
    """The rows that were asked for.   index (N,) -> (N, width), saved"""
    y, saved = engine.embedding(inputs["index"], net.p["weight"])
    return y, {"embedding": saved}


def backward(
    engine: ModuleType, net: Network, dy: Any, saved: Saved, wrt: tuple[str, ...] = ()
) -> tuple[dict[str, Any], Tree]:
    """The gradient of a row is the sum over the samples that read it; an index has none."""
    return {}, engine.embedding_backward(dy, saved["embedding"])
