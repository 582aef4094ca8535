"""Which data a run learns from, and how they are varied: the table [data] of a configuration."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ..errors import setting
from .dataset import Dataset
from .loading import load

__all__ = ["DataConfig"]


@dataclass(frozen=True)
class DataConfig:
    """source: a known data set or a path, see `refdiff.data.load`; flip: mirror half of the images, left to right; classes:
    what the labels 0, 1, ... are called, as the data say when a run begins, if they know."""

    source: str = "digits"
    flip: bool = False
    classes: tuple[str, ...] = ()

    def open(self) -> Any:
        """The data set. Errors as of `load`; ValueError for points that are to be mirrored."""
        data = load(self.source)
        if self.flip and not isinstance(data, Dataset):
            raise ValueError(f"data.flip: expected false, since {self.source} varies its samples itself, got true")
        return replace(data, flip=True) if self.flip else data

    def named(self, data: Any) -> DataConfig:
        """With the names of the classes of these data, where they know them. ValueError if others were given."""
        names = tuple(getattr(data, "names", ()))
        if names and self.classes and names != self.classes:
            raise ValueError(
                f"data.classes: expected {', '.join(names)}, as {self.source} calls its classes, got "
                f"{', '.join(self.classes)}; give {setting('data.classes', '[]')}"
            )
        return replace(self, classes=names) if names else self
