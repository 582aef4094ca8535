"""The transforms of Winograd's F(m x m, 3x3) [Winograd], for tiles of m = 2 or 4 outputs a side.

A tile of m x m outputs y sees p x p inputs d, p = m + 2. With the 3x3 filter g, * elementwise,

    y = A' (U * V) A,  U = G g G',  V = B' d B

takes p^2 products for m^2 outputs instead of 9 m^2: 4 an output for m = 2, 2.25 for m = 4, whose transforms are longer and
whose errors are a few times larger.

An array of tiles is (p, p, rows of tiles, columns of tiles, images, C), and columns of an image that differ by m lie
together, so that each step adds long contiguous rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from .memory import scratch

__all__ = ["FOUR", "TWO", "Form", "Piece", "cut", "transform", "transform_back", "transform_gradient"]

Arrays: TypeAlias = Sequence[np.ndarray] | np.ndarray  # one after the other
Step: TypeAlias = Callable[[Arrays, Arrays, Arrays], None]
_TWO, _FOUR = np.float32(2), np.float32(4)


class Form(NamedTuple):
    """m; the number of places p; the steps that B', A and A' are along one axis; and what makes U of g and g of U, as
    matrices from the 9 numbers of a filter to the p^2 of its transform and back."""

    m: int
    p: int
    into: Step
    gradient: Step
    back: Step
    u_of_g: np.ndarray
    g_of_u: np.ndarray


def _form(m: int, g: list[list[float]], sign: list[int], into: Step, gradient: Step, back: Step) -> Form:
    """sign: of the rows of A, where a step leaves it out."""
    u_of_g = np.einsum("ia,jb->ijab", g, g).reshape((m + 2) ** 2, 9)
    g_of_u = (u_of_g * np.outer(sign, sign).reshape(-1, 1)).T
    return Form(m, m + 2, into, gradient, back, u_of_g.astype(np.float32), np.ascontiguousarray(g_of_u, np.float32))


# ---- m = 2
#
#      1  0 -1  0          1    0    0
# B' = 0  1  1  0     G = 1/2  1/2  1/2    A' = 1  1  1  0
#      0 -1  1  0         1/2 -1/2  1/2         0  1 -1 -1
#      0  1  0 -1          0    0    1


def _into2(d: Arrays, out: Arrays, s: Arrays) -> None:
    """out = B' d."""
    np.subtract(d[0], d[2], out=out[0])
    np.add(d[1], d[2], out=out[1])
    np.subtract(d[2], d[1], out=out[2])
    np.subtract(d[1], d[3], out=out[3])


def _gradient2(d: Arrays, out: Arrays, s: Arrays) -> None:
    """out = A d, the last with the other sign."""
    np.copyto(out[0], d[0])
    np.add(d[0], d[1], out=out[1])
    np.subtract(d[0], d[1], out=out[2])
    np.copyto(out[3], d[1])


def _back2(m: Arrays, out: Arrays, s: Arrays) -> None:
    """out = A' m; m is overwritten."""
    np.add(m[1], m[2], out=s[0])
    m[1][...] -= m[2]
    np.add(s[0], m[0], out=out[0])
    np.subtract(m[1], m[3], out=out[1])


TWO = _form(
    2, [[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], [1, 1, 1, -1], _into2, _gradient2, _back2
)  # fmt: skip

# ---- m = 4
#
#      4  0 -5  0  1  0           1/4    0     0
#      0 -4 -4  1  1  0          -1/6  -1/6  -1/6         1  1  1  1  1  0
# B' = 0  4 -4 -1  1  0      G = -1/6   1/6  -1/6    A' = 0  1 -1  2 -2  0
#      0 -2 -1  2  1  0          1/24  1/12   1/6         0  1  1  4  4  0
#      0  2 -1 -2  1  0          1/24 -1/12   1/6         0  1 -1  8 -8  1
#      0  4  0 -5  0  1            0     0     1


def _into4(d: Arrays, out: Arrays, s: Arrays) -> None:
    """out = B' d."""
    even, odd = s[0], s[1]
    np.subtract(d[4], d[2], out=even)
    np.subtract(d[3], d[1], out=odd)
    odd *= _TWO
    np.add(even, odd, out=out[3])
    np.subtract(even, odd, out=out[4])
    np.subtract(d[0], d[2], out=out[0])
    out[0][...] *= _FOUR
    out[0][...] += even
    odd *= _TWO
    np.subtract(d[5], d[3], out=out[5])
    out[5][...] -= odd
    np.multiply(d[2], _FOUR, out=even)
    np.subtract(d[4], even, out=even)
    np.multiply(d[1], _FOUR, out=odd)
    np.subtract(d[3], odd, out=odd)
    np.add(even, odd, out=out[1])
    np.subtract(even, odd, out=out[2])


def _gradient4(d: Arrays, out: Arrays, s: Arrays) -> None:
    """out = A d."""
    even, odd = s[0], s[1]
    np.add(d[0], d[2], out=even)
    np.add(d[1], d[3], out=odd)
    np.add(even, odd, out=out[1])
    np.subtract(even, odd, out=out[2])
    np.multiply(d[2], _FOUR, out=even)
    even += d[0]
    np.multiply(d[3], _FOUR, out=odd)
    odd += d[1]
    odd *= _TWO
    np.add(even, odd, out=out[3])
    np.subtract(even, odd, out=out[4])
    np.copyto(out[0], d[0])
    np.copyto(out[5], d[3])


def _back4(m: Arrays, out: Arrays, s: Arrays) -> None:
    """out = A' m; m is overwritten."""
    m0, m1, m2, m3, m4, m5 = m
    even = s[0]
    np.add(m1, m2, out=even)
    m1 -= m2
    np.add(m3, m4, out=m2)
    m3 -= m4
    m0 += m2
    np.add(m0, even, out=out[0])
    m3 *= _TWO
    np.add(m1, m3, out=out[1])
    m2 *= _FOUR
    np.add(even, m2, out=out[2])
    m3 *= _FOUR
    m3 += m5
    np.add(m1, m3, out=out[3])


FOUR = _form(
    4,
    [[1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6], [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6],
     [0, 0, 1]],
    [1] * 6, _into4, _gradient4, _back4,
)  # fmt: skip


# ---- pieces of a batch of images


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


def _apart(x: np.ndarray, piece: Piece, columns: int, m: int, pad: int) -> np.ndarray:
    """The rows of x that a piece sees, with `pad` zeros around; place i of the first axis has columns i - pad, i - pad + m,
    i - pad + 2 m ...   x (N, H, W, C) -> (m, m rows + 2 pad, columns + pad, images, C), pad 0 or 1.
    """
    n0, n1, r0, r1, _ = piece
    _, h, w, c = x.shape
    d = scratch("image", m, m * (r1 - r0) + 2 * pad, columns + pad, n1 - n0, c)
    top, bottom = m * r0 - pad, m * r1 + pad
    first, last = max(top, 0), min(bottom, h)
    d[:, : first - top] = 0
    d[:, last - top :] = 0
    own = d[:, first - top : last - top]
    rows = x[n0:n1, first:last].transpose(1, 2, 0, 3)
    for i in range(m):
        start = (i - pad) % m  # the first of these columns that exists
        before = int(i < pad)  # columns of zeros before it
        count = len(range(start, w, m))
        if before:
            own[i, :, :before] = 0
        own[i, :, before : before + count] = rows[:, start::m]
        if before + count < columns + pad:
            own[i, :, before + count :] = 0
    return d


def transform(form: Form, x: np.ndarray, piece: Piece, columns: int, v: np.ndarray, flipped: bool = False) -> None:
    """V = B' d B.   x (N, H, W, C) -> v (p, p, rows, columns, images, C).

    flipped, m = 2 alone: in the order that makes U that of the flipped filter: flipping g swaps the first and last row and
    column of U.
    """
    m, p = form.m, form.p
    d = _apart(x, piece, columns, m, 1)
    rows, order = piece.r1 - piece.r0, _order(form, flipped)
    t = scratch("rows", p, m, rows, *d.shape[2:])
    s = () if m == 2 else scratch("steps", 2, *t.shape[1:])
    form.into([d[:, k : k + m * rows : m] for k in range(p)], [t[i] for i in order], s)
    sources = [t[:, k, :, :-1] if k < m else t[:, k - m, :, 1:] for k in range(p)]
    s = () if m == 2 else scratch("steps", 2, *v[:, 0].shape)
    form.into(sources, [v[:, i] for i in order], s)


def transform_gradient(form: Form, dy: np.ndarray, piece: Piece, columns: int, v: np.ndarray) -> None:
    """A dy A'.   dy (N, H, W, K) -> v (p, p, rows, columns, images, K)."""
    m, p = form.m, form.p
    d = _apart(dy, piece, columns, m, 0)
    t = scratch("rows", p, m, piece.r1 - piece.r0, *d.shape[2:])
    s = () if m == 2 else scratch("steps", 2, *t.shape[1:])
    form.gradient([d[:, k::m] for k in range(m)], list(t), s)
    s = () if m == 2 else scratch("steps", 2, *v[:, 0].shape)
    form.gradient([t[:, k] for k in range(m)], [v[:, i] for i in range(p)], s)


def transform_back(
    form: Form, m: np.ndarray, piece: Piece, columns: int, y: np.ndarray, bias: np.ndarray | None, flipped: bool = False
) -> None:
    """y = A' m A + bias.   m (p, p, rows, columns, images, K), which is overwritten -> into y (N, H, W, K)."""
    n0, n1, r0, r1, _ = piece
    side, order = form.m, _order(form, flipped)
    if bias is not None:
        m[1, 1] += bias  # the one place that A' and A pass to every output
    t = scratch("back", side, *m.shape[1:])
    form.back([m[i] for i in order], list(t), scratch("steps", 1, *m.shape[1:]))
    s = scratch("steps", 1, *t[:, 0].shape)
    _, h, w, k = y.shape
    if h % side == w % side == 0:
        tiles = y[n0:n1, side * r0 : side * r1].reshape(n1 - n0, r1 - r0, side, columns, side, k)
        form.back([t[:, i] for i in order], list(tiles.transpose(4, 2, 1, 3, 0, 5)), s)
        return
    parts = scratch("image", side, *t[:, 0].shape)
    form.back([t[:, i] for i in order], list(parts), s)
    for j, part in enumerate(parts):
        for i in range(side):
            out = y[n0:n1, side * r0 + i : side * r1 : side, j::side].transpose(1, 2, 0, 3)
            out[...] = part[i, : out.shape[0], : out.shape[1]]


def _order(form: Form, flipped: bool) -> Sequence[int]:
    return (3, 1, 2, 0) if flipped else range(form.p)
