"""Scaled dot-product attention with many heads: kernels/attention.cu in bfloat16, kernels/attention_float.cu in float32.

q, k and v are read where a projection wrote them, and their gradients are written side by side where they came so: a split
before and its backward after copy nothing. What is saved is q, k, v, y and the log-sum-exp of each row of scores.
"""

from __future__ import annotations

from math import e, log2
from typing import Any, NamedTuple

from .runtime.context import Array, blocks

__all__ = ["attention", "attention_backward"]


class _Tiles(NamedTuple):
    """How a kernel cuts its work; its source says the same."""

    threads: int  # of a block
    rows: int  # of the sequence that stays
    head: int  # d, filled up
    slices: int = 1  # blocks that share the columns of the output
    shared: int = 0  # bytes


def attention(q: Array, k: Array, v: Array, heads: int = 1) -> tuple[Array, Any]:
    """y = softmax(q k^T / sqrt(d)) v in each head of d = C / heads channels.   [Attention] eq. 1

    q (N, S, C); k and v (N, L, C), from the same sequence (self) or another (cross) -> y (N, S, C).
    """
    samples, _, channels = q.shape
    assert channels % heads == 0, f"attention: {channels} channels do not divide into {heads} heads"
    assert k.shape == v.shape and k.shape[::2] == (samples, channels), f"attention: {q.shape}, {k.shape} and {v.shape}"
    assert q.dtype == k.dtype == v.dtype, f"attention: {q.dtype}, {k.dtype} and {v.dtype}"
    y = q.context.empty(q.shape, q.dtype)
    lse = q.context.empty((samples, heads, _stride(q)))
    _launch("attention", q, (q, k, v), (y, lse), (q, k, v, y), heads)
    return y, (q, k, v, y, lse, heads)


def attention_backward(dy: Array, saved: Any) -> tuple[Array, Array, Array]:
    """With y = p v, p = softmax(z), z = q k^T / sqrt(d):

    dv = p^T dy,  dp = dy v^T,  dz = softmax_backward(dp),  dq = dz k / sqrt(d),  dk = dz^T q / sqrt(d).
    """
    q, k, v, y, lse, heads = saved
    assert dy.dense and dy.shape == y.shape and dy.dtype == y.dtype, f"attention_backward: {dy} for {y}"
    if _neighbours((q, k, v)):
        dq, dk, dv = _side_by_side((q, k, v))
    else:
        (dq,) = _side_by_side((q,))
        dk, dv = _side_by_side((k, v)) if _neighbours((k, v)) else (*_side_by_side((k,)), *_side_by_side((v,)))
    delta = q.context.empty(lse.shape)
    _launch("attention_backward_queries", q, (q, k, v, y, dy, lse), (delta, dq), (q, k, v, y, dq), heads)
    _launch("attention_backward_keys", k, (q, k, v, dy, lse, delta), (dk, dv), (q, k, v, dy, dk, dv), heads)
    return dq, dk, dv


def _launch(
    name: str,
    rows: Array,
    inputs: tuple[Array, ...],
    outputs: tuple[Array, ...],
    pitched: tuple[Array, ...],
    heads: int,
) -> None:
    """rows: the array whose rows stay in a block. pitched: whose pitches the kernel is told, in its order."""
    q, k = inputs[:2]
    (samples, s, channels), length = q.shape, k.shape[1]
    d = channels // heads
    scale = d**-0.5
    options: tuple[float, ...] = (scale,)
    tiles = _float32_tiles(name, d)
    source = "attention_float.cu"
    if q.dtype == "bfloat16":
        aligned = all(a.pitch % 8 == 0 for a in pitched) and all(a.pointer % 16 == 0 for a in (*inputs, *outputs))
        options = (scale * log2(e), aligned and d % 8 == 0)
        tiles = _bfloat16_tiles(name, d)
        source = "attention.cu"
    q.context.launch(
        source, name, (blocks(rows.shape[1], tiles.rows) * samples * heads, tiles.slices), tiles.threads,
        *inputs, *outputs, s, length, heads, d, _stride(q), *(a.pitch for a in pitched), *options,
        dtype=q.dtype, shared=tiles.shared, HEAD=tiles.head,
    )  # fmt: skip


def _float32_tiles(name: str, d: int) -> _Tiles:
    columns = 128 if name == "attention_backward_keys" else 256  # a block's at most
    head = _head(d, 32 if d <= 128 else 64 if d <= 256 else 128)
    return _Tiles(threads=256, rows=64, head=head, slices=1 if d <= columns else 2 if d <= 2 * columns else 4)


# By the largest HEAD: warps that share the columns of a row, then of the kernels for y, dq, dk and dv: warps of a block,
# bands of 16 rows in a warp, rows streamed at a time, tiles of them in memory. As in kernels/attention_tiles.cuh.
_SHAPES = {
    64: (1, (2, 2, 32, 2), (2, 2, 32, 2), (2, 2, 16, 2)),
    128: (1, (2, 2, 32, 2), (2, 2, 16, 2), (4, 1, 32, 2)),
    256: (2, (4, 2, 16, 2), (4, 2, 16, 1), (4, 1, 16, 2)),
    512: (4, (4, 2, 16, 1), (4, 1, 16, 1), (4, 1, 16, 1)),
}
_KERNELS = ("attention", "attention_backward_queries", "attention_backward_keys")


def _bfloat16_tiles(name: str, d: int) -> _Tiles:
    kernel = _KERNELS.index(name)
    _head(d, 1)
    split, *shapes = next(shape for most, shape in _SHAPES.items() if d <= most)
    warps, bands, tile, stages = shapes[kernel]
    head, rows = _head(d, 16 * split), 16 * bands * warps // split
    staying = 2 if kernel else 1  # arrays whose rows stay
    row = 2 * (head + 8)  # bytes
    scores = staying * 16 * bands * warps * tile * 4 if split > 1 else 0
    return _Tiles(32 * warps, rows, head, shared=staying * rows * row + stages * tile * (2 * row + 8) + scores)


def _head(d: int, multiple: int) -> int:
    if d > 512:
        raise ValueError(f"attention: expected heads of at most 512 channels, got {d}; take more heads")
    return blocks(d, multiple) * multiple


def _stride(q: Array) -> int:
    """Of a row of log-sum-exps: S rounded up to whole tiles."""
    return blocks(q.shape[1], 64) * 64


def _neighbours(parts: tuple[Array, ...]) -> bool:
    """Whether these are the parts of a split, in order."""
    first, channels = parts[0], parts[0].shape[-1]
    return all(
        a.buffer is first.buffer
        and a.shape == first.shape
        and a.pitch == len(parts) * channels
        and a.offset == first.offset + i * channels
        for i, a in enumerate(parts)
    )


def _side_by_side(parts: tuple[Array, ...]) -> tuple[Array, ...]:
    """A fresh array for each, together the parts of one dense array."""
    first, channels = parts[0], parts[0].shape[-1]
    whole = first.context.empty((*first.shape[:-1], len(parts) * channels), first.dtype)
    return tuple(
        Array(whole.buffer, first.shape, first.dtype, i * channels, whole.shape[-1]) for i in range(len(parts))
    )
