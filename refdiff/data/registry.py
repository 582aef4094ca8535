"""What a data set is to training, and a user's own by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from ..errors import new_name
from ..models import Batch, Input
from ..random import Key
from .loading import NAMED

__all__ = ["Data", "register_data"]


class Data(Protocol):
    """Samples by number. `inputs`: the entries of one sample, such as {"x": Input((8, 8, 1)), "label": Input((), "int")}. It
    may have `names`, a tuple: what the classes are called, in order."""

    @property
    def inputs(self) -> dict[str, Input]: ...

    def __len__(self) -> int: ...

    def rows(self, ids: np.ndarray, key: Key) -> Batch:
        """The samples of these numbers, each entry (len(ids), ...): on the host, and a pure function."""
        ...


def register_data(name: str, cls: Callable[[], Any]) -> None:
    """Make a data set known by this name, as configurations write it: `data.source = "name"`; cls() makes it.

    ValueError if the name is another's.
    """
    new_name(name)
    if not callable(cls):
        raise ValueError(f"cls: expected something that makes the data set {name!r} when it is called, got {cls!r}")
    if NAMED.get(name, cls) is not cls:
        raise ValueError(f"name: expected one that no other data set has, got {name!r}; known are {', '.join(NAMED)}")
    NAMED[name] = cls
