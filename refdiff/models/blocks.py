"""The blocks of the U-Net, [DDPM] appendix B: residual block, attention block, down- and up-sampling, conditioning.

Each is three functions: `x_layout` says which parameters it has, `x` reads top to bottom forwards, `x_backward` bottom
to top backwards. h is (N, H, W, C); emb, what conditions a block, is (N, E) and already through its SiLU.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from ..random import Sequence
from .network import Batch, Input, Saved
from .parameters import Parameter, conv_layout, linear_layout, norm_layout
from .trees import Tree

TIMES = ("ddpm", "adm")  # conventions of the sinusoids


def groups_of(channels: int, most: int) -> int:
    """The number of groups a norm uses: the largest up to `most` that divides the channels and leaves two a group.

    A group of one channel would take away what the block adds to the whole channel: the time.
    """
    return max((g for g in range(2, most + 1) if channels % g == 0 and channels // g > 1), default=1)


# ---- what conditions every block: the timestep's sinusoids through two linear layers with SiLU, and the label's row


def conditioning_layout(channels: int, width: int, classes: int = 0) -> Tree:
    """classes: how many labels there are; one more row stands for no label."""
    p: Tree = {"time": {"linear1": linear_layout(channels, width), "linear2": linear_layout(width, width)}}
    if classes:
        p["label"] = {"weight": Parameter((classes + 1, width), fan=width)}
    return p


def conditioning_inputs(classes: int = 0) -> dict[str, Input]:
    return {"t": Input((), "int")} | ({"label": Input((), "int")} if classes else {})


def conditioning(engine: ModuleType, p: Tree, inputs: Batch, convention: str) -> tuple[Any, Saved]:
    """emb = silu(W2 silu(W1 sinusoids(t)) + the label's row).   t, label (N,) -> (N, E)   [ADM] section 3.1

    The last SiLU is the one each residual block begins with. p: of the whole network.
    """
    saved: Saved = {}
    time = p["time"]
    weight = time["linear1"]["weight"]
    h, saved["sinusoids"] = engine.time_embedding(inputs["t"], weight.shape[0], convention, weight.dtype)
    h, saved["linear1"] = engine.linear(h, **time["linear1"])
    h, saved["silu1"] = engine.silu(h)
    h, saved["linear2"] = engine.linear(h, **time["linear2"])
    if "label" in p:
        e, saved["label"] = engine.embedding(inputs["label"], p["label"]["weight"])
        h, saved["add_label"] = engine.add(h, e)
    emb, saved["silu2"] = engine.silu(h)
    return emb, saved


def conditioning_backward(engine: ModuleType, demb: Any, saved: Saved, needs_dt: bool = False) -> tuple[Any, Tree]:
    """-> dt (N,) of a t that is no integer, None unless needs_dt; the gradients of "time" and, if there is one, "label"."""
    g: Tree = {"time": {}}
    dh = engine.silu_backward(demb, saved["silu2"])
    if "label" in saved:
        dh, de = engine.add_backward(dh, saved["add_label"])
        g["label"] = engine.embedding_backward(de, saved["label"])
    dh, g["time"]["linear2"] = engine.linear_backward(dh, saved["linear2"])
    dh = engine.silu_backward(dh, saved["silu1"])
    dh, g["time"]["linear1"] = engine.linear_backward(dh, saved["linear1"], needs_dx=needs_dt)
    return engine.time_embedding_backward(dh, saved["sinusoids"]) if needs_dt else None, g


# ---- residual block: x + conv(silu(norm(conv(silu(norm(x))) + time)))


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


# ---- attention block: x + projection(attention(q, k, v)), q, k, v = three products of norm(x)


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


# ---- down- and upsampling


def downsample_layout(channels: int, kind: str) -> Tree:
    return {"conv": conv_layout(3, channels, channels)} if kind == "strided" else {}


def downsample(engine: ModuleType, p: Tree, x: Any) -> tuple[Any, Saved]:
    """x (N, H, W, C) -> (N, H/2, W/2, C): a 3x3 convolution of stride 2, zeros after the last row and column as in
    [DDPM]'s code, or the mean of each 2x2 where there is no convolution."""
    saved: Saved = {}
    if "conv" in p:
        y, saved["conv"] = engine.conv2d(x, **p["conv"], stride=2, padding=(0, 1))
    else:
        y, saved["pool"] = engine.average_pool(x)
    return y, saved


def downsample_backward(engine: ModuleType, dy: Any, saved: Saved) -> tuple[Any, Tree]:
    """-> dx, gradients."""
    if "conv" in saved:
        dx, g = engine.conv2d_backward(dy, saved["conv"])
        return dx, {"conv": g}
    return engine.average_pool_backward(dy, saved["pool"]), {}


def upsample_layout(channels: int) -> Tree:
    return {"conv": conv_layout(3, channels, channels)}


def upsample(engine: ModuleType, p: Tree, x: Any) -> tuple[Any, Saved]:
    """x (N, H, W, C) -> (N, 2H, 2W, C): each pixel four times, then a 3x3 convolution."""
    saved: Saved = {}
    h, saved["nearest"] = engine.upsample_nearest(x)
    y, saved["conv"] = engine.conv2d(h, **p["conv"])
    return y, saved


def upsample_backward(engine: ModuleType, dy: Any, saved: Saved) -> tuple[Any, Tree]:
    """-> dx, gradients."""
    dh, g = engine.conv2d_backward(dy, saved["conv"])
    return engine.upsample_nearest_backward(dh, saved["nearest"]), {"conv": g}
