"""3x3 convolution of stride 1 with zeros around, and its gradients, by Winograd's F(2x2, 3x3) and F(4x4, 3x3).

The transforms are in `tiles.py`. Here they are put together, a few images at a time: the images' tiles are made, then for
some of the channels that come out, for each of the p^2 places of a tile, one matrix product over the channels that go in.
Each of the two is divided among threads. The transformed weights are kept while they are the same.
"""

from __future__ import annotations

import threading
import weakref
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from .memory import contiguous, empty, scratch
from .products import product, transposed
from .tiles import FOUR, TWO, Form, filters, from_tiles, gradient_tiles, input_tiles
from .workers import each

__all__ = ["Filters", "choose", "convolve", "forget_weights", "gradients"]

_LARGE = 1 << 25  # multiplications; fewer are done by one thread
_BLOCK = 12 << 20  # bytes of tiles at a time, about
_CHANNELS = 256  # of a task, about
_KEPT = 128 << 20  # bytes of U that are kept, most
_TILES = 16  # fewer than this: m = 4 reads more weights than it saves


def choose(n: int, h: int, w: int) -> Form:
    """The form for such images: the one with fewer products, unless they are so few that reading U is what takes time."""
    (rows4, columns4), (rows2, columns2) = FOUR.grid(h, w), TWO.grid(h, w)
    return FOUR if 36 * rows4 * columns4 < 16 * rows2 * columns2 and n * rows4 * columns4 >= _TILES else TWO


# ---- transformed weights, kept while the weights are the same


class _Kept(NamedTuple):
    weight: weakref.ref
    state: tuple[Any, ...]
    u: np.ndarray | None  # None: seen once


_kept: dict[tuple[int, int], _Kept] = {}
_generation = 0
_lock = threading.Lock()


def forget_weights() -> None:
    """Call this after changing weights in place: what the engine has kept of their former values is not used again."""
    global _generation
    _generation += 1


def _transformed(form: Form, weight: np.ndarray) -> np.ndarray | None:
    """U = G g G' of the whole weight (3, 3, C, K) -> (p^2, C, K), or None where it is not worth keeping: U is made at the
    second forward with the same weight, while there is room. So sampling computes it no more, and training, where weights
    change each step, does not hold it for all layers at once.

    The same: the same array, `forget_weights` not called since, and a few numbers of it unchanged, so that an optimiser in
    place that calls no `forget_weights` is noticed.
    """
    name = id(weight), form.m
    c, k = weight.shape[2:]
    state = _generation, weight[1, 1, :: max(1, c // 8), :: max(1, k // 8)].tobytes()
    kept = _kept.get(name)
    seen = kept is not None and kept.weight() is weight and kept.state == state
    if seen and kept.u is not None:  # type: ignore[union-attr]
        return kept.u  # type: ignore[union-attr]
    u, held = None, sum(other.u.nbytes for other in list(_kept.values()) if other.u is not None)
    if seen and held + 4 * form.p**2 * c * k <= _KEPT:
        u = empty((form.p**2, c, k))
        filters(form.u_of_g, contiguous(weight).reshape(9, c, k), u)
        u.flags.writeable = False

    def drop(reference: Any) -> None:
        with _lock:
            if name in _kept and _kept[name].weight is reference:
                del _kept[name]

    with _lock:
        _kept[name] = _Kept(weakref.ref(weight, drop), state, u)
    return u


# ---- the convolution and its gradients


class _Work(NamedTuple):
    """How a convolution is divided: images of a block, and whether it is so little that one thread does it all."""

    form: Form
    rows: int
    columns: int
    images: int
    alone: bool

    @classmethod
    def of(cls, form: Form, shape: tuple[int, ...], c: int, k: int, arrays: int) -> _Work:
        """arrays: channels of all tiles that are made."""
        n, h, w, _ = shape
        rows, columns = form.grid(h, w)
        tiles, places = rows * columns, form.p**2
        blocks = max(1, min(n, -(-n * tiles * places * 4 * arrays // _BLOCK)))
        return cls(form, rows, columns, -(-n // blocks), places * n * tiles * c * k < _LARGE)

    def blocks(self, n: int) -> list[slice]:
        """Images of each block."""
        return [slice(i, min(i + self.images, n)) for i in range(0, n, self.images)]

    def tiles(self, name: str, n: int, channels: int) -> np.ndarray:
        """Working space for those of n images."""
        return scratch(name, self.form.p, self.form.p, n, self.rows, self.columns, channels)

    def parts(self, channels: int) -> list[slice]:
        """Channels of a task."""
        return [slice(0, channels)] if self.alone else _parts(channels)

    def by_image(self, task: Any, n: int) -> None:
        """task(images i .. j) over n of them."""
        if self.alone:
            task(slice(0, n))
        else:
            each(n, lambda i: task(slice(i, i + 1)))


class Filters:
    """The transforms U of the filters of one operation, for each form, made when they are first asked for.

    several: they are used for more than one block of images, so they are made whole; else None is given where they are
    not known yet, and each task makes those of its own channels, which then stay in its cache.
    """

    def __init__(self, weight: np.ndarray, several: bool) -> None:
        self.weight, self.several = weight, several
        self._made: dict[tuple[str, int], np.ndarray | None] = {}

    @cached_property
    def g(self) -> np.ndarray:
        """(9, C, K)"""
        return contiguous(self.weight).reshape(9, *self.weight.shape[2:])

    def straight(self, form: Form, several: bool) -> np.ndarray | None:
        """U = G g G'.   -> (p^2, C, K)"""
        name = "straight", form.m
        if name not in self._made:
            self._made[name] = _transformed(form, self.weight)
        if self._made[name] is None and (several or self.several):
            self._made[name] = self._whole(name, form, self.g, form.u_of_g)
        return self._made[name]

    def turned(self, form: Form, several: bool) -> np.ndarray | None:
        """U of the filters turned by half a turn, from channels out to channels in.   -> (p^2, K, C)"""
        name = "turned", form.m
        if name not in self._made and (several or self.several):
            _, c, k = self.g.shape
            g, parts = scratch("g", 9, k, c), _parts(c)
            each(len(parts), lambda i: transposed(self.g[:, parts[i]], g[:, :, parts[i]]))
            self._made[name] = self._whole(name, form, g, form.u_of_turned)
        return self._made.get(name)

    @staticmethod
    def _whole(name: tuple[str, int], form: Form, g: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        u, parts = scratch(f"{name}", form.p**2, *g.shape[1:]), _parts(g.shape[1])
        each(len(parts), lambda i: filters(matrix, g[:, parts[i]], u[:, parts[i]]))
        return u


def _parts(channels: int) -> list[slice]:
    """Channels of a task."""
    count = max(1, min(2, channels // 128), channels // _CHANNELS)
    return [slice(i * channels // count, (i + 1) * channels // count) for i in range(count)]


def convolve(form: Form, x: np.ndarray, weight: Filters, bias: np.ndarray | None, y: np.ndarray) -> None:
    """The convolution with zeros around.   x (N, H, W, C) -> into y (N, H, W, K)."""
    g = weight.g
    _, c, k = g.shape
    x, work = contiguous(x), _Work.of(form, x.shape, c, k, c)
    whole, parts = weight.straight(form, work.images < len(x)), work.parts(k)

    def convolve_block(x: np.ndarray, y: np.ndarray) -> None:
        v = work.tiles("v", len(x), c)

        def spread(own: slice) -> None:
            input_tiles(form, x[own], v[:, :, own])

        def multiply(i: int) -> None:
            own = parts[i]
            if whole is not None:
                u = whole[:, :, own]
            else:
                u = scratch("u", form.p**2, c, own.stop - own.start)
                filters(form.u_of_g, g[:, :, own], u)
            _convolution(form, v, u, bias, y, own.start)

        work.by_image(spread, len(x))
        each(len(parts), multiply, alone=work.alone)

    for images in work.blocks(len(x)):
        convolve_block(x[images], y[images])


def gradients(
    form: Form, x: np.ndarray, weight: Filters, dy: np.ndarray, dx: np.ndarray, dweight: np.ndarray, add: bool
) -> None:
    """dx, the convolution of dy with the filters turned, and dg = G' (sum over all tiles V * A dy A') G.

    x (N, H, W, C), dy (N, H, W, K) -> into dx (N, H, W, C), dweight (3, 3, C, K), to which it is added if `add`.
    """
    g = weight.g
    _, c, k = g.shape
    places, dg = form.p**2, dweight.reshape(9, c, k)
    x, dy, work = contiguous(x), contiguous(dy), _Work.of(form, x.shape, c, k, c + 2 * k)
    whole, parts = weight.turned(form, work.images < len(x)), work.parts(c)

    def block_gradients(x: np.ndarray, dy: np.ndarray, dx: np.ndarray, add: bool) -> None:
        v, d, e = (work.tiles(name, len(x), channels) for name, channels in (("v", c), ("d", k), ("e", k)))

        def spread(own: slice) -> None:
            input_tiles(form, x[own], v[:, :, own])
            gradient_tiles(form, dy[own], d[:, :, own])
            input_tiles(form, dy[own], e[:, :, own])

        def multiply(i: int) -> None:
            own = parts[i]
            channels = own.stop - own.start
            if whole is not None:
                u = whole[:, :, own]
            else:
                u = scratch("u", places, k, channels)
                filters(form.u_of_turned, transposed(g[:, own], scratch("g", 9, k, channels)), u)
            _convolution(form, e, u, None, dx, own.start)
            du = scratch("u", places, channels, k)
            product(v.reshape(places, -1, c)[:, :, own].swapaxes(1, 2), d.reshape(places, -1, k), du)
            if add:
                more = scratch("g", 9, channels, k)
                filters(form.g_of_u, du, more)
                dg[:, own] += more
            else:
                filters(form.g_of_u, du, dg[:, own])

        work.by_image(spread, len(x))
        each(len(parts), multiply, alone=work.alone)

    blocks = work.blocks(len(x))
    if add and len(blocks) > 1:  # the sum of this half first: the order of sums is what makes their bits
        own = empty(dweight.shape)
        gradients(form, x, weight, dy, dx, own, add=False)
        dweight += own
        return
    for images in blocks:
        block_gradients(x[images], dy[images], dx[images], add or images.start > 0)


def _convolution(form: Form, v: np.ndarray, u: np.ndarray, bias: np.ndarray | None, y: np.ndarray, first: int) -> None:
    """y = A' (U V) A + bias.   v (p, p, N, rows, columns, C), u (p^2, C, some of K) -> into y (N, H, W, K) from channel
    `first` on."""
    places, c, k = u.shape
    products = scratch("products", *v.shape[:5], k)
    product(v.reshape(places, -1, c), u, products.reshape(places, -1, k))
    from_tiles(form, products, bias, y, first)
