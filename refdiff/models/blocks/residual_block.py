"""The residual block, [DDPM] appendix B: x + conv(silu(norm(conv(silu(norm(x))) + time)))."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from ...random import Sequence
from ..network import Saved
from ..parameters import conv_layout, linear_layout, norm_layout
from ..trees import Tree

__all__ = ["groups_of", "residual", "residual_backward", "residual_layout"]


def groups_of(channels: int, most: int) -> int:
    """The number of groups a norm uses: the largest up to `most` that divides the channels and leaves two a group.

    A group of one channel would take away what the block adds to the whole channel: the time.
    """
    return max((g for g in range(2, most + 1) if channels % g == 0 and channels // g > 1), default=1)


def residual_layout(c_in: int, c_out: int, width: int) -> Tree:
    p = {
        "norm1": norm_layout(c_in),
        "conv1": conv_layout(3, c_in, c_out),
        "time": linear_layout(width, c_out),
        "norm2": norm_layout(c_out),
        "conv2": conv_layout(3, c_out, c_out, zero=True),
    }
    if c_in != c_out:
        p["shortcut"] = linear_layout(c_in, c_out)
    return p


def residual(
    engine: ModuleType, p: Tree, x: Any, emb: Any, groups: int, rate: float = 0.0, key: Sequence | None = None
) -> tuple[Any, Saved]:
    """x (N, H, W, C_in), emb (N, E) -> (N, H, W, C_out). Dropout when rate > 0 and a key is given."""
    saved: Saved = {}
    h, saved["norm1"] = engine.group_norm_silu(x, **p["norm1"], groups=groups_of(x.shape[-1], groups))
    h, saved["conv1"] = engine.conv2d(h, **p["conv1"])
    e, saved["time"] = engine.linear(emb, **p["time"])
    h, saved["add_time"] = engine.broadcast_add(h, e)
    h, saved["norm2"] = engine.group_norm_silu(h, **p["norm2"], groups=groups_of(h.shape[-1], groups))
    if rate and key is not None:
        h, saved["dropout"] = engine.dropout(h, rate, key)
    h, saved["conv2"] = engine.conv2d(h, **p["conv2"])
    if "shortcut" in p:
        x, saved["shortcut"] = engine.linear(x, **p["shortcut"])
    y, saved["add"] = engine.add(x, h)
    return y, saved


def residual_backward(engine: ModuleType, dy: Any, saved: Saved) -> tuple[Any, Any, Tree]:
    """-> dx, demb, gradients."""
    g: Tree = {}
    dx, dh = engine.add_backward(dy, saved["add"])
    if "shortcut" in saved:
        dx, g["shortcut"] = engine.linear_backward(dx, saved["shortcut"])
    dh, g["conv2"] = engine.conv2d_backward(dh, saved["conv2"])
    if "dropout" in saved:
        dh = engine.dropout_backward(dh, saved["dropout"])
    dh, g["norm2"] = engine.group_norm_silu_backward(dh, saved["norm2"])
    dh, de = engine.broadcast_add_backward(dh, saved["add_time"])
    demb, g["time"] = engine.linear_backward(de, saved["time"])
    dh, g["conv1"] = engine.conv2d_backward(dh, saved["conv1"])
    dh, g["norm1"] = engine.group_norm_silu_backward(dh, saved["norm1"])
    return engine.accumulate(dx, dh), demb, g
