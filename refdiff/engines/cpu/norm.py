"""Group norm, alone or with what follows it in a residual block, and layer norm. The equations: the reference's `norm.py`.

An image (P positions, C channels) is worked on a band of rows at a time, and a row is `fold` positions side by side, so
that what differs by channel alone is added to long rows. Sums over positions are products with ones; from the L = fold C
sums of a row to the groups and back they are products with a matrix of zeros and ones.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ..reference import Gradients
from .activation import times_slope
from .runtime.memory import empty, scratch
from .runtime.profiler import operation
from .runtime.shards import shards, tree_sum

__all__ = [
    "adaptive_group_norm_silu", "adaptive_group_norm_silu_backward", "group_norm", "group_norm_backward",
    "group_norm_silu", "group_norm_silu_backward",
]  # fmt: skip

_MAX_ROW = 128  # elements of a row, most
_BAND_ELEMENTS = 1 << 16  # elements of a band, about
_HALF, _ONE = np.float32(0.5), np.float32(1)


class _Plan(NamedTuple):
    """How images are worked on: as shape (N, rows, L); tasks of samples, each in bands of rows. gather (L, G) takes the sums
    of a row's places to the means of groups, spread (G, L) takes a number of each group to its places."""

    shape: tuple[int, int, int]
    tasks: list[slice]
    bands: list[slice]
    gather: np.ndarray
    spread: np.ndarray


class _Saved(NamedTuple):
    """x (N, ..., C); mean and 1 / sd of each sample's groups, spread over a row (N, 1, L); a, b (N or 1, 1, L) such that
    y = a xhat + b, or silu of twice that."""

    x: np.ndarray
    mean: np.ndarray
    inverse: np.ndarray
    a: np.ndarray
    b: np.ndarray
    plan: _Plan
    silu: bool


def _planned(x: np.ndarray, groups: int) -> _Plan:
    n, c = len(x), x.shape[-1]
    assert c % groups == 0, f"group_norm: {c} channels do not divide into {groups} groups"
    ends = tuple(samples.stop for samples in shards(n))
    return _plan(ends, x.size // (n * c) if x.size else 1, c, groups)


@lru_cache(maxsize=256)
def _plan(ends: tuple[int, ...], positions: int, channels: int, groups: int) -> _Plan:
    """ends: of each shard."""
    fold = 1
    while positions % (2 * fold) == 0 and 2 * fold * channels <= _MAX_ROW:
        fold *= 2
    rows, length = positions // fold, fold * channels
    most, height = max(1, _BAND_ELEMENTS // (rows * length)), max(1, _BAND_ELEMENTS // length)
    starts = (0, *ends[:-1])
    tasks = [
        slice(i, min(i + most, end)) for start, end in zip(starts, ends, strict=True) for i in range(start, end, most)
    ]
    bands = [slice(r, min(r + height, rows)) for r in range(0, rows, height)]
    spread = np.tile(np.repeat(np.eye(groups, dtype=np.float32), channels // groups, axis=1), (1, fold))
    gather = np.ascontiguousarray(spread.T) * np.float32(groups / (positions * channels))
    return _Plan((ends[-1], rows, length), tasks, bands, gather, spread)


@lru_cache(maxsize=64)
def _ones(n: int) -> np.ndarray:
    return np.ones((1, n), np.float32)


def _along(x: np.ndarray, length: int) -> np.ndarray:
    """(C,) or (N, C), side by side as often as a row has positions.   -> (1 or N, 1, L)"""
    x = x.reshape(-1, 1, x.shape[-1])
    return x if x.shape[2] == length else np.concatenate([x] * (length // x.shape[2]), axis=2)


def _plus(total: np.ndarray | None, x: np.ndarray) -> np.ndarray:
    """total + the sum over rows.   x (n, rows, L) -> (n, 1, L), in `total` where there is one."""
    part = np.matmul(_ones(x.shape[1]), x)
    return part if total is None else np.add(total, part, out=total)


def _normalise(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, groups: int, epsilon: float, silu: bool
) -> tuple[np.ndarray, _Saved]:
    """y = f(weight xhat + bias), f silu or nothing.   weight and bias (C,) or (N, C)."""
    plan = _planned(x, groups)
    n, _, length = plan.shape
    y, mean, inverse = empty(x.shape), empty((n, 1, length)), empty((n, 1, length))
    a, b = _along(weight, length), _along(bias, length)
    if silu:
        a, b = a * _HALF, b * _HALF
    xs, ys = x.reshape(plan.shape), y.reshape(plan.shape)
    for samples in plan.tasks:
        part, out, m, r = xs[samples], ys[samples], mean[samples], inverse[samples]
        total = None
        for rows in plan.bands:
            total = _plus(total, part[:, rows])
        np.matmul(np.matmul(total[:, 0], plan.gather), plan.spread, out=m[:, 0])  # type: ignore[index]
        total = None
        for rows in plan.bands:
            d = _centred(part[:, rows], m)
            total = _plus(total, np.multiply(d, d, out=scratch("u", *d.shape)))
        variance = np.matmul(total[:, 0], plan.gather)  # type: ignore[index]
        variance += np.float32(epsilon)
        np.sqrt(variance, out=variance)
        np.matmul(np.divide(_ONE, variance, out=variance), plan.spread, out=r[:, 0])
        scale, shift = r * (a[samples] if len(a) > 1 else a), b[samples] if len(b) > 1 else b
        for rows in plan.bands:
            u = _centred(part[:, rows], m) if len(plan.bands) > 1 else d  # of one band it is still there
            u *= scale
            z = out[:, rows]
            if not silu:
                np.add(u, shift, out=z)
                continue
            u += shift
            np.tanh(u, out=z)
            z += _ONE
            z *= u
    return y, _Saved(x, mean, inverse, a, b, plan, silu)


def _centred(x: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """x - mean, working space."""
    return np.subtract(x, mean, out=scratch("c", *x.shape))


def _normalise_backward(dy: np.ndarray, saved: _Saved) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """dx, and of z = weight xhat + bias in each sample: sum dz xhat and sum dz over positions, (N, C) both."""
    x, mean, inverse, a, b, plan, silu = saved
    n, _, length = plan.shape
    dx, da, db = empty(x.shape), empty((n, 1, length)), empty((n, 1, length))
    xs, dys, dxs = x.reshape(plan.shape), dy.reshape(plan.shape), dx.reshape(plan.shape)
    for samples in plan.tasks:
        part, dpart, out, m, r = xs[samples], dys[samples], dxs[samples], mean[samples], inverse[samples]
        scale, shift = r * (a[samples] if len(a) > 1 else a), b[samples] if len(b) > 1 else b
        total, product = None, None
        for rows in plan.bands:  # out = dz, with silu twice that
            d, dz = _centred(part[:, rows], m), dpart[:, rows]
            p = scratch("u", *d.shape)
            if silu:
                z, t = out[:, rows], scratch("t", *d.shape)
                np.multiply(d, scale, out=p)
                p += shift
                np.tanh(p, out=t)
                times_slope(dz, p, t, z)
                dz = z
            total = _plus(total, dz)
            product = _plus(product, np.multiply(dz, d, out=p))
        product *= r
        da[samples], db[samples] = product, total
        # dx = (dxhat - mean(dxhat) - xhat mean(dxhat xhat)) / sd,  dxhat = weight dz
        total *= scale
        product *= scale
        product *= r
        flat = np.matmul(np.matmul(total[:, 0], plan.gather), plan.spread)[:, None]
        slope = np.matmul(np.matmul(product[:, 0], plan.gather), plan.spread)[:, None]
        for rows in plan.bands:
            d = _centred(part[:, rows], m) if len(plan.bands) > 1 else d
            z = out[:, rows]
            np.multiply(z if silu else dpart[:, rows], scale, out=z)
            d *= slope
            d += flat
            z -= d
    if silu:
        da *= _HALF
        db *= _HALF
    return dx, _over_row(da, x.shape[-1]), _over_row(db, x.shape[-1])


def _over_row(x: np.ndarray, channels: int) -> np.ndarray:
    """(N, 1, L) -> (N, C), the sum over the positions of a row."""
    if x.shape[2] == channels:
        return x[:, 0]
    return np.add.reduce(x.reshape(len(x), -1, channels), axis=1)


def _parameters(da: np.ndarray, db: np.ndarray) -> Gradients:
    return {"weight": _over_samples(da), "bias": _over_samples(db)}


def _over_samples(x: np.ndarray) -> np.ndarray:
    """(N, C) -> (C,)"""
    return tree_sum(np.add.reduce(x[samples], axis=0) for samples in shards(len(x)))


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
    """y = silu((1 + scale) group_norm(x) + shift): a group norm with a weight and a bias a sample.   [ADM] section 3.1"""
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
