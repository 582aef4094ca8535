"""Which data a run learns from, and how they are varied: the table [data] of a configuration."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from .dataset import Dataset
from .loading import load

__all__ = ["DataConfig"]


@dataclass(frozen=True)
class DataConfig:
    """source: a known data set or a path, see `refdiff.data.load`; flip: mirror half of the images, left to right."""

    source: str = "digits"
    flip: bool = False

    def open(self) -> Any:
        """The data set. Errors as of `load`; ValueError for points that are to be mirrored."""
        data = load(self.source)
        if self.flip and not isinstance(data, Dataset):
            raise ValueError(f"data.flip: expected false, since {self.source} varies its samples itself, got true")
        return replace(data, flip=True) if self.flip else data
