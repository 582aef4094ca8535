"""3x3 convolution of stride 1 with zeros around, and its gradients, by Winograd's F(2x2, 3x3) and F(4x4, 3x3).

The transforms are in `tiles.py`. Here they are put together, a few images at a time: the images' tiles are made, then for
each of the p^2 places of a tile a matrix product, then images of the products. Threads divide the first and the last by
images, the products by places. The transformed weights are kept while they are the same.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from itertools import zip_longest
from typing import Any, NamedTuple

import numpy as np

from .products import product, transposed
from .runtime.blocks import pool
from .runtime.memory import contiguous, empty, scratch
from .runtime.thread_pool import available, parallel_for, parallel_sections
from .runtime.traced_array import TracedArray, is_capturing
from .tiles import FOUR, TWO, WinogradVariant, filters, from_tiles, gradient_tiles, input_tiles

__all__ = ["choose", "convolve", "forget_weights", "generation", "gradients"]

PARALLEL_WORK = 1 << 25  # multiplications; fewer are done by one thread
BLOCK_BYTES = 8 << 20  # of tiles at a time, about: most
_MIN_BLOCK_BYTES = 1 << 20  # and where U is small, which is read again for each block
LARGE_U_BYTES = 4 << 20  # a U from here on is read once for all shards
_TASK_ELEMENTS = 1 << 17  # elements of the images of a task, about
_TASK_CHANNELS = 64  # of a task
CACHE_BYTES = 128 << 20  # of U that are kept, most
_MIN_TILES = 16  # fewer than this: m = 4 reads more weights than it saves


def choose(n: int, h: int, w: int) -> WinogradVariant:
    """The variant for such images: the one with fewer products, unless they are so few that reading U is what takes time."""
    (rows4, columns4), (rows2, columns2) = FOUR.grid(h, w), TWO.grid(h, w)
    return FOUR if 36 * rows4 * columns4 < 16 * rows2 * columns2 and n * rows4 * columns4 >= _MIN_TILES else TWO


# ---- transformed weights, kept while the weights are the same


class _TransformedWeight(NamedTuple):
    weight: weakref.ref
    state: tuple[Any, ...]
    u: np.ndarray | None  # None: seen once


transformed_weights: dict[tuple[int, int], _TransformedWeight] = {}
_generation = 0
_lock = threading.Lock()


def forget_weights() -> None:
    """Call this after changing weights in place: the transforms of their former values are not used again."""
    global _generation
    _generation += 1


def generation() -> int:
    """How often that was called."""
    return _generation


def _transformed(variant: WinogradVariant, weight: np.ndarray) -> np.ndarray | None:
    """U = G g G' of the whole weight (3, 3, C, K) -> (p^2, C, K), or None where it is not worth keeping: U is made at the
    second forward with the same weight, while there is room. So sampling computes it no more, and training, where weights
    change each step, does not hold it for all layers at once.

    The same: the same array, `forget_weights` not called since, and a few numbers of it unchanged, so that an optimiser in
    place that calls no `forget_weights` is noticed.
    """
    if isinstance(weight, TracedArray):  # which will have changed when the calls are made again
        return None
    name = id(weight), variant.m
    c, k = weight.shape[2:]
    state = _generation, weight[1, 1, :: max(1, c // 8), :: max(1, k // 8)].tobytes()
    entry = transformed_weights.get(name)
    seen = entry is not None and entry.weight() is weight and entry.state == state
    if is_capturing() or (seen and entry.u is not None):  # type: ignore[union-attr]
        return entry.u if seen else None  # type: ignore[union-attr]
    u, held = None, sum(other.u.nbytes for other in list(transformed_weights.values()) if other.u is not None)
    if seen and held + 4 * variant.p**2 * c * k <= CACHE_BYTES:
        u = pool.empty((variant.p**2, c, k))
        filters(variant.u_of_g, contiguous(weight).reshape(9, c, k), u)
        u.flags.writeable = False

    def drop(reference: Any) -> None:
        with _lock:
            if name in transformed_weights and transformed_weights[name].weight is reference:
                del transformed_weights[name]

    with _lock:
        transformed_weights[name] = _TransformedWeight(weakref.ref(weight, drop), state, u)
    return u


# ---- the convolution and its gradients


class _Plan(NamedTuple):
    """How a shard is divided: samples, those of a block, and whether it is so little that one thread does it all."""

    variant: WinogradVariant
    samples: slice
    block: int
    grid: tuple[int, int]
    serial: bool

    @classmethod
    def of(cls, variant: WinogradVariant, samples: slice, x: tuple[int, ...], c: int, k: int) -> _Plan:
        """x: the shape of the images, (N, H, W, any)."""
        n, grid, places = samples.stop - samples.start, variant.grid(*x[1:3]), variant.p**2
        tiles = n * grid[0] * grid[1]
        size = min(BLOCK_BYTES, max(_MIN_BLOCK_BYTES, 8 * places * c * k))
        blocks = max(1, min(n, -(-4 * places * tiles * (c + k) // size)))
        return cls(variant, samples, -(-n // blocks), grid, places * tiles * c * k < PARALLEL_WORK)

    def blocks(self) -> list[slice]:
        """Samples of each block."""
        return [
            slice(i, min(i + self.block, self.samples.stop))
            for i in range(self.samples.start, self.samples.stop, self.block)
        ]

    def tiles(self, name: str, n: int, channels: int) -> np.ndarray:
        """Working space for those of n images."""
        return scratch(name, self.variant.p, self.variant.p, self.grid[0], n, self.grid[1], channels)

    def by_image(self, task: Callable[[slice], Any], images: np.ndarray) -> None:
        """task(images i .. j), as many as stay in cache.   images (N, H, W, C)"""
        n = len(images)
        some = max(1, _TASK_ELEMENTS * n // max(1, images.size))
        parallel_for(-(-n // some), lambda i: task(slice(i * some, min((i + 1) * some, n))), serial=self.serial)

    def by_place(self, task: Callable[[slice], Any], together: bool) -> None:
        """task(places i .. j) over those of a tile: all together, or those of a column of it."""
        p = self.variant.p
        if self.serial or (together and available() == 1):
            task(slice(0, p * p))
        else:
            parallel_for(p, lambda i: task(slice(i * p, (i + 1) * p)))

    def spread(
        self, transform: Callable[[WinogradVariant, np.ndarray, np.ndarray], None], x: np.ndarray, name: str
    ) -> np.ndarray:
        """The tiles of images.   x (N, H, W, C) -> (p^2, tiles, C), working space."""
        v = self.tiles(name, len(x), x.shape[3])
        self.by_image(lambda images: transform(self.variant, x[images], v[:, :, :, images]), x)
        return v.reshape(self.variant.p**2, -1, x.shape[3])


def _transformed_filters(variant: WinogradVariant, weight: np.ndarray) -> np.ndarray:
    """U = G g G'.   weight (3, 3, C, K) -> (p^2, C, K), kept or working space."""
    u = _transformed(variant, weight)
    if u is None:
        c, k = weight.shape[2:]
        g, u = contiguous(weight).reshape(9, c, k), scratch("u", variant.p**2, c, k)
        _by_channels(c, lambda channels: filters(variant.u_of_g, g[:, channels], u[:, channels]))
    return u


def _transformed_rotated_filters(variant: WinogradVariant, weight: np.ndarray) -> np.ndarray:
    """U of the filters rotated by 180 degrees, from channels out to those in.   weight (3, 3, C, K) -> (p^2, K, C)"""
    c, k = weight.shape[2:]
    g = contiguous(weight).reshape(9, c, k)
    rotated, u = scratch("g", 9, k, c), scratch("u", variant.p**2, k, c)
    _by_channels(c, lambda channels: transposed(g[:, channels], rotated[:, :, channels]))
    _by_channels(k, lambda channels: filters(variant.u_of_rotated, rotated[:, channels], u[:, channels]))
    return u


def _by_channels(channels: int, task: Callable[[slice], Any]) -> None:
    """task(channels i .. j) over all of them."""
    parallel_for(
        -(-channels // _TASK_CHANNELS),
        lambda i: task(slice(i * _TASK_CHANNELS, min((i + 1) * _TASK_CHANNELS, channels))),
    )


def convolve(
    variant: WinogradVariant,
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None,
    y: np.ndarray,
    shards: list[slice],
) -> None:
    """The convolution with zeros around.   x (N, H, W, C) -> into y (N, H, W, K)."""
    _convolve(variant, contiguous(x), _transformed_filters(variant, weight), bias, y, shards)


def gradients(
    variant: WinogradVariant,
    x: np.ndarray,
    weight: np.ndarray,
    dy: np.ndarray,
    dx: np.ndarray | None,
    shards: list[slice],
    into: list[tuple[np.ndarray, bool]],
) -> None:
    """dx (unless it is None), the convolution of dy with the rotated filters; dg = G' (sum over all tiles V * A dy A') G.

    x (N, H, W, C), dy (N, H, W, K) -> into dx (N, H, W, C), and into[shard]: an array (3, 3, C, K), and whether dg is added
    to it.
    """
    x, dy = contiguous(x), contiguous(dy)
    if dx is not None:
        _convolve(variant, dy, _transformed_rotated_filters(variant, weight), None, dx, shards)
    plans = [_Plan.of(variant, shard, x.shape, *weight.shape[2:]) for shard in shards]
    if len(plans) > 1 and available() > 1 and not plans[0].serial:
        dweights = [empty(weight.shape) if add else total for total, add in into]
        parallel_sections(len(plans), lambda i: _correlate_all(plans[i], x, dy, dweights[i], False))
        for dweight, (total, add) in zip(dweights, into, strict=True):
            if add:
                total += dweight
        return
    for plan, (total, add) in zip(plans, into, strict=True):
        if add and len(plan.blocks()) > 1:  # the sum of this shard first: the order of sums is what makes their bits
            dweight = empty(weight.shape)
            _correlate_all(plan, x, dy, dweight, False)
            total += dweight
        else:
            _correlate_all(plan, x, dy, total, add)


def _correlate_all(plan: _Plan, x: np.ndarray, dy: np.ndarray, dweight: np.ndarray, add: bool) -> None:
    """The sum of all blocks of a shard, into dweight or added to it."""
    for images in plan.blocks():
        _correlate(plan, x[images], dy[images], dweight, add)
        add = True


def _convolve(
    variant: WinogradVariant, x: np.ndarray, u: np.ndarray, bias: np.ndarray | None, y: np.ndarray, shards: list[slice]
) -> None:
    """y = A' (U * B' d B) A + bias. Shards go through the places of a tile together where U is large: it is read once."""
    _, c, k = u.shape
    plans = [_Plan.of(variant, shard, x.shape, c, k) for shard in shards]
    if len(shards) > 1 and (u.nbytes < LARGE_U_BYTES or available() > 1):
        parallel_sections(len(shards), lambda i: _convolve(variant, x, u, bias, y, [shards[i]]), plans[0].serial)
        return
    for blocks in zip_longest(*(plan.blocks() for plan in plans)):
        together = [(i, plans[i], images) for i, images in enumerate(blocks) if images is not None]
        v = [plan.spread(input_tiles, x[images], f"v{i}") for i, plan, images in together]
        products = [plan.tiles(f"products{i}", images.stop - images.start, k) for i, plan, images in together]
        flat = [a.reshape(variant.p**2, -1, k) for a in products]

        def multiply(places: slice, v: Any = v, flat: Any = flat) -> None:
            for a, out in zip(v, flat, strict=True):
                product(a[places], u[places], out[places])

        plans[0].by_place(multiply, len(together) == 1)
        for a, (_, plan, images) in zip(products, together, strict=True):
            _gather(plan, a, bias, y[images])


def _gather(plan: _Plan, products: np.ndarray, bias: np.ndarray | None, y: np.ndarray) -> None:
    """y = A' products A + bias.   products (p, p, rows, N, columns, K) -> into y (N, H, W, K)."""
    plan.by_image(lambda images: from_tiles(plan.variant, products[:, :, :, images], bias, y[images]), y)


def _correlate(plan: _Plan, x: np.ndarray, dy: np.ndarray, dweight: np.ndarray, add: bool) -> None:
    """dg = G' (sum over all tiles V * A dy A') G.   x (N, H, W, C), dy (N, H, W, K) of a block -> dweight (3, 3, C, K)."""
    variant, (c, k) = plan.variant, dweight.shape[2:]
    v, d = plan.spread(input_tiles, x, "v0").swapaxes(1, 2), plan.spread(gradient_tiles, dy, "products0")
    du, dg = scratch("u", variant.p**2, c, k), dweight.reshape(9, c, k)
    plan.by_place(lambda places: product(v[places], d[places], du[places]), True)

    def task(channels: slice) -> None:
        if add:
            more = scratch("g", 9, channels.stop - channels.start, k)
            filters(variant.g_of_u, du[:, channels], more)
            dg[:, channels] += more
        else:
            filters(variant.g_of_u, du[:, channels], dg[:, channels])

    _by_channels(c, task)
