"""What makes one row of logits of an image's states: the four poolings of [ADM]'s classifiers (section 4, and its code).

attention   a token of the mean before the pixels asks them all: [CLIP]
adaptive    the mean of the last state's pixels
spatial     the means of every state on the way, through a hidden layer with ReLU, or, with a norm, SiLU ("spatial_v2")
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

from ..network import Saved
from ..parameters import Parameter, linear_layout, norm_layout
from ..trees import Tree
from .residual_block import groups_of

__all__ = [
    "POOLINGS", "attention_pool", "attention_pool_backward", "attention_pool_layout", "mean_pool", "mean_pool_backward",
    "mean_pool_layout", "spatial_pool", "spatial_pool_backward", "spatial_pool_layout",
]  # fmt: skip

POOLINGS = ("attention", "adaptive", "spatial", "spatial_v2")
HIDDEN = 2048  # of the spatial poolings


def attention_pool_layout(channels: int, positions: int, outputs: int) -> Tree:
    """positions: pixels of the image. A row of what is learned of each stands for the pixel, one for the mean."""
    return {
        "mean_position": {"weight": Parameter((channels,), fan=channels)},
        "position": {"weight": Parameter((positions, channels), fan=channels)},
        "q": linear_layout(channels, channels),
        "kv": linear_layout(channels, 2 * channels, parts=2),
        "projection": linear_layout(channels, outputs),
    }


def attention_pool(engine: ModuleType, p: Tree, x: Any, heads: int) -> tuple[Any, Saved]:
    """projection(attention(q, k, v)), q of the mean of the pixels, k and v of the mean and of all pixels.

    x (N, H, W, C) -> (N, outputs).   What other tokens than the mean would ask is nowhere read, and not computed.
    """
    saved: Saved = {}
    n, height, width, c = x.shape
    m, saved["mean"] = engine.global_average_pool(x)
    m, saved["mean_position"] = engine.add_positions(m, **p["mean_position"])
    h, saved["reshape"] = engine.reshape(x, (n, height * width, c))
    h, saved["position"] = engine.add_positions(h, **p["position"])
    q, saved["q"] = engine.linear(m, **p["q"])
    q, saved["one_row"] = engine.reshape(q, (n, 1, c))
    h, saved["flat"] = engine.reshape(h, (n, height * width * c))
    h, saved["concat"] = engine.concat(m, h)
    h, saved["tokens"] = engine.reshape(h, (n, 1 + height * width, c))
    h, saved["kv"] = engine.linear(h, **p["kv"])
    (k, v), saved["split"] = engine.split(h, 2)
    h, saved["attention"] = engine.attention(q, k, v, heads)
    h, saved["row"] = engine.reshape(h, (n, c))
    y, saved["projection"] = engine.linear(h, **p["projection"])
    return y, saved


def attention_pool_backward(engine: ModuleType, dy: Any, saved: Saved) -> tuple[Any, Tree]:
    """-> dx, gradients. The mean goes back to every pixel with the same weight."""
    g: Tree = {}
    dh, g["projection"] = engine.linear_backward(dy, saved["projection"])
    dh = engine.reshape_backward(dh, saved["row"])
    dq, dk, dv = engine.attention_backward(dh, saved["attention"])
    dh = engine.split_backward((dk, dv), saved["split"])
    dh, g["kv"] = engine.linear_backward(dh, saved["kv"])
    dh = engine.reshape_backward(dh, saved["tokens"])
    dm, dh = engine.concat_backward(dh, saved["concat"])
    dh = engine.reshape_backward(dh, saved["flat"])
    dq = engine.reshape_backward(dq, saved["one_row"])
    dq, g["q"] = engine.linear_backward(dq, saved["q"])
    dm = engine.accumulate(dm, dq)
    dh, g["position"] = engine.add_positions_backward(dh, saved["position"])
    dx = engine.reshape_backward(dh, saved["reshape"])
    dm, g["mean_position"] = engine.add_positions_backward(dm, saved["mean_position"])
    return engine.accumulate(dx, engine.global_average_pool_backward(dm, saved["mean"])), g


def mean_pool_layout(channels: int, outputs: int) -> Tree:
    return {"projection": linear_layout(channels, outputs, zero=True)}


def mean_pool(engine: ModuleType, p: Tree, x: Any) -> tuple[Any, Saved]:
    """projection(mean of the pixels).   x (N, H, W, C) -> (N, outputs)"""
    saved: Saved = {}
    h, saved["mean"] = engine.global_average_pool(x)
    y, saved["projection"] = engine.linear(h, **p["projection"])
    return y, saved


def mean_pool_backward(engine: ModuleType, dy: Any, saved: Saved) -> tuple[Any, Tree]:
    """-> dx, gradients."""
    dh, g = engine.linear_backward(dy, saved["projection"])
    return engine.global_average_pool_backward(dh, saved["mean"]), {"projection": g}


def spatial_pool_layout(channels: int, outputs: int, normed: bool) -> Tree:
    """channels: of all states together. normed: of "spatial_v2"."""
    p: Tree = {"hidden": linear_layout(channels, HIDDEN)}
    if normed:
        p["norm"] = norm_layout(HIDDEN)
    return p | {"projection": linear_layout(HIDDEN, outputs)}


def spatial_pool(
    engine: ModuleType, p: Tree, states: Sequence[Any], groups: int, epsilon: float = 1e-6
) -> tuple[Any, Saved]:
    """projection(relu(hidden(the means of all states, side by side))), with a norm silu(norm(...)).

    states (N, H, W, C), each of its own size -> (N, outputs)
    """
    saved: Saved = {}
    h, saved["mean0"] = engine.global_average_pool(states[0])
    for i, state in enumerate(states[1:], 1):
        m, saved[f"mean{i}"] = engine.global_average_pool(state)
        h, saved[f"concat{i}"] = engine.concat(h, m)
    h, saved["hidden"] = engine.linear(h, **p["hidden"])
    if "norm" in p:
        h, saved["norm"] = engine.group_norm_silu(h, **p["norm"], groups=groups_of(HIDDEN, groups), epsilon=epsilon)
    else:
        h, saved["relu"] = engine.relu(h)
    y, saved["projection"] = engine.linear(h, **p["projection"])
    return y, saved


def spatial_pool_backward(engine: ModuleType, dy: Any, saved: Saved) -> tuple[list[Any], Tree]:
    """-> dx of each state, gradients."""
    g: Tree = {}
    dh, g["projection"] = engine.linear_backward(dy, saved["projection"])
    if "norm" in saved:
        dh, g["norm"] = engine.group_norm_silu_backward(dh, saved["norm"])
    else:
        dh = engine.relu_backward(dh, saved["relu"])
    dh, g["hidden"] = engine.linear_backward(dh, saved["hidden"])
    dstates: list[Any] = []
    for i in range(sum(name.startswith("concat") for name in saved), 0, -1):
        dh, dm = engine.concat_backward(dh, saved[f"concat{i}"])
        dstates.insert(0, engine.global_average_pool_backward(dm, saved[f"mean{i}"]))
    return [engine.global_average_pool_backward(dh, saved["mean0"]), *dstates], g
