"""3x3 convolution of stride 1 with zeros around, and its gradients, by Winograd's F(2x2, 3x3) and F(4x4, 3x3).

The transforms are in `tiles.py`. Here they are put together, a few images at a time: the images' tiles are made, then for
each of the p^2 places of a tile a matrix product, then images of the products. Threads divide the first and the last by
images, the products by places. The transformed weights are kept while they are the same.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
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
_CHANNELS = 64  # of a task
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
        return scratch(name, self.form.p, self.form.p, self.rows, n, self.columns, channels)

    def by_image(self, task: Callable[[slice], Any], n: int) -> None:
        """task(images i .. j) over n of them."""
        if self.alone:
            task(slice(0, n))
        else:
            each(n, lambda i: task(slice(i, i + 1)))

    def multiply(self, a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
        """out = a b for each place of a tile.   a (p^2, L, M), b (p^2, M, N) -> into out (p^2, L, N)."""
        if self.alone:
            product(a, b, out)
        else:
            p = self.form.p
            each(p, lambda i: product(a[i * p : (i + 1) * p], b[i * p : (i + 1) * p], out[i * p : (i + 1) * p]))

    def convolve(self, x: np.ndarray, u: np.ndarray, bias: np.ndarray | None, y: np.ndarray) -> None:
        """y = A' (U * B' d B) A + bias.   x (N, H, W, C) of a block, u (p^2, C, K) -> into y (N, H, W, K)."""
        places, c, k = u.shape
        n = len(x)
        v, products = self.tiles("v", n, c), self.tiles("products", n, k)
        self.by_image(lambda own: input_tiles(self.form, x[own], v[:, :, :, own]), n)
        self.multiply(v.reshape(places, -1, c), u, products.reshape(places, -1, k))
        self.by_image(lambda own: from_tiles(self.form, products[:, :, :, own], bias, y[own]), n)

    def correlate(self, x: np.ndarray, dy: np.ndarray, du: np.ndarray) -> np.ndarray:
        """du = sum over all tiles V * A dy A'.   x (N, H, W, C), dy (N, H, W, K) of a block -> du (p^2, C, K)."""
        places, c, k = du.shape
        n = len(x)
        v, d = self.tiles("v", n, c), self.tiles("products", n, k)

        def spread(own: slice) -> None:
            input_tiles(self.form, x[own], v[:, :, :, own])
            gradient_tiles(self.form, dy[own], d[:, :, :, own])

        self.by_image(spread, n)
        self.multiply(v.reshape(places, -1, c).swapaxes(1, 2), d.reshape(places, -1, k), du)
        return du


class Filters:
    """The transforms U of the filters of one operation, for each form, made when they are first asked for."""

    def __init__(self, weight: np.ndarray) -> None:
        self.weight = weight
        self._made: dict[tuple[str, int], np.ndarray] = {}

    @cached_property
    def g(self) -> np.ndarray:
        """(9, C, K)"""
        return contiguous(self.weight).reshape(9, *self.weight.shape[2:])

    def straight(self, form: Form) -> np.ndarray:
        """U = G g G'.   -> (p^2, C, K)"""
        name = "straight", form.m
        if name not in self._made:
            u = _transformed(form, self.weight)
            if u is None:
                u = _transform(form.u_of_g, self.g, scratch(f"{name}", form.p**2, *self.g.shape[1:]))
            self._made[name] = u
        return self._made[name]

    def turned(self, form: Form) -> np.ndarray:
        """U of the filters turned by half a turn, from channels out to channels in.   -> (p^2, K, C)"""
        name = "turned", form.m
        if name not in self._made:
            _, c, k = self.g.shape
            g, parts = scratch("g", 9, k, c), _parts(c)
            each(len(parts), lambda i: transposed(self.g[:, parts[i]], g[:, :, parts[i]]))
            self._made[name] = _transform(form.u_of_turned, g, scratch(f"{name}", form.p**2, k, c))
        return self._made[name]


def _transform(matrix: np.ndarray, g: np.ndarray, u: np.ndarray) -> np.ndarray:
    """u = matrix g for each pair of channels.   matrix (P, Q), g (Q, C, K) -> into u (P, C, K)."""
    parts = _parts(g.shape[1])
    each(len(parts), lambda i: filters(matrix, g[:, parts[i]], u[:, parts[i]]))
    return u


def _parts(channels: int) -> list[slice]:
    """Channels of a task."""
    return [slice(i, min(i + _CHANNELS, channels)) for i in range(0, channels, _CHANNELS)]


def convolve(form: Form, x: np.ndarray, weight: Filters, bias: np.ndarray | None, y: np.ndarray) -> None:
    """The convolution with zeros around.   x (N, H, W, C) -> into y (N, H, W, K)."""
    u = weight.straight(form)
    x, work = contiguous(x), _Work.of(form, x.shape, *u.shape[1:], u.shape[1])
    for images in work.blocks(len(x)):
        work.convolve(x[images], u, bias, y[images])


def gradients(
    form: Form, x: np.ndarray, weight: Filters, dy: np.ndarray, dx: np.ndarray, dweight: np.ndarray, add: bool
) -> None:
    """dx, the convolution of dy with the filters turned, and dg = G' (sum over all tiles V * A dy A') G.

    x (N, H, W, C), dy (N, H, W, K) -> into dx (N, H, W, C), dweight (3, 3, C, K), to which it is added if `add`.
    """
    u = weight.turned(form)
    places, k, c = u.shape
    x, dy, dg = contiguous(x), contiguous(dy), dweight.reshape(9, c, k)
    work = _Work.of(form, x.shape, c, k, c + k)
    blocks = work.blocks(len(x))
    if add and len(blocks) > 1:  # the sum of this half first: the order of sums is what makes their bits
        own = empty(dweight.shape)
        gradients(form, x, weight, dy, dx, own, add=False)
        dweight += own
        return
    for images in blocks:
        work.convolve(dy[images], u, None, dx[images])
        du = work.correlate(x[images], dy[images], scratch("du", places, c, k))
        if add:
            dg += _transform(form.g_of_u, du, scratch("g", 9, c, k))
        else:
            _transform(form.g_of_u, du, dg)
            add = True
