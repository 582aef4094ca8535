"""How kernels spread rows of C channels over threads: the other half of kernels/rows.cuh."""

from __future__ import annotations

from typing import NamedTuple

from .runtime.context import ITEMSIZE, Array, blocks
from .structs import constant

__all__ = ["FILL_BLOCKS", "MAX_THREADS", "TOTAL_CHANNELS", "Tiling", "expect", "tiling"]

MAX_THREADS = constant("rows.cuh", "MAX_THREADS")  # of a block
TOTAL_CHANNELS = constant("rows.cuh", "TOTAL_CHANNELS")  # of a block that adds partial sums
FILL_BLOCKS = 8 * 132  # blocks that fill any GPU we know


class Tiling(NamedTuple):
    """How rows of C channels are spread over threads: see Tile in kernels/rows.cuh."""

    packed: int  # 1: 16 bytes a thread
    width: int  # channels of a thread
    side: int  # rows at a time, R
    threads: int
    scratch: int  # floats that merging one float a channel over the rows needs


def tiling(*arrays: Array | None) -> Tiling:
    """For arrays whose rows are read together, of which the first gives C and the type. 16 bytes a thread where every
    row of each begins at a multiple of 16 bytes."""
    x = arrays[0]
    assert x is not None
    pack = 16 // ITEMSIZE[x.dtype]
    fits = x.shape[-1] % pack == 0 and all(a.pointer % 16 == 0 and a.pitch % pack == 0 for a in arrays if a is not None)
    width = pack if fits else 1
    along = max(1, min(x.shape[-1] // width, MAX_THREADS))
    side = MAX_THREADS // along
    return Tiling(int(fits), width, side, blocks(along * side, 32) * 32, width * along * blocks(side, 2))


def expect(name: str, dtype: str, *arrays: Array) -> None:
    """An assertion: all of them dense and of this type."""
    for a in arrays:
        assert a.dense, f"{name}: {a} is part of a split"
        assert a.dtype == dtype, f"{name}: expected {dtype}, got {a}"
