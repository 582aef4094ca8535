"""All parameters of a model one after another in one flat buffer: what an optimiser that writes in place works on."""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import numpy as np

from .trees import Tree, flatten, leaves, unflatten

__all__ = ["Packing"]

ALIGNMENT = 64  # elements: 128 bytes of bfloat16, the width of a memory transaction


class Packing(NamedTuple):
    """places: name -> (offset in elements, shape); size: elements of the buffer, the gaps of the alignment included."""

    places: dict[str, tuple[int, tuple[int, ...]]]
    size: int

    @classmethod
    def of(cls, layout: Tree) -> Packing:
        """Of a tree of `Parameter`, in its order."""
        places, end = {}, 0
        for path, parameter in leaves(layout):
            places["/".join(path)] = end, parameter.shape
            end += -(-prod(parameter.shape) // ALIGNMENT) * ALIGNMENT
        return cls(places, end)

    def region(self, name: str) -> slice:
        """Where the tree of this name lies, as a whole."""
        own = [place for path, place in self.places.items() if path.partition("/")[0] == name]
        (start, _), (end, shape) = own[0], own[-1]
        return slice(start, end + -(-prod(shape) // ALIGNMENT) * ALIGNMENT)

    def pack(self, tree: Tree, flat: np.ndarray | None = None) -> np.ndarray:
        """The values of the tree in a buffer of zeros, a fresh one if none is given.   -> (size,) float32."""
        flat = np.zeros(self.size, np.float32) if flat is None else flat
        for name, leaf in flatten(tree).items():
            offset, shape = self.places[name]
            flat[offset : offset + prod(shape)].reshape(shape)[...] = leaf
        return flat

    def unpack(self, flat: Any) -> Tree:
        """A tree of views into the buffer."""
        return unflatten({
            name: flat[offset : offset + prod(shape)].reshape(shape) for name, (offset, shape) in self.places.items()
        })  # fmt: skip
