"""Down- and upsampling between the levels of a network, [DDPM] appendix B."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from ..network import Saved
from ..parameters import conv_layout
from ..trees import Tree

__all__ = ["downsample", "downsample_backward", "downsample_layout", "upsample", "upsample_backward", "upsample_layout"]


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
