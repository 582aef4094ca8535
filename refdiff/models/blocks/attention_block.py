"""The attention block, [DDPM] appendix B: x + projection(attention(q, k, v)), q, k, v = three products of norm(x)."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from ..network import Saved
from ..parameters import linear_layout, norm_layout
from ..trees import Tree
from .residual_block import groups_of

__all__ = ["attention", "attention_backward", "attention_layout"]


def attention_layout(channels: int) -> Tree:
    return {
        "norm": norm_layout(channels),
        "qkv": linear_layout(channels, 3 * channels, parts=3),
        "projection": linear_layout(channels, channels, zero=True),
    }


def attention(engine: ModuleType, p: Tree, x: Any, groups: int, heads: int) -> tuple[Any, Saved]:
    """Each pixel attends to all pixels.   x (N, H, W, C) -> the same shape."""
    saved: Saved = {}
    n, height, width, c = x.shape
    h, saved["norm"] = engine.group_norm(x, **p["norm"], groups=groups_of(c, groups))
    h, saved["reshape"] = engine.reshape(h, (n, height * width, c))
    h, saved["qkv"] = engine.linear(h, **p["qkv"])
    (q, k, v), saved["split"] = engine.split(h, 3)
    h, saved["attention"] = engine.attention(q, k, v, heads)
    h, saved["projection"] = engine.linear(h, **p["projection"])
    h, saved["image"] = engine.reshape(h, x.shape)
    y, saved["add"] = engine.add(x, h)
    return y, saved


def attention_backward(engine: ModuleType, dy: Any, saved: Saved) -> tuple[Any, Tree]:
    """-> dx, gradients."""
    g: Tree = {}
    dx, dh = engine.add_backward(dy, saved["add"])
    dh = engine.reshape_backward(dh, saved["image"])
    dh, g["projection"] = engine.linear_backward(dh, saved["projection"])
    dqkv = engine.attention_backward(dh, saved["attention"])
    dh = engine.split_backward(dqkv, saved["split"])
    dh, g["qkv"] = engine.linear_backward(dh, saved["qkv"])
    dh = engine.reshape_backward(dh, saved["reshape"])
    dh, g["norm"] = engine.group_norm_backward(dh, saved["norm"])
    return engine.accumulate(dx, dh), g
