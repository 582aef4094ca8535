"""Group norm, alone or with what follows it in a residual block, and layer norm. The equations: the reference's `norm.py`.

An image (P positions, C channels) is worked on a band of rows at a time, and a row is `fold` positions side by side, so
that what differs by channel alone is added to long rows. Sums over positions are products with ones; from the L = fold C
sums of a row to the groups and back they are products with a matrix of zeros and ones.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ..reference.structure import Gradients
from .activation import times_slope
from .division import halves
from .memory import empty, scratch
from .profile import operation

__all__ = [
    "adaptive_group_norm_silu", "adaptive_group_norm_silu_backward", "group_norm", "group_norm_backward",
    "group_norm_silu", "group_norm_silu_backward",
]  # fmt: skip

_LONG = 128  # elements of a row, most
_BAND = 1 << 16  # elements of a band, about
_HALF, _ONE = np.float32(0.5), np.float32(1)


class _Saved(NamedTuple):
    """x (N, ..., C); mean and 1 / sd of each sample's groups, spread over a row (N, 1, L); a, b (N or 1, 1, L) such that
    y = f(a xhat + b)."""

    x: np.ndarray
    mean: np.ndarray
    inverse: np.ndarray
    a: np.ndarray
    b: np.ndarray
    groups: int
    silu: bool


@lru_cache(maxsize=256)
def _membership(channels: int, groups: int, fold: int) -> tuple[np.ndarray, np.ndarray]:
    """E[l, g] = 1 where place l of a row belongs to group g (L, G), and its transpose."""
    e = np.tile(np.repeat(np.eye(groups, dtype=np.float32), channels // groups, axis=0), (fold, 1))
    return e, np.ascontiguousarray(e.T)


@lru_cache(maxsize=64)
def _ones(n: int) -> np.ndarray:
    return np.ones((1, n), np.float32)


def _fold(positions: int, channels: int) -> int:
    """Positions in a row: a power of two that divides them."""
    fold = 1
    while positions % (2 * fold) == 0 and 2 * fold * channels <= _LONG:
        fold *= 2
    return fold


def _division(n: int, rows: int, length: int) -> tuple[list[slice], list[slice]]:
    """The samples of each task, and the bands of rows it goes through."""
    most, height = max(1, _BAND // (rows * length)), max(1, _BAND // length)
    tasks = [slice(i, min(i + most, half.stop)) for half in halves(n) for i in range(half.start, half.stop, most)]
    return tasks, [slice(r, min(r + height, rows)) for r in range(0, rows, height)]


def _spread(x: np.ndarray, fold: int) -> np.ndarray:
    """(C,) or (N, C) -> (1 or N, 1, L)."""
    x = x.reshape(-1, 1, 1, x.shape[-1])
    return np.broadcast_to(x, (len(x), 1, fold, x.shape[3])).reshape(len(x), 1, -1)


def _sums(bands: list[slice], n: int, length: int, band: Any) -> np.ndarray:
    """The sums over all rows of what band(rows) gives, (n, rows, L) -> (n, 1, L)."""
    total = None
    for rows in bands:
        part = np.matmul(_ones(rows.stop - rows.start), band(rows))
        total = part if total is None else np.add(total, part, out=total)
    assert total is not None
    return total


def _normalise(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, groups: int, epsilon: float, silu: bool
) -> tuple[np.ndarray, _Saved]:
    """y = f(weight xhat + bias), f silu or nothing.   weight and bias (C,) or (N, C)."""
    n, c = len(x), x.shape[-1]
    assert c % groups == 0, f"group_norm: {c} channels do not divide into {groups} groups"
    positions = x.size // (n * c) if x.size else 1
    fold = _fold(positions, c)
    shape = n, positions // fold, fold * c
    length = shape[2]
    e, e_back = _membership(c, groups, fold)
    over = np.float32(groups / (positions * c))
    y, mean, inverse = empty(x.shape), np.empty((n, 1, length), np.float32), np.empty((n, 1, length), np.float32)
    a, b = _spread(weight, fold), _spread(bias, fold)
    source, target = x.reshape(shape), y.reshape(shape)
    tasks, bands = _division(*shape)

    def task(own: slice) -> None:
        part, out = source[own], target[own]
        sums = _sums(bands, len(part), length, lambda rows: part[:, rows])
        np.matmul(np.matmul(sums[:, 0], e) * over, e_back, out=mean[own, 0])

        def centred(rows: slice) -> np.ndarray:
            return np.subtract(part[:, rows], mean[own], out=scratch("c", *part[:, rows].shape))

        def square(rows: slice) -> np.ndarray:
            d = centred(rows)
            return np.multiply(d, d, out=scratch("u", *d.shape))

        variance = np.matmul(_sums(bands, len(part), length, square)[:, 0], e) * over
        variance += np.float32(epsilon)
        np.matmul(_ONE / np.sqrt(variance), e_back, out=inverse[own, 0])
        scale, shift = inverse[own] * (a[own] if len(a) > 1 else a), b[own] if len(b) > 1 else b
        if silu:
            scale, shift = scale * _HALF, shift * _HALF
        for rows in bands:
            u = centred(rows) if len(bands) > 1 else scratch("c", *part.shape)  # of one band it is still there
            u *= scale
            z = out[:, rows]
            if not silu:
                np.add(u, shift, out=z)
                continue
            u += shift
            np.tanh(u, out=z)
            z += _ONE
            z *= u

    for own in tasks:
        task(own)
    return y, _Saved(x, mean, inverse, a, b, groups, silu)


def _normalise_backward(dy: np.ndarray, saved: _Saved) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """dx, and of z = a xhat + b in each sample: sum dz xhat and sum dz over positions, (N, C) both."""
    x, mean, inverse, a, b, groups, silu = saved
    n, c = len(x), x.shape[-1]
    length = mean.shape[2]
    fold = length // c
    positions = x.size // (n * c) if x.size else 1
    shape = n, positions // fold, length
    e, e_back = _membership(c, groups, fold)
    over = np.float32(groups / (positions * c))
    dx, da, db = empty(x.shape), np.empty((n, 1, length), np.float32), np.empty((n, 1, length), np.float32)
    source, above, target = x.reshape(shape), dy.reshape(shape), dx.reshape(shape)
    tasks, bands = _division(*shape)

    def task(own: slice) -> None:
        part, dpart, out = source[own], above[own], target[own]
        weight, shift = a[own] if len(a) > 1 else a, b[own] if len(b) > 1 else b
        m, r = mean[own], inverse[own]
        scale, shift = (r * weight * _HALF, shift * _HALF) if silu else (r, shift)

        def centred(rows: slice) -> np.ndarray:
            return np.subtract(part[:, rows], m, out=scratch("c", *part[:, rows].shape))

        total, product = None, None
        for rows in bands:  # out = dz
            d, dz = centred(rows), dpart[:, rows]
            p = scratch("u", *d.shape)
            if silu:
                z, t = out[:, rows], scratch("t", *d.shape)
                np.multiply(d, scale, out=p)
                p += shift
                np.tanh(p, out=t)
                times_slope(dz, p, t, z)
                dz = z
            np.multiply(dz, d, out=p)
            ones = _ones(d.shape[1])
            total = np.matmul(ones, dz) if total is None else total + np.matmul(ones, dz)
            product = np.matmul(ones, p) if product is None else product + np.matmul(ones, p)
        assert total is not None and product is not None
        if silu:
            total, product = total * _HALF, product * _HALF
        product *= r
        da[own], db[own] = product, total
        # dx = (dxhat - mean(dxhat) - xhat mean(dxhat xhat)) / sd,  dxhat = weight dz
        flat = np.matmul(np.matmul((total * weight)[:, 0], e) * over, e_back)[:, None] * r
        slope = np.matmul(np.matmul((product * weight)[:, 0], e) * over, e_back)[:, None] * r * r
        scale = r * weight * _HALF if silu else r * weight
        for rows in bands:
            d = centred(rows) if len(bands) > 1 else scratch("c", *part.shape)
            z = out[:, rows]
            np.multiply(z if silu else dpart[:, rows], scale, out=z)
            d *= slope
            d += flat
            z -= d

    for own in tasks:
        task(own)
    return dx, _over_fold(da, fold), _over_fold(db, fold)


def _over_fold(x: np.ndarray, fold: int) -> np.ndarray:
    """(N, 1, L) -> (N, C), the sum over the positions of a row."""
    return x.reshape(len(x), fold, -1).sum(axis=1)


def _parameters(da: np.ndarray, db: np.ndarray) -> Gradients:
    return {"weight": _over_samples(da), "bias": _over_samples(db)}


def _over_samples(x: np.ndarray) -> np.ndarray:
    """(N, C) -> (C,)"""
    return sum(np.add.reduce(x[half], axis=0) for half in halves(len(x)))


@operation
def group_norm(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, groups: int, epsilon: float = 1e-6
) -> tuple[np.ndarray, Any]:
    """y = weight * xhat + bias, normalised over positions and the C / groups channels of each group.   [GN] eq. 1"""
    return _normalise(x, weight, bias, groups, epsilon, silu=False)


@operation
def group_norm_backward(dy: np.ndarray, saved: Any) -> tuple[np.ndarray, Gradients]:
    """dweight = sum dy xhat,  dbias = sum dy,  dx = (dxhat - mean(dxhat) - xhat mean(dxhat xhat)) / sd."""
    dx, da, db = _normalise_backward(dy, saved)
    return dx, _parameters(da, db)


@operation
def group_norm_silu(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, groups: int, epsilon: float = 1e-6
) -> tuple[np.ndarray, Any]:
    """y = silu(group_norm(x))."""
    return _normalise(x, weight, bias, groups, epsilon, silu=True)


@operation
def group_norm_silu_backward(dy: np.ndarray, saved: Any) -> tuple[np.ndarray, Gradients]:
    """The two backwards at once; xhat and the slope of silu are computed again rather than kept."""
    dx, da, db = _normalise_backward(dy, saved)
    return dx, _parameters(da, db)


@operation
def adaptive_group_norm_silu(
    x: np.ndarray,
    scale: np.ndarray,
    shift: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray,
    groups: int,
    epsilon: float = 1e-6,
) -> tuple[np.ndarray, Any]:
    """y = silu((1 + scale) group_norm(x) + shift): a group norm with a weight and a bias for each sample.   [ADM] eq. 3"""
    assert scale.shape == shift.shape == (len(x), x.shape[-1]), (
        f"adaptive_group_norm_silu: x {x.shape}, scale {scale.shape}, shift {shift.shape}"
    )
    one = 1 + scale
    y, saved = _normalise(x, one * weight, one * bias + shift, groups, epsilon, silu=True)
    return y, (saved, one, weight, bias)


@operation
def adaptive_group_norm_silu_backward(
    dy: np.ndarray, saved: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray, Gradients]:
    """With z = (1 + scale) (weight xhat + bias) + shift:  dscale = weight sum dz xhat + bias sum dz,  dshift = sum dz."""
    norm, one, weight, bias = saved
    dx, da, db = _normalise_backward(dy, norm)
    return dx, weight * da + bias * db, db, _parameters(one * da, one * db)
