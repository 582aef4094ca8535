"""3x3 convolution of stride 1 in 16 products instead of 36: Winograd's F(2x2, 3x3) [Winograd].

A tile of 2x2 outputs y sees 4x4 inputs d. With the 3x3 filter g, * elementwise and one matrix product over the channels
for each of the 16 places,

    y = A' (U * V) A,  U = G g G',  V = B' d B

         1  0 -1  0          1    0    0
    B' = 0  1  1  0     G = 1/2  1/2  1/2    A' = 1  1  1  0
         0 -1  1  0         1/2 -1/2  1/2         0  1 -1 -1
         0  1  0 -1          0    0    1

The gradient of x is the convolution of dy with the filter flipped; flipping g only swaps the first and last row and column
of U, so U serves both ways. The gradient of g is G' (V * A dy A') G.

Inside, an array of tiles is (4, 4, rows of tiles, columns of tiles, images, C), and even and odd columns of an image are
held apart, so that each step is an addition of long contiguous rows.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .memory import empty, scratch
from .threads import each

__all__ = ["Piece", "convolve", "cut", "forget_weights", "gradients", "transformed"]

_G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
_GG = np.einsum("ia,jb->ijab", _G, _G).reshape(16, 9)
_U_OF_G = _GG.astype(np.float32)
_SIGN = np.array([1, 1, 1, -1])  # the last row of A is used as +1
_G_OF_U = np.ascontiguousarray((_GG * np.outer(_SIGN, _SIGN).reshape(16, 1)).T, np.float32)
_STRAIGHT, _FLIPPED = (0, 1, 2, 3), (3, 1, 2, 0)

_PIECE = 5 << 18  # bytes of V and of U * V in a piece, about: they should stay in a core's cache
_TILES = 96  # of a piece, least: a product of fewer rows is slow
_WORK = 1 << 24  # multiplications; fewer are done by one thread
_PIECES = 4  # fewer than this, and the 16 products are divided instead
_BLOCK = 24 << 20  # bytes of V and A dy A' at a time in a gradient of the weight
_COLUMNS = 16384  # of a filter transform at a time


class Piece(NamedTuple):
    """Images n0 .. n1 and of them the rows of tiles r0 .. r1; first: the number of tiles before."""

    n0: int
    n1: int
    r0: int
    r1: int
    first: int


def cut(n: int, rows: int, columns: int, most: int) -> list[Piece]:
    """n images of rows x columns tiles in pieces of about `most` tiles: several images, or rows of one."""
    if rows * columns > most:
        parts = -(-rows * columns // most)
        height = max(1, -(-rows // parts))
        bands = [(i, i + 1, r, min(r + height, rows)) for i in range(n) for r in range(0, rows, height)]
    else:
        parts = -(-n * rows * columns // most)
        images = -(-n // parts)
        bands = [(i, min(i + images, n), 0, rows) for i in range(0, n, images)]
    pieces, first = [], 0
    for n0, n1, r0, r1 in bands:
        pieces.append(Piece(n0, n1, r0, r1, first))
        first += (n1 - n0) * (r1 - r0) * columns
    return pieces


# ---- transformed weights, kept while the weights are the same


_kept: dict[int, tuple[Any, int, bytes, np.ndarray]] = {}
_generation = 0
_lock = threading.Lock()
_turn = threading.Lock()  # one thread transforms while another multiplies: see `convolve`


def forget_weights() -> None:
    """Call this after changing weights in place: what the engine has kept of their former values is not used again."""
    global _generation
    _generation += 1


def transformed(weight: np.ndarray) -> np.ndarray:
    """U = G g G', from the last time if the weight is the same array and `forget_weights` was not called since.

    weight (3, 3, C, K) -> (16, C, K).
    """
    name, some = id(weight), weight[1, 1, :: max(1, weight.shape[2] // 8), :: max(1, weight.shape[3] // 8)].tobytes()
    kept = _kept.get(name)
    if kept is not None and kept[0]() is weight and kept[1:3] == (_generation, some):
        return kept[3]
    c, k = weight.shape[2:]
    u, flat = empty((16, c * k)), np.ascontiguousarray(weight).reshape(9, c * k)

    def columns(i: int) -> None:
        own = slice(i * _COLUMNS, (i + 1) * _COLUMNS)
        np.matmul(_U_OF_G, flat[:, own], out=u[:, own])

    each(-(-c * k // _COLUMNS), columns)
    u = u.reshape(16, c, k)
    u.flags.writeable = False

    def drop(reference: Any) -> None:
        with _lock:
            if name in _kept and _kept[name][0] is reference:
                del _kept[name]

    with _lock:
        _kept[name] = weakref.ref(weight, drop), _generation, some, u
    return u


# ---- transforms of a piece


def _columns_apart(x: np.ndarray, piece: Piece, columns: int, pad: int) -> np.ndarray:
    """The rows of x that a piece sees, zeros around, columns -pad, 2 - pad, ... before columns 1 - pad, 3 - pad, ...

    x (N, H, W, C) -> (2, 2 rows + 2 pad, columns + pad, images, C), pad 0 or 1.
    """
    n0, n1, r0, r1, _ = piece
    _, h, w, c = x.shape
    d = scratch("image", 2, 2 * (r1 - r0) + 2 * pad, columns + pad, n1 - n0, c)
    top, bottom = 2 * r0 - pad, 2 * r1 + pad
    first, last = max(top, 0), min(bottom, h)
    d[:, : first - top] = 0
    d[:, last - top :] = 0
    own = d[:, first - top : last - top]
    rows = x[n0:n1, first:last].transpose(1, 2, 0, 3)
    for parity in (0, 1):
        start = (parity - pad) % 2  # of the columns with this parity, the first that exists
        before = int(start > parity - pad)  # columns of zeros before it
        count = len(range(start, w, 2))
        own[parity, :, :before] = 0
        own[parity, :, before : before + count] = rows[:, start::2]
        own[parity, :, before + count :] = 0
    return d


def _transform(x: np.ndarray, piece: Piece, columns: int, v: np.ndarray, order: tuple[int, ...]) -> None:
    """V = B' d B, its rows and columns in this order.   x (N, H, W, C) -> v (4, 4, rows, columns, images, C)."""
    d = _columns_apart(x, piece, columns, 1)
    rows, (i0, i1, i2, i3) = piece.r1 - piece.r0, order
    d0, d1, d2, d3 = (d[:, k : k + 2 * rows : 2] for k in range(4))
    t = scratch("rows", 4, *d0.shape)
    np.subtract(d0, d2, out=t[i0])
    np.add(d1, d2, out=t[i1])
    np.subtract(d2, d1, out=t[i2])
    np.subtract(d1, d3, out=t[i3])
    t0, t1 = t[:, 0, :, :-1], t[:, 1, :, :-1]
    t2, t3 = t[:, 0, :, 1:], t[:, 1, :, 1:]
    np.subtract(t0, t2, out=v[:, i0])
    np.add(t1, t2, out=v[:, i1])
    np.subtract(t2, t1, out=v[:, i2])
    np.subtract(t1, t3, out=v[:, i3])


def _transform_gradient(dy: np.ndarray, piece: Piece, columns: int, v: np.ndarray) -> None:
    """A dy A', but for the sign of the last row and column.   dy (N, H, W, K) -> v (4, 4, rows, columns, images, K)."""
    d = _columns_apart(dy, piece, columns, 0)
    d0, d1 = d[:, 0::2], d[:, 1::2]
    t = scratch("rows", 2, *d0.shape)
    np.add(d0, d1, out=t[0])
    np.subtract(d0, d1, out=t[1])
    for i, row in ((0, d0), (1, t[0]), (2, t[1]), (3, d1)):
        np.copyto(v[i, 0], row[0])
        np.add(row[0], row[1], out=v[i, 1])
        np.subtract(row[0], row[1], out=v[i, 2])
        np.copyto(v[i, 3], row[1])


def _transform_back(
    m: np.ndarray, piece: Piece, columns: int, y: np.ndarray, bias: np.ndarray | None, order: tuple[int, ...]
) -> None:
    """y = A' m A + bias.   m (4, 4, rows, columns, images, K), which is overwritten -> into y (N, H, W, K)."""
    n0, n1, r0, r1, _ = piece
    m0, m1, m2, m3 = (m[i] for i in order)
    if bias is not None:
        m1[1] += bias  # the one place that A' and A pass to all four outputs
    s = scratch("back", 2, *m1.shape)
    np.add(m1, m2, out=s[0])
    s[0] += m0
    np.subtract(m1, m2, out=s[1])
    s[1] -= m3
    s0, s1, s2, s3 = (s[:, i] for i in order)
    s0 += s1
    s1 -= s2
    _, h, w, k = y.shape
    if h % 2 == w % 2 == 0:
        tiles = y[n0:n1, 2 * r0 : 2 * r1].reshape(n1 - n0, r1 - r0, 2, columns, 2, k).transpose(4, 2, 1, 3, 0, 5)
        np.add(s0, s2, out=tiles[0])
        np.subtract(s1, s3, out=tiles[1])
        return
    s0 += s2
    s1 -= s3
    for i in (0, 1):
        for j, part in ((0, s0), (1, s1)):
            out = y[n0:n1, 2 * r0 + i : 2 * r1 : 2, j::2].transpose(1, 2, 0, 3)
            out[...] = part[i, : out.shape[0], : out.shape[1]]


# ---- the convolution and its gradients


class _Tiles(NamedTuple):
    """How an image of so many channels in and out is worked on."""

    rows: int
    columns: int
    pieces: list[Piece]
    small: bool  # too little to be divided among threads

    def number(self, first: int, last: int) -> int:
        """Of tiles in pieces first .. last."""
        a, b = self.pieces[first], self.pieces[last - 1]
        return b.first + (b.n1 - b.n0) * (b.r1 - b.r0) * self.columns - a.first


def _tiles(shape: tuple[int, ...], c: int, k: int) -> _Tiles:
    n, h, w, _ = shape
    rows, columns = -(-h // 2), -(-w // 2)
    pieces = cut(n, rows, columns, max(_TILES, _PIECE // (64 * (c + k))))
    return _Tiles(rows, columns, pieces, 4 * n * rows * columns * c * k < _WORK)


def _place(a: np.ndarray, piece: Piece, columns: int, first: int = 0) -> np.ndarray:
    """Where the tiles of a piece lie in all of them.   a (16, tiles, C) -> (4, 4, rows, columns, images, C)."""
    shape = piece.r1 - piece.r0, columns, piece.n1 - piece.n0
    start = piece.first - first
    return a[:, start : start + shape[0] * shape[1] * shape[2]].reshape(4, 4, *shape, a.shape[2])


def _convolution(
    x: np.ndarray, u: np.ndarray, bias: np.ndarray | None, y: np.ndarray, tiles: _Tiles, order: tuple[int, ...]
) -> Callable[[int], None]:
    """The task that makes piece i of y.

    Transforms are many short steps that each need the interpreter's lock; two threads at them would wake each other up
    all the time. So threads take turns, and one transforms while another multiplies.
    """

    def task(i: int) -> None:
        piece = tiles.pieces[i]
        shape = piece.r1 - piece.r0, tiles.columns, piece.n1 - piece.n0
        v, m = scratch("v", 4, 4, *shape, x.shape[3]), scratch("m", 4, 4, *shape, y.shape[3])
        with _turn:
            _transform(x, piece, tiles.columns, v, order)
        np.matmul(v.reshape(16, -1, x.shape[3]), u, out=m.reshape(16, -1, y.shape[3]))
        with _turn:
            _transform_back(m, piece, tiles.columns, y, bias, order)

    return task


def _convolution_by_products(
    x: np.ndarray, u: np.ndarray, bias: np.ndarray | None, y: np.ndarray, tiles: _Tiles, order: tuple[int, ...]
) -> None:
    """The same for few tiles of many channels, where the 16 products are what can be divided."""
    n = x.shape[0] * tiles.rows * tiles.columns
    v, m = empty((16, n, x.shape[3])), empty((16, n, y.shape[3]))
    for piece in tiles.pieces:
        _transform(x, piece, tiles.columns, _place(v, piece, tiles.columns), order)
    each(8, lambda i: np.matmul(v[2 * i : 2 * i + 2], u[2 * i : 2 * i + 2], out=m[2 * i : 2 * i + 2]))
    for piece in tiles.pieces:
        _transform_back(_place(m, piece, tiles.columns), piece, tiles.columns, y, bias, order)


def convolve(x: np.ndarray, u: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """The convolution with zeros around, from x (N, H, W, C) and U (16, C, K) -> y (N, H, W, K)."""
    y = empty((*x.shape[:3], u.shape[2]))
    tiles = _tiles(x.shape, *u.shape[1:])
    if tiles.small or len(tiles.pieces) >= _PIECES:
        each(len(tiles.pieces), _convolution(x, u, bias, y, tiles, _STRAIGHT), alone=tiles.small)
    else:
        _convolution_by_products(x, u, bias, y, tiles, _STRAIGHT)
    return y


def gradients(x: np.ndarray, u: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """dx, the convolution of dy with the filters flipped, and dg = G' (sum over all tiles V * A dy A') G.

    x (N, H, W, C), U (16, C, K), dy (N, H, W, K) -> dx (N, H, W, C), dg (3, 3, C, K).

    V and A dy A' are made for a block of tiles and then multiplied, while the next block is made; with the first block dx
    is made too, so that there is always something to multiply beside the transforms.
    """
    c, k = u.shape[1:]
    dx, du = empty(x.shape), empty((16, c, k))
    tiles = _tiles(x.shape, c, k)
    pieces, columns = tiles.pieces, tiles.columns
    back = u.swapaxes(1, 2)
    if tiles.small or len(pieces) >= _PIECES:
        convolution, others = _convolution(dy, back, None, dx, tiles, _FLIPPED), len(pieces)
    else:
        _convolution_by_products(dy, back, None, dx, tiles, _FLIPPED)
        convolution, others = None, 0

    size = max(1, _BLOCK // (64 * (c + k) * tiles.number(0, 1)))  # pieces of a block
    parts = 1 if tiles.small else 8
    v = d = before = None
    for start in range(0, len(pieces) + size, size):
        own = range(start, min(start + size, len(pieces)))
        if own:
            number = tiles.number(own.start, own.stop)
            new_v, new_d = empty((16, number, c)), empty((16, number, k))

        def transform(i: int, own: range = own) -> None:
            piece, first = pieces[own[i]], pieces[own[0]].first
            with _turn:
                _transform(x, piece, columns, _place(new_v, piece, columns, first), _STRAIGHT)
                _transform_gradient(dy, piece, columns, _place(new_d, piece, columns, first))

        def product(i: int, fresh: bool = before == 0) -> None:
            part = slice(16 // parts * i, 16 // parts * (i + 1))
            if fresh:
                np.matmul(v[part].swapaxes(1, 2), d[part], out=du[part])
            else:
                du[part] += np.matmul(v[part].swapaxes(1, 2), d[part], out=scratch("m", 16 // parts, c, k))

        def task(i: int, own: range = own) -> None:
            if i < len(own):
                transform(i)
            elif i < len(own) + others:
                convolution(i - len(own))
            else:
                product(i - len(own) - others)

        each(len(own) + others + (0 if before is None else parts), task, alone=tiles.small)
        v, d, before, others = new_v, new_d, start, 0
    return dx, _filters(du).reshape(3, 3, c, k)


def _filters(du: np.ndarray) -> np.ndarray:
    """dg = G' du G.   (16, C, K) -> (9, C K), fresh."""
    flat = du.reshape(16, -1)
    dg = np.empty((9, flat.shape[1]), np.float32)

    def columns(i: int) -> None:
        own = slice(i * _COLUMNS, (i + 1) * _COLUMNS)
        np.matmul(_G_OF_U, flat[:, own], out=dg[:, own])

    each(-(-flat.shape[1] // _COLUMNS), columns)
    return dg
