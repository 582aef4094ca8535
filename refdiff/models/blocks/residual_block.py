"""The residual block, [DDPM] appendix B: x + conv(silu(norm(conv(silu(norm(x))) + emb))).

With what [ADM] section 3 gives it: emb as scale and shift of the second norm, and down- and upsampling inside [BigGAN].
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from ...random import Sequence
from ..network import Saved
from ..parameters import conv_layout, linear_layout, norm_layout
from ..trees import Tree
from .resample import by_two, by_two_backward

__all__ = ["CONDITIONINGS", "groups_of", "residual", "residual_backward", "residual_layout"]

CONDITIONINGS = ("add", "scale_shift")


def groups_of(channels: int, most: int) -> int:
    """The number of groups a norm uses: the largest up to `most` that divides the channels and leaves two a group.

    A group of one channel would take away what the block adds to the whole channel: the time.
    """
    return max((g for g in range(2, most + 1) if channels % g == 0 and channels // g > 1), default=1)


def residual_layout(c_in: int, c_out: int, width: int, conditioning: str = "add", projected: bool = False) -> Tree:
    """width: of emb. conditioning: "scale_shift" asks twice as much of it. projected: a 1x1 convolution on the shortcut,
    which there always is where the channels change."""
    twice = conditioning == "scale_shift"
    p = {
        "norm1": norm_layout(c_in),
        "conv1": conv_layout(3, c_in, c_out),
        "time": linear_layout(width, 2 * c_out, parts=2) if twice else linear_layout(width, c_out),
        "norm2": norm_layout(c_out),
        "conv2": conv_layout(3, c_out, c_out, zero=True),
    }
    if c_in != c_out or projected:
        p["shortcut"] = linear_layout(c_in, c_out)
    return p


def residual(
    engine: ModuleType,
    p: Tree,
    x: Any,
    emb: Any,
    groups: int,
    rate: float = 0.0,
    key: Sequence | None = None,
    *,
    epsilon: float = 1e-6,
    conditioning: str = "add",
    resample: str = "",
    factor: float = 1.0,
) -> tuple[Any, Saved]:
    """x (N, H, W, C_in), emb (N, E) -> (N, H', W', C_out). Dropout when rate > 0 and a key is given.

    conditioning: "add", norm(h + e), or "scale_shift", (1 + scale) norm(h) + shift with [scale, shift] = e, e = W emb, which
    is adaptive group norm [ADM] section 3.1. resample: "down" or "up", mean or nearest of both paths, on the first behind
    norm and SiLU [BigGAN]. factor: of the sum of both paths, 1/sqrt 2 in [SDE]'s networks.
    """
    saved: Saved = {}
    h, saved["norm1"] = engine.group_norm_silu(x, **p["norm1"], groups=groups_of(x.shape[-1], groups), epsilon=epsilon)
    if resample:
        h, saved["resample"] = by_two(engine, h, resample)
        x, saved["resample_shortcut"] = by_two(engine, x, resample)
    h, saved["conv1"] = engine.conv2d(h, **p["conv1"])
    e, saved["time"] = engine.linear(emb, **p["time"])
    own = groups_of(h.shape[-1], groups)
    if conditioning == "scale_shift":
        (scale, shift), saved["scale_shift"] = engine.split(e, 2)
        h, saved["norm2"] = engine.adaptive_group_norm_silu(
            h, scale, shift, **p["norm2"], groups=own, epsilon=epsilon
        )  # fmt: skip
    else:
        h, saved["add_time"] = engine.broadcast_add(h, e)
        h, saved["norm2"] = engine.group_norm_silu(h, **p["norm2"], groups=own, epsilon=epsilon)
    if rate and key is not None:
        h, saved["dropout"] = engine.dropout(h, rate, key)
    h, saved["conv2"] = engine.conv2d(h, **p["conv2"])
    if "shortcut" in p:
        x, saved["shortcut"] = engine.linear(x, **p["shortcut"])
    y, saved["add"] = engine.add(x, h)
    if factor != 1:
        y, saved["scale"] = engine.scale(y, factor)
    return y, saved


def residual_backward(engine: ModuleType, dy: Any, saved: Saved) -> tuple[Any, Any, Tree]:
    """-> dx, demb, gradients."""
    g: Tree = {}
    if "scale" in saved:
        dy = engine.scale_backward(dy, saved["scale"])
    dx, dh = engine.add_backward(dy, saved["add"])
    if "shortcut" in saved:
        dx, g["shortcut"] = engine.linear_backward(dx, saved["shortcut"])
    dh, g["conv2"] = engine.conv2d_backward(dh, saved["conv2"])
    if "dropout" in saved:
        dh = engine.dropout_backward(dh, saved["dropout"])
    if "scale_shift" in saved:
        dh, dscale, dshift, g["norm2"] = engine.adaptive_group_norm_silu_backward(dh, saved["norm2"])
        de = engine.split_backward((dscale, dshift), saved["scale_shift"])
    else:
        dh, g["norm2"] = engine.group_norm_silu_backward(dh, saved["norm2"])
        dh, de = engine.broadcast_add_backward(dh, saved["add_time"])
    demb, g["time"] = engine.linear_backward(de, saved["time"])
    dh, g["conv1"] = engine.conv2d_backward(dh, saved["conv1"])
    if "resample" in saved:
        dx = by_two_backward(engine, dx, saved["resample_shortcut"])
        dh = by_two_backward(engine, dh, saved["resample"])
    dh, g["norm1"] = engine.group_norm_silu_backward(dh, saved["norm1"])
    return engine.accumulate(dx, dh), demb, g
