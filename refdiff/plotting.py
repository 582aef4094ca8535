"""Figures without a display, and images in a grid. matplotlib is asked for here alone, and only when something is drawn."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .errors import extra

__all__ = ["TILE", "as_bytes", "check_images", "grid", "new_figure", "positive", "to_uint8"]

TILE, _LEAST = 64, 8  # a tile is enlarged to at least so many pixels, and so many along its short side


def new_figure(width: float, height: float) -> Any:
    """An empty matplotlib Figure of so many inches, to be saved with `savefig`.   ImportError without matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise ImportError(f"plots need matplotlib, which is not installed: {extra('plot')}") from None
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def to_uint8(x: np.ndarray) -> np.ndarray:
    """round(127.5 (x + 1)), halves to even, x clipped to [-1, 1] first.   float, any shape -> uint8, same shape.

    The inverse of x = v / 127.5 - 1 for v = 0 .. 255. Raises ValueError for NaN and for anything but floats.
    """
    x = np.asarray(x)
    if x.dtype.kind != "f":
        raise ValueError(f"x: expected floats in [-1, 1], got {x.dtype}; give samples as they come from a model")
    if np.isnan(x).any():
        raise ValueError(
            f"x: expected numbers, got {int(np.isnan(x).sum())} NaN of {x.size}; look for where they arose"
        )
    y = np.clip(x, -1, 1).astype(np.float32)
    return np.rint((y + 1) * 127.5).astype(np.uint8)


def grid(images: np.ndarray, columns: int | None = None, pad: int = 1, scale: int | None = None) -> np.ndarray:
    """Images side by side, row by row, on black, with `pad` pixels (before enlargement) between and around them.

    images   (N, H, W, C), C = 1 or 3, N >= 1; float in [-1, 1] (made bytes by `to_uint8`) or uint8
    columns  how many in a row; by default the smallest square that holds all
    scale    each pixel becomes scale x scale; by default the smallest that makes a tile at least 64 pixels long and 8 wide
    -> uint8 (rows (H + pad) + pad, columns (W + pad) + pad, C), times scale. Raises ValueError.
    """
    images = as_bytes(images)
    check_images("images", images)
    count, height, width, channels = images.shape
    columns = positive("columns", columns, math.isqrt(count - 1) + 1)
    scale = positive("scale", scale, max(-(-TILE // max(height, width)), -(-_LEAST // min(height, width))))
    if not isinstance(pad, int) or pad < 0:
        raise ValueError(f"pad: expected an integer of at least 0, got {pad!r}; 1 is usual")
    rows = -(-count // columns)
    canvas = np.zeros((rows * (height + pad) + pad, columns * (width + pad) + pad, channels), np.uint8)
    for i, image in enumerate(images):
        top, left = pad + i // columns * (height + pad), pad + i % columns * (width + pad)
        canvas[top : top + height, left : left + width] = image
    return canvas.repeat(scale, axis=0).repeat(scale, axis=1)


def as_bytes(images: np.ndarray) -> np.ndarray:
    """Bytes as they are, floats made bytes by `to_uint8`."""
    images = np.asarray(images)
    return images if images.dtype == np.uint8 else to_uint8(images)


def check_images(argument: str, images: np.ndarray) -> None:
    """ValueError unless these are images (N, H, W, 1 or 3), or, where the argument is `image`, one of them is."""
    if images.ndim != 4 or images.shape[3] not in (1, 3) or 0 in images.shape:
        one = argument == "image"
        expected, shape = ("(H, W, C)", images.shape[1:]) if one else ("(N, H, W, C)", images.shape)
        raise ValueError(f"{argument}: expected {expected} with C = 1 or 3, none of them 0, got {shape}; reshape it")


def positive(argument: str, value: int | None, default: int) -> int:
    """The value, or the default for None. ValueError for anything but a positive integer."""
    if value is None:
        return default
    if not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{argument}: expected a positive integer, got {value!r}; leave it out for a default")
    return int(value)
