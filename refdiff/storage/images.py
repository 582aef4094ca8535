"""From samples in [-1, 1] to files one can look at or measure."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np

from ..plotting import TILE, as_bytes, check_images, grid, positive
from .atomic import replace_file


def save_png(path: str | os.PathLike[str], image: np.ndarray) -> None:
    """One image (H, W, 1 or 3), uint8 or float in [-1, 1], as a PNG, atomically. Raises ValueError, OSError."""
    path = _suffix(path, ".png")
    try:
        from PIL import Image
    except ImportError:
        raise ImportError("writing PNG needs Pillow, which is not installed: pip install pillow") from None
    image = as_bytes(image)
    check_images("image", image[None])
    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    replace_file(path, lambda file: picture.save(file, format="PNG"))


def save_grid(
    path: str | os.PathLike[str],
    images: np.ndarray,
    columns: int | None = None,
    pad: int = 1,
    scale: int | None = None,
) -> None:
    """`grid` as a PNG."""
    save_png(path, grid(images, columns, pad, scale))


def save_strip(path: str | os.PathLike[str], states: np.ndarray, pad: int = 1, scale: int | None = None) -> None:
    """The way from noise to image as a PNG: a row for each sample, a column for each state.

    states (K, N, H, W, C): K states in the order of sampling, of N samples.
    """
    states = np.asarray(states)
    if states.ndim != 5:
        raise ValueError(f"states: expected (K, N, H, W, C), got shape {states.shape}; stack the states of one batch")
    by_sample = states.swapaxes(0, 1)
    save_grid(path, by_sample.reshape(-1, *states.shape[2:]), columns=max(1, len(states)), pad=pad, scale=scale)


def save_blocks(
    path: str | os.PathLike[str],
    blocks: np.ndarray,
    titles: Sequence[str] = (),
    pad: int = 1,
    gap: int = 4,
    scale: int | None = None,
) -> None:
    """Several grids of one shape side by side as a PNG, each under its title: the same samples under another setting each.

    blocks (B, rows, columns, H, W, C): of each block its images row by row, so a class may have a row and a setting a block.
    titles: one a block, or none; gap: pixels (before enlargement) between blocks, beside `pad`. ValueError as for `grid`.
    """
    blocks = as_bytes(blocks)
    if blocks.ndim != 6 or not blocks.shape[0]:
        raise ValueError(f"blocks: expected (B, rows, columns, H, W, C), got shape {blocks.shape}; stack the grids")
    if len(titles) not in (0, len(blocks)):
        raise ValueError(f"titles: expected one for each of {len(blocks)} blocks, or none, got {len(titles)}")
    images, columns = blocks.reshape(len(blocks), -1, *blocks.shape[3:]), blocks.shape[2]
    scale = positive("scale", scale, -(-TILE // min(blocks.shape[3:5])))
    pictures = [grid(each, columns, pad, scale) for each in images]
    if titles:
        pictures = [np.vstack([_title(text, p.shape), p]) for text, p in zip(titles, pictures, strict=True)]
    between = np.zeros((len(pictures[0]), gap * scale, pictures[0].shape[2]), np.uint8)
    joined = [part for picture in pictures for part in (between, picture)][1:]
    save_png(path, np.hstack(joined))


def save_enlarged(
    path: str | os.PathLike[str], low_res: np.ndarray, images: np.ndarray, originals: np.ndarray | None = None
) -> None:
    """Small images, each pixel a block, beside what was made of them, and the large images that they were, if known, as a
    PNG: two or three squares of images, each under its title.   low_res (N, h, w, C); images, originals (N, H, W, C)."""
    n, height, width, channels = images.shape
    down, right = (np.arange(side) * low // side for side, low in zip((height, width), low_res.shape[1:3], strict=True))
    blocks = [low_res[:, down][:, :, right], images, *([] if originals is None else [originals])]
    columns = math.isqrt(n - 1) + 1
    rows = -(-n // columns)
    squares = np.full((len(blocks), rows * columns, height, width, channels), -1, np.float32)
    for square, block in zip(squares, blocks, strict=True):
        square[:n] = block
    titles = ("low resolution", "samples", "originals")[: len(blocks)]
    save_blocks(path, squares.reshape(len(blocks), rows, columns, height, width, channels), titles)


def _title(text: str, shape: tuple[int, ...]) -> np.ndarray:
    """A line of white text on black, as wide as a picture of this shape.   -> (height, width, C) uint8"""
    from PIL import Image, ImageDraw, ImageFont

    _, width, channels = shape
    size = max(12, width // 16)
    strip = Image.new("L", (width, 2 * size))
    ImageDraw.Draw(strip).text((size // 2, size // 3), text, fill=255, font=ImageFont.load_default(size))
    return np.asarray(strip)[..., None].repeat(channels, axis=2)


def save_folder(folder: str | os.PathLike[str], images: np.ndarray) -> None:
    """Each image, unscaled, as folder/00000.png, 00001.png, ...; the folder is made if need be.

    images (N, H, W, 1 or 3). Files of these names are replaced; raises ValueError if the folder holds other images,
    because whoever measures the folder would measure them too.
    """
    images = as_bytes(images)
    check_images("images", images)
    names = check_folder(folder, len(images))
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in zip(names, images, strict=True):
        save_png(folder / name, image)


def check_folder(folder: str | os.PathLike[str], n: int) -> list[str]:
    """The names that `save_folder` gives n images. ValueError if the folder is a file, or holds images of other names."""
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"folder: expected a folder, got the file {folder}; give another name")
    digits = max(5, len(str(n - 1)))
    names = [f"{i:0{digits}}.png" for i in range(n)]
    others = sorted({path.name for path in folder.glob("*.png")} - set(names))
    if others:
        raise ValueError(
            f"folder: expected no other images in {folder}, got {others[0]}; remove them or give a new folder"
        )
    return names


def save_npz(path: str | os.PathLike[str], images: np.ndarray) -> None:
    """The samples themselves as array `x`: float32 (N, ...), uncompressed, nothing clipped. Raises ValueError, OSError."""
    path = _suffix(path, ".npz")
    images = np.asarray(images)
    if images.dtype != np.float32:
        raise ValueError(f"images: expected float32, got {images.dtype}; cast it with astype('float32')")

    def write(file: IO[bytes]) -> None:
        np.savez(file, x=images)

    replace_file(path, write)


def _suffix(path: str | os.PathLike[str], suffix: str) -> Path:
    path = Path(path)
    if path.suffix.lower() != suffix:
        raise ValueError(f"path: expected a name that ends in {suffix}, got {path.name!r}; use {path.stem + suffix!r}")
    return path
