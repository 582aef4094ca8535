"""What the matrix products of kernels/product.cuh share: which tile a block takes, and the sums of a split product."""

from __future__ import annotations

from typing import Any, NamedTuple

from .array import ITEMSIZE, Array
from .context import Context, blocks

__all__ = ["TILES", "Tile", "choose_tile", "packed", "weight_gradient"]

MULTIPROCESSORS = 132  # of an H100: what fills it fills the others. A constant, so that sums do not depend on the GPU
STEP_BYTES = 64  # of a row of a tile along k
STAGES = 4


class Tile(NamedTuple):
    """m x n sums a block. rate: how fast one multiprocessor gets through them, relative; estimates from the loads of shared
    memory a product needs, to be replaced by measurements."""

    m: int
    n: int
    rate: float

    @property
    def threads(self) -> int:
        return 2 * self.m

    @property
    def shared(self) -> int:
        """Bytes: the ring of stages, or the finished tile in float32, which takes its place."""
        return max(STAGES * (self.m + self.n) * STEP_BYTES, self.m * self.n * 4)

    @property
    def defines(self) -> dict[str, int]:
        return {"TILE_M": self.m, "TILE_N": self.n, "STAGES": STAGES}

    def cover(self, m: int, n: int) -> int:
        """Tiles that cover an m x n matrix."""
        return blocks(m, self.m) * blocks(n, self.n)


TILES = {
    "bfloat16": (Tile(128, 128, 1.0), Tile(128, 64, 0.85), Tile(64, 64, 0.7)),
    "float32": (Tile(128, 64, 1.0), Tile(64, 64, 0.9)),
}


def choose_tile(context: Context, dtype: str, m: int, n: int, copies: int = 1, split: bool = False) -> Tile:
    """The tile with which an m x n product, `copies` of them at once, is done first: tiles that each multiprocessor must
    do one after the other, times the time of one. A product that can be split along k fills the GPU with any tile.

    Kernels for one architecture (context.device.architecture; wgmma and TMA on sm_90a) would be chosen here too.
    """

    def time(tile: Tile) -> float:
        count = copies * tile.cover(m, n)
        each = count / MULTIPROCESSORS if split else blocks(count, MULTIPROCESSORS)
        return each * tile.m * tile.n / tile.rate

    return min(TILES[dtype], key=time)


def packed(channels: int, *arrays: Array) -> int:
    """1 if rows of so many channels, and those of the arrays, can be read 16 bytes at a time, else 0."""
    pack = 16 // ITEMSIZE[arrays[0].dtype]
    return int(channels % pack == 0 and all(a.pitch % pack == a.offset % pack == 0 for a in arrays))


def weight_gradient(
    source: str,
    name: str,
    x: Array,
    dy: Array,
    shape: tuple[int, ...],
    terms: int,
    *arguments: Any,
    **defines: int,
) -> tuple[Array, Array]:
    """dW of a shape and db, both float32, from a kernel that sums `terms` products of x and dy.

    The tiles of dW are few and the sums long: k is cut into parts, twice as many blocks as multiprocessors in all, whose
    sums are added by a second kernel in a fixed order. Parts and order depend on the shapes alone.
    """
    context, n = x.context, shape[-1]
    dweight, dbias = context.empty(shape), context.empty((n,))
    m = dweight.size // n
    tile = choose_tile(context, x.dtype, m, n, split=True)
    step = STEP_BYTES // ITEMSIZE[x.dtype]
    steps, wanted = blocks(terms, step), blocks(2 * MULTIPROCESSORS, tile.cover(m, n))
    each = blocks(steps, min(wanted, blocks(steps, STAGES)))  # steps of a part: enough to fill the ring
    parts = blocks(steps, each)
    size = (m + 1) * n  # dW, then db

    if parts == 1:
        whole, vector = dweight, dbias
    else:
        whole = context.empty((parts, size))
        vector = Array(whole.buffer, (n,), "float32", m * n)
    grid, options = (tile.cover(m, n), parts), {**tile.defines, **defines}
    context.launch(
        source, name, grid, tile.threads, x, dy, whole, vector, *arguments, each * step, size,
        dtype=x.dtype, shared=tile.shared, **options,
    )  # fmt: skip
    if parts > 1:
        arguments = (whole, dweight, dbias, parts, size, n)
        context.launch(source, "add_partials", blocks(size, 256), 256, *arguments, dtype=x.dtype, **options)
    return dweight, dbias
