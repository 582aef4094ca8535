"""3x3 convolution of stride 1 with zeros around, and its gradients, by Winograd's F(2x2, 3x3) and F(4x4, 3x3).

The transforms are in `tiles.py`. Here they are put together: for each of the p^2 places of a tile one matrix product over
the channels, pieces of the batch small enough for a cache, and the transformed weights kept while they are the same.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .memory import empty, scratch
from .tiles import FOUR, TWO, Form, Piece, cut, transform, transform_back, transform_gradient
from .workers import each

__all__ = ["choose", "convolve", "forget_weights", "gradients", "transformed"]

_PIECE = 5 << 18  # bytes of V and of U * V in a piece, about: they should stay in a core's cache
_TILES = {2: 128, 4: 64}  # of a piece, least: a product of fewer rows is slow
_WORK = 1 << 24  # multiplications; fewer are done by one thread
_PIECES = 4  # fewer than this, and the products are divided instead
_BLOCK = 24 << 20  # bytes of V and A dy A' at a time in a gradient of the weight
_COLUMNS = 16384  # of a filter transform at a time
_FOUR_TILES = 128  # fewer tiles than this: m = 4 reads more weights than it saves

_turn = threading.Lock()  # one thread transforms while another multiplies: see `_convolution`


def choose(n: int, h: int, w: int) -> Form:
    """The form for such images."""
    return FOUR if h % 4 == w % 4 == 0 and n * h * w >= 16 * _FOUR_TILES else TWO


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


def transformed(form: Form, weight: np.ndarray, forward: bool = True) -> np.ndarray:
    """U = G g G', from another time if the weight is the same array and `forget_weights` was not called since.

    weight (3, 3, C, K) -> (p^2, C, K), read-only. U is kept from the second forward with the same weight on: sampling then
    computes it no more, and training, where weights change each step, does not hold it for all layers at once. A few
    numbers of the weight are compared too, so that an optimiser in place that calls no `forget_weights` is noticed.
    """
    name = id(weight), form.m
    c, k = weight.shape[2:]
    state = _generation, weight[1, 1, :: max(1, c // 8), :: max(1, k // 8)].tobytes()
    kept = _kept.get(name)
    seen = kept is not None and kept.weight() is weight and kept.state == state
    if seen and kept.u is not None:  # type: ignore[union-attr]
        return kept.u  # type: ignore[union-attr]
    u = _products(form.u_of_g, np.ascontiguousarray(weight).reshape(9, c * k), empty((form.p**2, c * k)))
    u = u.reshape(-1, c, k)
    u.flags.writeable = False
    if not forward:
        return u

    def drop(reference: Any) -> None:
        with _lock:
            if name in _kept and _kept[name].weight is reference:
                del _kept[name]

    with _lock:
        _kept[name] = _Kept(weakref.ref(weight, drop), state, u if seen else None)
    return u


def _products(matrix: np.ndarray, x: np.ndarray, out: np.ndarray) -> np.ndarray:
    """out = matrix x, for a small matrix and a long x."""

    def columns(i: int) -> None:
        own = slice(i * _COLUMNS, (i + 1) * _COLUMNS)
        np.matmul(matrix, x[:, own], out=out[:, own])

    each(-(-x.shape[1] // _COLUMNS), columns)
    return out


# ---- the convolution and its gradients


class _Tiles(NamedTuple):
    """How images with so many channels in and out are worked on."""

    form: Form
    rows: int
    columns: int
    pieces: list[Piece]
    small: bool  # too little to be divided among threads

    @classmethod
    def of(cls, form: Form, shape: tuple[int, ...], c: int, k: int) -> _Tiles:
        n, h, w, _ = shape
        rows, columns = -(-h // form.m), -(-w // form.m)
        pieces = cut(n, rows, columns, max(_TILES[form.m], _PIECE // (4 * form.p**2 * (c + k))))
        return cls(form, rows, columns, pieces, form.p**2 * n * rows * columns * c * k < 4 * _WORK)

    def number(self, first: int, last: int) -> int:
        """Of tiles in pieces first .. last."""
        a, b = self.pieces[first], self.pieces[last - 1]
        return b.first + (b.n1 - b.n0) * (b.r1 - b.r0) * self.columns - a.first

    def place(self, a: np.ndarray, piece: Piece, first: int = 0) -> np.ndarray:
        """Where a piece lies among all tiles.   a (p^2, tiles, C) -> (p, p, rows, columns, images, C)."""
        shape = piece.r1 - piece.r0, self.columns, piece.n1 - piece.n0
        start, p = piece.first - first, self.form.p
        return a[:, start : start + shape[0] * shape[1] * shape[2]].reshape(p, p, *shape, a.shape[2])


def _convolution(
    x: np.ndarray, u: np.ndarray, bias: np.ndarray | None, y: np.ndarray, tiles: _Tiles, flipped: bool = False
) -> Callable[[int], None]:
    """The task that makes piece i of y.

    Transforms are many short steps that each need the interpreter's lock; two threads at them would wake each other up
    all the time. So threads take turns, and one transforms while another multiplies.
    """
    form, columns = tiles.form, tiles.columns
    places = form.p, form.p

    def task(i: int) -> None:
        piece = tiles.pieces[i]
        shape = *places, piece.r1 - piece.r0, columns, piece.n1 - piece.n0
        v, m = scratch("v", *shape, x.shape[3]), scratch("m", *shape, y.shape[3])
        with _turn:
            transform(form, x, piece, columns, v, flipped)
        np.matmul(v.reshape(form.p**2, -1, x.shape[3]), u, out=m.reshape(form.p**2, -1, y.shape[3]))
        with _turn:
            transform_back(form, m, piece, columns, y, bias, flipped)

    return task


def _convolution_by_products(
    x: np.ndarray, u: np.ndarray, bias: np.ndarray | None, y: np.ndarray, tiles: _Tiles, flipped: bool = False
) -> None:
    """The same for few tiles of many channels, where the products are what can be divided."""
    form, columns, n = tiles.form, tiles.columns, x.shape[0] * tiles.rows * tiles.columns
    v, m = empty((form.p**2, n, x.shape[3])), empty((form.p**2, n, y.shape[3]))
    for piece in tiles.pieces:
        transform(form, x, piece, columns, tiles.place(v, piece), flipped)
    share = form.p**2 // _SHARES[form.m]
    parts = [slice(i, i + share) for i in range(0, form.p**2, share)]
    each(len(parts), lambda i: np.matmul(v[parts[i]], u[parts[i]], out=m[parts[i]]))
    for piece in tiles.pieces:
        transform_back(form, tiles.place(m, piece), piece, columns, y, bias, flipped)


_SHARES = {2: 8, 4: 9}  # in which the products are divided


def convolve(form: Form, x: np.ndarray, u: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """The convolution with zeros around, from x (N, H, W, C) and U (p^2, C, K) -> y (N, H, W, K)."""
    y = empty((*x.shape[:3], u.shape[2]))
    tiles = _Tiles.of(form, x.shape, *u.shape[1:])
    if tiles.small or len(tiles.pieces) >= _PIECES:
        each(len(tiles.pieces), _convolution(x, u, bias, y, tiles), alone=tiles.small)
    else:
        _convolution_by_products(x, u, bias, y, tiles)
    return y


def gradients(form: Form, x: np.ndarray, weight: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """dx, the convolution of dy with the filters flipped, and dg = G' (sum over all tiles V * A dy A') G.

    x (N, H, W, C), weight (3, 3, C, K), dy (N, H, W, K) -> dx (N, H, W, C), dg (3, 3, C, K).

    V and A dy A' are made for a block of tiles and then multiplied, while the next block is made; with the first block dx
    is made too, so that there is always something to multiply beside the transforms.
    """
    c, k = weight.shape[2:]
    places = form.p**2
    dx, du = empty(x.shape), empty((places, c, k))
    tiles = _Tiles.of(form, x.shape, c, k)
    pieces, columns = tiles.pieces, tiles.columns
    flipped = form.m == 2
    if flipped:
        u = transformed(form, weight, forward=False)
    else:
        flat = np.ascontiguousarray(weight).reshape(9, c * k)
        u = _products(np.ascontiguousarray(form.u_of_g[:, ::-1]), flat, empty((places, c * k))).reshape(places, c, k)
    u = u.swapaxes(1, 2)
    if tiles.small or len(pieces) >= _PIECES:
        convolution, others = _convolution(dy, u, None, dx, tiles, flipped), len(pieces)
    else:
        _convolution_by_products(dy, u, None, dx, tiles, flipped)
        convolution, others = lambda i: None, 0

    size = max(1, _BLOCK // (4 * places * (c + k) * tiles.number(0, 1)))  # pieces of a block
    size = min(size, -(-len(pieces) // 2)) if others else size
    parts = 1 if tiles.small else _SHARES[form.m]
    share = places // parts
    v = d = new_v = new_d = empty((0,))
    before = None
    for start in range(0, len(pieces) + size, size):
        own = range(start, min(start + size, len(pieces)))
        if own:
            number = tiles.number(own.start, own.stop)
            new_v, new_d = empty((places, number, c)), empty((places, number, k))

        def make(i: int, own: range = own, v: np.ndarray = new_v, d: np.ndarray = new_d) -> None:
            piece, first = pieces[own[i]], pieces[own[0]].first
            with _turn:
                transform(form, x, piece, columns, tiles.place(v, piece, first))
                transform_gradient(form, dy, piece, columns, tiles.place(d, piece, first))

        def multiply(i: int, fresh: bool = before == 0, v: np.ndarray = v, d: np.ndarray = d) -> None:
            part = slice(share * i, share * (i + 1))
            if fresh:
                np.matmul(v[part].swapaxes(1, 2), d[part], out=du[part])
            else:
                du[part] += np.matmul(v[part].swapaxes(1, 2), d[part], out=scratch("m", share, c, k))

        def task(
            i: int, made: int = len(own), others: int = others, make: Any = make, multiply: Any = multiply
        ) -> None:
            """Convolutions and transforms in turn, so that one thread can multiply while another transforms."""
            both = min(made, others)
            if i >= made + others:
                multiply(i - made - others)
            elif i < 2 * both:
                (make if i % 2 else convolution)(i // 2)
            else:
                (make if made > others else convolution)(i - both)

        each(len(own) + others + (0 if before is None else parts), task, alone=tiles.small)
        v, d, before, others = new_v, new_d, start, 0
    dg = np.empty((9, c * k), np.float32)
    return dx, _products(form.g_of_u, du.reshape(places, c * k), dg).reshape(3, 3, c, k)
