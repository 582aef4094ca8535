"""The attention block, [DDPM] appendix B: x + projection(attention(q, k, v)), q, k, v = three products of norm(x).

In which order the 3 C numbers of a pixel are meant decides which published weights fit: q of all heads, then k, then v
("split"), or q, k, v of the first head, then of the second ("interleaved"). Both orders are in use for [ADM]'s models.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from ..network import Saved
from ..parameters import linear_layout, norm_layout
from ..trees import Tree
from .residual_block import groups_of

__all__ = ["QKVS", "attention", "attention_backward", "attention_layout"]

QKVS = ("split", "interleaved")


def attention_layout(channels: int) -> Tree:
    return {
        "norm": norm_layout(channels),
        "qkv": linear_layout(channels, 3 * channels, parts=3),
        "projection": linear_layout(channels, channels, zero=True),
    }


def attention(
    engine: ModuleType,
    p: Tree,
    x: Any,
    groups: int,
    heads: int,
    *,
    epsilon: float = 1e-6,
    qkv: str = "split",
    factor: float = 1.0,
) -> tuple[Any, Saved]:
    """Each pixel attends to all pixels.   x (N, H, W, C) -> the same shape.

    qkv: the order of the projection, "split" or "interleaved". factor: of the sum with x, as in `residual`."""
    saved: Saved = {}
    n, height, width, c = x.shape
    h, saved["norm"] = engine.group_norm(x, **p["norm"], groups=groups_of(c, groups), epsilon=epsilon)
    h, saved["reshape"] = engine.reshape(h, (n, height * width, c))
    h, saved["qkv"] = engine.linear(h, **p["qkv"])
    if qkv == "interleaved" and heads > 1:
        (q, k, v), saved["heads"] = _of_heads(engine, h, heads)
    else:
        (q, k, v), saved["split"] = engine.split(h, 3)
    h, saved["attention"] = engine.attention(q, k, v, heads)
    h, saved["projection"] = engine.linear(h, **p["projection"])
    h, saved["image"] = engine.reshape(h, x.shape)
    y, saved["add"] = engine.add(x, h)
    if factor != 1:
        y, saved["scale"] = engine.scale(y, factor)
    return y, saved


def attention_backward(engine: ModuleType, dy: Any, saved: Saved) -> tuple[Any, Tree]:
    """-> dx, gradients."""
    g: Tree = {}
    if "scale" in saved:
        dy = engine.scale_backward(dy, saved["scale"])
    dx, dh = engine.add_backward(dy, saved["add"])
    dh = engine.reshape_backward(dh, saved["image"])
    dh, g["projection"] = engine.linear_backward(dh, saved["projection"])
    dqkv = engine.attention_backward(dh, saved["attention"])
    if "heads" in saved:
        dh = _of_heads_backward(engine, dqkv, saved["heads"])
    else:
        dh = engine.split_backward(dqkv, saved["split"])
    dh, g["qkv"] = engine.linear_backward(dh, saved["qkv"])
    dh = engine.reshape_backward(dh, saved["reshape"])
    dh, g["norm"] = engine.group_norm_backward(dh, saved["norm"])
    return engine.accumulate(dx, dh), g


def _of_heads(engine: ModuleType, h: Any, heads: int) -> tuple[Any, Saved]:
    """q, k, v of [q_1, k_1, v_1, q_2, ...].   (N, L, 3 C) -> three (N, L, C)."""
    saved: Saved = {}
    n, length, c = h.shape
    h, saved["reshape"] = engine.reshape(h, (n, length, heads, c // heads))
    (q, k, v), saved["split"] = engine.split(h, 3)
    q, saved["q"] = engine.reshape(q, (n, length, c // 3))
    k, saved["k"] = engine.reshape(k, (n, length, c // 3))
    v, saved["v"] = engine.reshape(v, (n, length, c // 3))
    return (q, k, v), saved


def _of_heads_backward(engine: ModuleType, dqkv: tuple[Any, ...], saved: Saved) -> Any:
    parts = tuple(engine.reshape_backward(d, saved[name]) for d, name in zip(dqkv, "qkv", strict=True))
    return engine.reshape_backward(engine.split_backward(parts, saved["split"]), saved["reshape"])
