"""Down- and upsampling between the levels of a network: [DDPM] appendix B, and the other ways that published networks have.

| kind | down | up |
| --- | --- | --- |
| strided | 3x3 convolution, stride 2, zeros after the last row and column: [DDPM] | nearest, then a 3x3 convolution |
| centred | the same with zeros all around: [IDDPM], [ADM] without BigGAN's | nearest, then a 3x3 convolution |
| pooled | the mean of each 2x2 | nearest, then a 3x3 convolution |
| plain | the mean of each 2x2 | nearest |
| residual | inside a residual block, the mean of both paths: [BigGAN], [ADM] section 3 | the same with nearest |
| residual_projected | the same with a 1x1 convolution on the shortcut: [SDE] | the same with nearest |
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from ..network import Saved
from ..parameters import conv_layout
from ..trees import Tree

__all__ = [
    "RESAMPLINGS", "by_two", "by_two_backward", "downsample", "downsample_backward", "downsample_layout", "upsample",
    "upsample_backward", "upsample_layout",
]  # fmt: skip

RESAMPLINGS = ("strided", "centred", "pooled", "plain", "residual", "residual_projected")
PADDINGS = {"strided": (0, 1), "centred": (1, 1)}  # of the convolutions of stride 2: before and after


def by_two(engine: ModuleType, x: Any, direction: str) -> tuple[Any, Saved]:
    """The mean of each 2x2 ("down"), or each pixel four times ("up"): what has no parameters."""
    saved: Saved = {}
    if direction == "down":
        y, saved["pool"] = engine.average_pool(x)
    else:
        y, saved["nearest"] = engine.upsample_nearest(x)
    return y, saved


def by_two_backward(engine: ModuleType, dy: Any, saved: Saved) -> Any:
    if "pool" in saved:
        return engine.average_pool_backward(dy, saved["pool"])
    return engine.upsample_nearest_backward(dy, saved["nearest"])


def downsample_layout(channels: int, kind: str) -> Tree:
    return {"conv": conv_layout(3, channels, channels)} if kind in PADDINGS else {}


def downsample(engine: ModuleType, p: Tree, x: Any, kind: str = "strided") -> tuple[Any, Saved]:
    """x (N, H, W, C) -> (N, H/2, W/2, C): a 3x3 convolution of stride 2, zeros after the last row and column as in
    [DDPM]'s code or, of kind "centred", all around, or the mean of each 2x2 where there is no convolution."""
    saved: Saved = {}
    if "conv" in p:
        y, saved["conv"] = engine.conv2d(x, **p["conv"], stride=2, padding=PADDINGS[kind])
        return y, saved
    return by_two(engine, x, "down")


def downsample_backward(engine: ModuleType, dy: Any, saved: Saved) -> tuple[Any, Tree]:
    """-> dx, gradients."""
    if "conv" in saved:
        dx, g = engine.conv2d_backward(dy, saved["conv"])
        return dx, {"conv": g}
    return by_two_backward(engine, dy, saved), {}


def upsample_layout(channels: int, kind: str = "strided") -> Tree:
    return {} if kind == "plain" else {"conv": conv_layout(3, channels, channels)}


def upsample(engine: ModuleType, p: Tree, x: Any) -> tuple[Any, Saved]:
    """x (N, H, W, C) -> (N, 2H, 2W, C): each pixel four times, then a 3x3 convolution where there is one."""
    y, saved = by_two(engine, x, "up")
    if "conv" in p:
        y, saved["conv"] = engine.conv2d(y, **p["conv"])
    return y, saved


def upsample_backward(engine: ModuleType, dy: Any, saved: Saved) -> tuple[Any, Tree]:
    """-> dx, gradients."""
    g: Tree = {}
    if "conv" in saved:
        dy, g["conv"] = engine.conv2d_backward(dy, saved["conv"])
    return by_two_backward(engine, dy, saved), g
