"""The transforms of Winograd's F(m x m, 3x3) [Winograd], for tiles of m = 2 or 4 outputs a side.

A tile of m x m outputs y sees p x p inputs d, p = m + 2. With the 3x3 filter g, * elementwise,

    y = A' (U * V) A,  U = G g G',  V = B' d B

takes p^2 products for m^2 outputs instead of 9 m^2: 4 an output for m = 2, 2.25 for m = 4, whose errors are a few times
larger. Each transform is two stacks of small matrix products, along the columns and along the rows, read from the image
and written to the tiles where they lie: nothing is gathered or padded, and a stack is one call that holds no lock.

An array of tiles is (p, p, rows of tiles, images, columns of tiles, C), so that what is done along a column is done for
all images at once.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from .runtime.memory import scratch

__all__ = ["FOUR", "TWO", "WinogradVariant", "filters", "from_tiles", "gradient_tiles", "input_tiles"]


class WinogradVariant(NamedTuple):
    """m; p; the matrices B' (p, p), A' (m, p) and A; and G on both sides, as a matrix from the 9 numbers of a filter to the
    p^2 of its transform, as one that first rotates the filter by 180 degrees, and as the transpose of the first."""

    m: int
    p: int
    b_t: np.ndarray
    a_t: np.ndarray
    a: np.ndarray
    u_of_g: np.ndarray
    u_of_rotated: np.ndarray
    g_of_u: np.ndarray

    @classmethod
    def of(cls, b_t: list[list[float]], g: list[list[float]], a_t: list[list[float]]) -> WinogradVariant:
        m, p = len(a_t), len(b_t)
        u_of_g = np.einsum("ia,jb->ijab", g, g).reshape(p * p, 9)
        matrices = b_t, a_t, np.transpose(a_t), u_of_g, u_of_g[:, ::-1], u_of_g.T
        return cls(m, p, *(np.ascontiguousarray(matrix, np.float32) for matrix in matrices))

    def grid(self, h: int, w: int) -> tuple[int, int]:
        """Rows and columns of tiles that cover an image of h x w."""
        return -(-h // self.m), -(-w // self.m)


TWO = WinogradVariant.of(
    b_t=[[1, 0, -1, 0],
         [0, 1, 1, 0],
         [0, -1, 1, 0],
         [0, 1, 0, -1]],
    g=[[1, 0, 0],
       [1 / 2, 1 / 2, 1 / 2],
       [1 / 2, -1 / 2, 1 / 2],
       [0, 0, 1]],
    a_t=[[1, 1, 1, 0],
         [0, 1, -1, -1]],
)  # fmt: skip

FOUR = WinogradVariant.of(
    b_t=[[4, 0, -5, 0, 1, 0],
         [0, -4, -4, 1, 1, 0],
         [0, 4, -4, -1, 1, 0],
         [0, -2, -1, 2, 1, 0],
         [0, 2, -1, -2, 1, 0],
         [0, 4, 0, -5, 0, 1]],
    g=[[1 / 4, 0, 0],
       [-1 / 6, -1 / 6, -1 / 6],
       [-1 / 6, 1 / 6, -1 / 6],
       [1 / 24, 1 / 12, 1 / 6],
       [1 / 24, -1 / 12, 1 / 6],
       [0, 0, 1]],
    a_t=[[1, 1, 1, 1, 1, 0],
         [0, 1, -1, 2, -2, 0],
         [0, 1, 1, 4, 4, 0],
         [0, 1, -1, 8, -8, 1]],
)  # fmt: skip


def filters(matrix: np.ndarray, g: np.ndarray, u: np.ndarray) -> None:
    """u = matrix g for each pair of channels.   matrix (P, Q), g (Q, C, K) -> into u (P, C, K)."""
    np.matmul(matrix, g.transpose(1, 0, 2), out=u.transpose(1, 0, 2))


def input_tiles(variant: WinogradVariant, x: np.ndarray, v: np.ndarray) -> None:
    """V = B' d B, with zeros around the image.   x (N, H, W, C), contiguous -> into v (p, p, rows, N, columns, C)."""
    _spread(variant.m, variant.b_t, 1, x, v)


def gradient_tiles(variant: WinogradVariant, dy: np.ndarray, d: np.ndarray) -> None:
    """A dy A'.   dy (N, H, W, K), contiguous -> into d (p, p, rows, N, columns, K)."""
    _spread(variant.m, variant.a, 0, dy, d)


def from_tiles(variant: WinogradVariant, products: np.ndarray, bias: np.ndarray | None, y: np.ndarray) -> None:
    """y = A' (U * V) A + bias.   products (p, p, rows, N, columns, K), which are overwritten -> into y (N, H, W, K),
    contiguous."""
    m, p, (n, h, w, k) = variant.m, variant.p, y.shape
    rows, columns = products.shape[2], products.shape[4]
    if bias is not None:
        products[1, 1] += bias  # the one place that A' and A pass to every output
    t = scratch("half", m, p, rows, n * columns * k)
    runs = products.reshape(p, p, rows, -1)
    np.matmul(variant.a_t, runs.transpose(1, 2, 0, 3), out=t.transpose(1, 2, 0, 3))
    t = t.reshape(m, p, rows, n, columns, k)
    image, row = h * w * k, w * k
    for r0, r1, _, down in _ends(h, m, m, 0):
        for s0, s1, _, across in _ends(w, m, m, 0):
            shape, steps = (down, n, r1 - r0, s1 - s0, across, k), (row, image, m * row, m * k, k, 1)
            tiles = _view(y, m * r0 * row + m * s0 * k, shape, steps)
            np.matmul(variant.a_t[:across], t[:down, :, r0:r1, :, s0:s1].transpose(0, 3, 2, 4, 1, 5), out=tiles)


def _spread(m: int, matrix: np.ndarray, pad: int, x: np.ndarray, v: np.ndarray) -> None:
    """matrix d matrix' of the tiles d of x: place i of tile r is row m r - pad + i of the image, or zeros outside."""
    n, h, w, c = x.shape
    p, q = matrix.shape
    rows, columns = v.shape[2], v.shape[4]
    t = scratch("half", p, h, n, columns, c)
    out = t.transpose(2, 1, 3, 0, 4)
    for s0, s1, lo, hi in _ends(w, m, q, pad):
        d = _view(x, (m * s0 - pad + lo) * c, (n, h, s1 - s0, hi - lo, c), (h * w * c, w * c, m * c, c, 1))
        np.matmul(matrix[:, lo:hi], d, out=out[:, :, s0:s1])
    row = n * columns * c
    out = v.reshape(p, p, rows, row).transpose(1, 2, 0, 3)
    for r0, r1, lo, hi in _ends(h, m, q, pad):
        shape, steps = (p, r1 - r0, hi - lo, row), (h * row, m * row, row, 1)
        np.matmul(matrix[:, lo:hi], _view(t, (m * r0 - pad + lo) * row, shape, steps), out=out[:, r0:r1])


@lru_cache(maxsize=512)
def _ends(length: int, m: int, places: int, pad: int) -> tuple[tuple[int, int, int, int], ...]:
    """(first tile, end, lo, hi): of tiles whose places lo .. hi of `places` lie in the image; the first and the last tile
    of a row may see less of it than the others."""
    ends: list[tuple[int, int, int, int]] = []
    for tile in range(-(-length // m)):
        lo, hi = max(0, pad - m * tile), min(places, length + pad - m * tile)
        if ends and ends[-1][2:] == (lo, hi):
            ends[-1] = ends[-1][0], tile + 1, lo, hi
        else:
            ends.append((tile, tile + 1, lo, hi))
    return tuple(ends)


def _view(a: np.ndarray, offset: int, shape: tuple[int, ...], steps: tuple[int, ...]) -> np.ndarray:
    """A view of a contiguous array; offset and steps in elements."""
    return np.ndarray(shape, np.float32, a, 4 * offset, tuple(4 * step for step in steps))
