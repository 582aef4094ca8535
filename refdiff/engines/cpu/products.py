"""Stacks of matrix products, in blocks that OpenBLAS multiplies where they lie.

Up to a million multiplications OpenBLAS (of x86-64 with AVX-512, and of AArch64 with SVE) copies neither factor into
panels of its own, which for matrices of some hundred rows takes a quarter of the time. Other processors lose little.
"""

from __future__ import annotations

import numpy as np

__all__ = ["product", "times_column", "transposed"]

SMALL = 1_000_000  # multiplications, most
_WIDE = 64  # columns of a block
_BAND = 32  # columns that are transposed together


def product(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """out = a b.   a (P, M, K), b (P, K, N) -> into out (P, M, N), all of any strides."""
    m, k, n = *a.shape[1:], b.shape[2]
    width = _WIDE if n % _WIDE == 0 else _WIDE // 2
    height = 32 if 32 * width * k <= SMALL else 16
    if n % width or m < height or height * width * k > SMALL or m * n * k <= SMALL:
        np.matmul(a, b, out=out)
        return
    rows = m // height * height
    left = a[:, :rows].reshape(len(a), -1, 1, height, k)
    right = b.reshape(len(a), 1, k, -1, width).swapaxes(2, 3)
    np.matmul(left, right, out=out[:, :rows].reshape(len(a), -1, height, n // width, width).swapaxes(2, 3))
    if rows < m:
        np.matmul(a[:, rows:], b, out=out[:, rows:])


def times_column(a: np.ndarray, column: np.ndarray) -> np.ndarray:
    """a column, of matrices (..., M, K) and a column (K, 1), without the warning of an invalid value that OpenBLAS 0.3.31
    on AVX-512 now and then causes here, where all values are finite and the result is right."""
    with np.errstate(invalid="ignore"):
        return a @ column


def transposed(a: np.ndarray, out: np.ndarray) -> np.ndarray:
    """out = each matrix of a transposed.   a (P, M, N) -> out (P, N, M). Some rows of a at a time: they stay in cache."""
    for i in range(0, a.shape[1], _BAND):
        np.copyto(out[:, :, i : i + _BAND], a[:, i : i + _BAND].swapaxes(1, 2))
    return out
