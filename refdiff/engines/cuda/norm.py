"""Group norm, alone and before a SiLU, and layer norm: kernels/group_norm.cu and kernels/layer_norm.cu.

What is saved is x with the mean and 1 / sd of each group or row; the backward works out the rest again.
"""

from __future__ import annotations

from typing import Any

from .rows import FILL_BLOCKS, MAX_THREADS, TOTAL_CHANNELS, Tiling, expect, tiling
from .runtime.context import Array, blocks
from .structs import struct
from .tensor_ops import split

__all__ = [
    "adaptive_group_norm_silu", "adaptive_group_norm_silu_backward", "group_norm", "group_norm_backward",
    "group_norm_silu", "group_norm_silu_backward", "layer_norm", "layer_norm_backward",
]  # fmt: skip

Gradients = dict[str, Array]

GroupNorm = struct("group_norm.cu", "GroupNorm")
LayerNorm = struct("layer_norm.cu", "LayerNorm")
MAX_CHUNKS = 32  # of a sample: one a lane where they are put together
MIN_ROWS, MAX_ROWS = 16, 1024  # of a block of the layer norm's backward


def group_norm(x: Array, weight: Array, bias: Array, groups: int, epsilon: float = 1e-6) -> tuple[Array, Any]:
    """y = weight * xhat + bias, normalised over positions and the C / groups channels of each group.

    x (N, ..., C), weight and bias (C,), groups a divisor of C -> y (N, ..., C).
    """
    return _forward(x, None, None, weight, bias, groups, epsilon, SILU=0, ADAPTIVE=0)


def group_norm_backward(dy: Array, saved: Any) -> tuple[Array, Gradients]:
    """dweight = sum dy xhat,  dbias = sum dy,  dx = (dxhat - mean(dxhat) - xhat mean(dxhat xhat)) / sd."""
    dx, _, _, g = _backward(dy, saved)
    return dx, g


def group_norm_silu(x: Array, weight: Array, bias: Array, groups: int, epsilon: float = 1e-6) -> tuple[Array, Any]:
    """y = silu(group_norm(x)).   Shapes as for `group_norm`."""
    return _forward(x, None, None, weight, bias, groups, epsilon, SILU=1, ADAPTIVE=0)


def group_norm_silu_backward(dy: Array, saved: Any) -> tuple[Array, Gradients]:
    """As `group_norm_backward` of dz = dy silu'(z)."""
    dx, _, _, g = _backward(dy, saved)
    return dx, g


def adaptive_group_norm_silu(
    x: Array, scale: Array, shift: Array, weight: Array, bias: Array, groups: int, epsilon: float = 1e-6
) -> tuple[Array, Any]:
    """y = silu((1 + scale) group_norm(x) + shift), a scale and a shift for each sample and channel.

    x (N, ..., C), scale and shift (N, C), which may be parts of a split, weight and bias (C,) -> y (N, ..., C).
    """
    assert scale.shape == shift.shape == (len(x), x.shape[-1]), (
        f"adaptive_group_norm_silu: x {x.shape}, scale {scale.shape}, shift {shift.shape}"
    )
    assert scale.dtype == shift.dtype == x.dtype, f"x {x.dtype}, scale {scale.dtype}, shift {shift.dtype}"
    return _forward(x, scale, shift, weight, bias, groups, epsilon, SILU=1, ADAPTIVE=1)


def adaptive_group_norm_silu_backward(dy: Array, saved: Any) -> tuple[Array, Array, Array, Gradients]:
    """With z = (1 + scale) h + shift:  dscale = sum dz h,  dshift = sum dz over positions,  dh = dz (1 + scale).

    -> dx, dscale, dshift, gradients of weight and bias. dscale and dshift lie side by side, as parts of a split do.
    """
    return _backward(dy, saved)


def _chunks(x: Array, t: Tiling) -> tuple[int, int]:
    """How many chunks a sample is cut into, and the positions of one: whole turns of a block."""
    positions = x.size // (len(x) * x.shape[-1])
    rows = blocks(blocks(positions, min(MAX_CHUNKS, blocks(FILL_BLOCKS, len(x)))), t.side) * t.side
    return blocks(positions, rows), rows


def _forward(
    x: Array, scale: Any, shift: Any, weight: Array, bias: Array, groups: int, epsilon: float, **variant: int
) -> tuple[Array, Any]:
    n, c = len(x), x.shape[-1]
    assert c % groups == 0, f"group_norm: {c} channels do not divide into {groups} groups"
    expect("group_norm", x.dtype, x)
    expect("group_norm", "float32", weight, bias)
    context, y = x.context, x.context.empty(x.shape, x.dtype)
    mean, rsd = context.empty((n, groups)), context.empty((n, groups))
    t = tiling(x, scale, shift, weight, bias)
    chunks, rows = _chunks(x, t)
    partial = context.empty((n, groups, chunks, 2))
    given = GroupNorm(
        x=x, y=y, weight=weight, bias=bias, scale=scale, shift=shift, mean=mean, rsd=rsd, partial=partial,
        N=n, P=x.size // (n * c), C=c, G=groups, chunks=chunks, rows=rows, epsilon=epsilon,
    )  # fmt: skip
    options: Any = {"dtype": x.dtype, "PACKED": t.packed, **variant}

    source, grid = "group_norm.cu", n * chunks
    shared = 4 * (2 * c + (2 * t.width + 1) * t.scratch // t.width)
    context.launch(source, "group_statistics", grid, t.threads, given, shared=shared, **options)
    context.launch(source, "group_norm", grid, t.threads, given, shared=8 * groups, **options)
    return y, (x, mean, rsd, weight, bias, scale, shift, variant)


def _backward(dy: Array, saved: Any) -> tuple[Array, Any, Any, Gradients]:
    x, mean, rsd, weight, bias, scale, shift, variant = saved
    expect("group_norm_backward", x.dtype, dy)
    context, n, c, groups = x.context, len(x), x.shape[-1], mean.shape[1]
    dx, dweight, dbias = context.empty(x.shape, x.dtype), context.empty(weight.shape), context.empty(bias.shape)
    dscale, dshift = (None, None) if scale is None else split(context.empty((n, 2 * c), x.dtype), 2)[0]
    t = tiling(x, dy, scale, shift, weight, bias)
    chunks, rows = _chunks(x, t)
    channel, partial = context.empty((n, chunks, c, 2)), context.empty((n, groups, chunks, 2))
    given = GroupNorm(
        x=x, dy=dy, weight=weight, bias=bias, scale=scale, shift=shift, mean=mean, rsd=rsd,
        dx=dx, dscale=dscale, dshift=dshift, dweight=dweight, dbias=dbias, channel=channel, partial=partial,
        N=n, P=x.size // (n * c), C=c, G=groups, chunks=chunks, rows=rows, epsilon=0,
    )  # fmt: skip
    options: Any = {"dtype": x.dtype, "PACKED": t.packed, **variant}

    source, grid = "group_norm.cu", n * chunks
    context.launch(source, "group_sums", grid, t.threads, given, shared=4 * (2 * c + 2 * t.scratch), **options)
    grid += blocks(c, TOTAL_CHANNELS) + (blocks(n * c, t.threads) if scale is not None else 0)
    shared = max(16 * groups, 8 * t.threads)
    context.launch(source, "group_norm_backward", grid, t.threads, given, shared=shared, **options)
    return dx, dscale, dshift, {"weight": dweight, "bias": dbias}


def layer_norm(x: Array, weight: Array, bias: Array, epsilon: float = 1e-5) -> tuple[Array, Any]:
    """y = weight * xhat + bias, normalised over the last axis.

    x (..., C), weight and bias (C,) -> y (..., C).
    """
    expect("layer_norm", x.dtype, x)
    expect("layer_norm", "float32", weight, bias)
    context, c, t = x.context, x.shape[-1], tiling(x, weight, bias)
    rows = x.size // c
    y, mean, rsd = context.empty(x.shape, x.dtype), context.empty((rows,)), context.empty((rows,))
    context.launch(
        "layer_norm.cu", "layer_norm", blocks(rows, MAX_THREADS // 32), MAX_THREADS,
        LayerNorm(x=x, weight=weight, bias=bias, y=y, mean=mean, rsd=rsd, rows=rows, C=c, each=1, epsilon=epsilon),
        dtype=x.dtype, PACKED=t.packed,
    )  # fmt: skip
    return y, (x, mean, rsd, weight)


def layer_norm_backward(dy: Array, saved: Any) -> tuple[Array, Gradients]:
    """dweight = sum dy xhat,  dbias = sum dy,  dx = (dxhat - mean(dxhat) - xhat mean(dxhat xhat)) / sd."""
    x, mean, rsd, weight = saved
    expect("layer_norm_backward", x.dtype, dy)
    context, c, t = x.context, x.shape[-1], tiling(x, dy, weight)
    rows = x.size // c
    each = min(max(MIN_ROWS, blocks(rows, FILL_BLOCKS)), MAX_ROWS)
    grid = blocks(rows, each)
    dx, dweight, dbias = context.empty(x.shape, x.dtype), context.empty((c,)), context.empty((c,))
    channel = context.empty((grid, c, 2))
    options: Any = {"dtype": x.dtype, "PACKED": t.packed}
    context.launch(
        "layer_norm.cu", "layer_norm_backward", grid, t.threads,
        LayerNorm(x=x, dy=dy, weight=weight, mean=mean, rsd=rsd, dx=dx, channel=channel, rows=rows, C=c, each=each,
                  epsilon=0),
        shared=4 * (4 * each + 2 * t.scratch), **options,
    )  # fmt: skip
    context.launch(
        "layer_norm.cu", "layer_norm_totals", blocks(c, TOTAL_CHANNELS), MAX_THREADS, channel, dbias, dweight, grid, c,
        shared=8 * MAX_THREADS, **options,
    )  # fmt: skip
    return dx, {"weight": dweight, "bias": dbias}
