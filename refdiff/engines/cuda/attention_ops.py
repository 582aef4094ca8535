"""Scaled dot-product attention with many heads: kernels/attention.cu in bfloat16, kernels/attention_float.cu in float32.

q, k and v are read where a projection wrote them, and their gradients are written side by side where they came so: a split
before and its backward after copy nothing. What is saved is q, k, v, y and the log-sum-exp of each row of scores.
"""

from __future__ import annotations

from math import e, log2
from typing import Any, NamedTuple

from .runtime.context import Array, blocks
from .structs import constant, struct, table

__all__ = ["attention", "attention_backward"]


Arguments = struct("attention.cuh", "Attention")
CUTS = table("attention_tiles.cuh", "CUTS")  # of the kernels in bfloat16
CHUNK, ROWS, THREADS = (constant("attention_float.cu", name) for name in ("CHUNK", "ROWS", "THREADS"))


class Tiles(NamedTuple):
    """How a kernel cuts its work."""

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
    _launch("attention", q.shape[1], heads, q=q, k=k, v=v, y=y, lse=lse)
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
    given = {"q": q, "k": k, "v": v, "dy": dy, "lse": lse, "delta": delta}
    _launch("attention_backward_queries", q.shape[1], heads, **given, y=y, dq=dq)
    _launch("attention_backward_keys", k.shape[1], heads, **given, dk=dk, dv=dv)
    return dq, dk, dv


def _launch(name: str, length: int, heads: int, **given: Array) -> None:
    """length: of the sequence whose rows stay in a block."""
    q, k = given["q"], given["k"]
    samples, s, channels = q.shape
    d = channels // heads
    scale, vector, tiles, source = d**-0.5, False, float32_tiles(name, d), "attention_float.cu"
    if q.dtype == "bfloat16":
        aligned = all(a.pitch % 8 == 0 and a.pointer % 16 == 0 for a in given.values())
        scale, vector, tiles, source = scale * log2(e), aligned and d % 8 == 0, bfloat16_tiles(name, d), "attention.cu"
    arguments = Arguments(**given, S=s, L=k.shape[1], heads=heads, d=d, stride=_stride(q), scale=scale, vector=vector)
    q.context.launch(
        source, name, (blocks(length, tiles.rows) * samples * heads, tiles.slices), tiles.threads, arguments,
        dtype=q.dtype, shared=tiles.shared, HEAD=tiles.head,
    )  # fmt: skip


def float32_tiles(name: str, d: int) -> Tiles:
    columns = 128 if name == "attention_backward_keys" else 256  # a block's at most
    head = _head(d, CHUNK if d <= 128 else 2 * CHUNK if d <= 256 else 4 * CHUNK)
    return Tiles(threads=THREADS, rows=ROWS, head=head, slices=1 if d <= columns else 2 if d <= 2 * columns else 4)


KERNELS = ("attention", "attention_backward_queries", "attention_backward_keys")  # as in a row of CUTS


def bfloat16_tiles(name: str, d: int) -> Tiles:
    kernel = KERNELS.index(name)
    _head(d, 1)
    _, split, *cuts = next(row for row in CUTS if d <= row[0])
    warps, bands, tile, stages = cuts[kernel]
    head, rows = _head(d, 16 * split), 16 * bands * warps // split
    staying = 2 if kernel else 1  # arrays whose rows stay
    row = 2 * (head + 8)  # bytes
    scores = staying * 16 * bands * warps * tile * 4 if split > 1 else 0
    return Tiles(32 * warps, rows, head, shared=staying * rows * row + stages * tile * (2 * row + 8) + scores)


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
