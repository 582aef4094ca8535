"""What the matrix products of kernels/product.cuh share: which tile a block takes, and the sums of a split product."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from statistics import median
from typing import Any, NamedTuple

from . import tile_table
from .runtime.context import ITEMSIZE, Array, Context, blocks
from .structs import Struct, constant, struct
from .tile_table import Problem, Tiles

__all__ = ["TILES", "Tile", "choose_tile", "chosen_by", "guess", "packed", "split", "weight_gradient"]

MULTIPROCESSORS = 132  # of an H100: what fills it fills the others. A constant, so that sums do not depend on the GPU
STEP_BYTES = constant("tile.cuh", "STEP_BYTES")  # of a row of a tile along k
STAGES = 4
PART = 2  # steps that a part costs beside its own: filling the ring, writing its sums. An estimate
WAVES = 4  # of parts at most: each part is written to memory and read again


Split = struct("product.cuh", "Split")


class Tile(NamedTuple):
    """m x n sums a block. rate: how fast one multiprocessor gets through them, relative; estimates from the loads of shared
    memory a product needs, which a measured table replaces (see tile_table.py)."""

    m: int
    n: int
    rate: float

    @property
    def threads(self) -> int:
        return 2 * self.m

    @property
    def resident(self) -> int:
        """Blocks at once on a multiprocessor: its 65,536 registers hold 512 threads of 128."""
        return 512 // self.threads

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
_SPLIT = ("conv2d_dweight", "linear_dweight")  # kernels whose sums are cut into parts
Choice = Callable[[str, str, Problem], Tile]  # kernel, dtype, problem -> tile
_chosen_by: ContextVar[Choice | None] = ContextVar("refdiff_cuda_chosen_by", default=None)
_parts: ContextVar[int | None] = ContextVar("refdiff_cuda_parts", default=None)


def choose_tile(context: Context, kernel: str, dtype: str, problem: Problem) -> Tile:
    """The tile with which a kernel of linear.cu or conv2d.cu does a product: the fastest in the table of the device's
    architecture; where it has not this product, a guess with the rates that follow from the table, or with those of TILES.

    No sum depends on it: each is over k in the same order in any tile, and `split` does not ask the table.
    """
    if choice := _chosen_by.get():
        return choice(kernel, dtype, problem)
    measured = tile_table.table_of(context.device.architecture).get((kernel, dtype), {})
    seconds = measured.get(problem, {})
    if known := [tile for tile in TILES[dtype] if tile[:2] in seconds]:
        return min(known, key=lambda tile: seconds[tile[:2]])
    return guess(kernel, dtype, problem, rates(kernel, dtype, measured))


def guess(kernel: str, dtype: str, problem: Problem, rates: dict[Tile, float] | None = None) -> Tile:
    """The tile with which a product would be done first if each went at its rate.   rates: those of TILES, unless given."""
    each = rates or {tile: tile.rate for tile in TILES[dtype]}
    return min(each, key=lambda tile: work(kernel, tile, problem) / each[tile])


def work(kernel: str, tile: Tile, problem: Problem) -> float:
    """Sums that each multiprocessor must do one after the other. A product that is cut into parts fills the GPU with any
    tile."""
    count = problem.copies * tile.cover(problem.m, problem.n)
    each = count / MULTIPROCESSORS if kernel in _SPLIT else blocks(count, MULTIPROCESSORS)
    return each * tile.m * tile.n


def rates(kernel: str, dtype: str, measured: dict[Problem, Tiles]) -> dict[Tile, float]:
    """Of each tile that was measured: the median over all products of its rate, relative to the mean of all tiles in the
    same product."""
    found: dict[Tile, list[float]] = {}
    for problem, seconds in measured.items():
        each = {t: work(kernel, t, problem) / seconds[t[:2]] for t in TILES[dtype] if t[:2] in seconds}
        for tile, rate in each.items():
            found.setdefault(tile, []).append(rate * len(each) / sum(each.values()))
    return {tile: median(of_tile) for tile, of_tile in found.items()}


@contextmanager
def chosen_by(choice: Choice, parts: int | None = None) -> Iterator[None]:
    """Inside, choice(kernel, dtype, problem) chooses each product's tile, and sums are cut into so many parts, if given: to
    measure them."""
    tokens = _chosen_by.set(choice), _parts.set(parts)
    try:
        yield
    finally:
        _chosen_by.reset(tokens[0])
        _parts.reset(tokens[1])


def usual_split(kernel: str, dtype: str, problem: Problem) -> tuple[int, int, int]:
    """The tiles, the steps of k and the places for which a weight gradient is cut: those of the tile that is guessed without
    a table, so that no sum depends on the GPU."""
    tile = guess(kernel, dtype, problem)
    steps = blocks(problem.k, STEP_BYTES // ITEMSIZE[dtype])
    return tile.cover(problem.m, problem.n), steps, tile.resident * MULTIPROCESSORS


@cache
def split(tiles: int, steps: int, places: int, parts: int | None = None) -> tuple[int, int]:
    """How a sum over k of so many steps is cut, for a product of so many tiles on a GPU where so many blocks run at once.
    -> (steps of a part, parts)

    Blocks run in waves of `places`, and a last wave that is nearly empty takes as long as a full one: the cost is waves
    times the steps of a part, PART added. The fewest parts of equal cost; a part has STAGES steps, the ring, if there are
    as many. parts: how many, roughly, instead.
    """

    def cost(parts: int) -> int:
        each = blocks(steps, parts)
        return blocks(tiles * blocks(steps, each), places) * (each + PART)

    most = min(blocks(steps, STAGES), blocks(WAVES * places, tiles))
    each = blocks(steps, min(parts, most) if parts else min(range(1, most + 1), key=cost))
    return each, blocks(steps, each)


def packed(channels: int, *arrays: Array) -> int:
    """1 if rows of so many channels, and those of the arrays, can be read 16 bytes at a time, else 0."""
    pack = 16 // ITEMSIZE[arrays[0].dtype]
    return int(channels % pack == 0 and all(a.pitch % pack == a.offset % pack == 0 for a in arrays))


def weight_gradient(
    context: Context,
    source: str,
    name: str,
    dtype: str,
    inputs: tuple[Any, Any],
    sizes: Struct,
    shape: tuple[int, ...],
    terms: int,
    **defines: int,
) -> tuple[Array, Array]:
    """dW of a shape and db, both float32, from a kernel that sums `terms` products of x and dy.

    inputs: x and dy as the kernel takes them, sizes: what it is told of their shapes.

    The tiles of dW are few and the sums long: k is cut into parts that fill whole waves of blocks (see `split`), and a
    second kernel adds their sums in a fixed order. Parts and order depend on the shapes alone, not on the GPU or a table.
    """
    n = shape[-1]
    dweight, dbias = context.empty(shape), context.empty((n,))
    problem = Problem(dweight.size // n, n, terms)
    each, parts = split(*usual_split(name, dtype, problem), _parts.get())
    tile = choose_tile(context, name, dtype, problem)
    size = (problem.m + 1) * n  # dW, then db

    if parts == 1:
        whole, vector = dweight, dbias
    else:
        whole = context.empty((parts, size))
        vector = Array(whole.buffer, (n,), "float32", problem.m * n)
    grid, options = (tile.cover(problem.m, n), parts), {**tile.defines, **defines}
    cut = Split(each=each * STEP_BYTES // ITEMSIZE[dtype], size=size)
    context.launch(
        source, name, grid, tile.threads, *inputs, whole, vector, sizes, cut, dtype=dtype, shared=tile.shared, **options
    )
    if parts > 1:
        arguments = (whole, dweight, dbias, parts, size, n)
        context.launch(source, "add_partials", blocks(size, 256), 256, *arguments, dtype=dtype, **options)
    return dweight, dbias
