"""A folder of images, read with Pillow."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np

from ..errors import FormatError
from .dataset import MAX_BYTES, Dataset, from_uint8, hold_out_tenth

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif")

# What Pillow calls the modes that become grey (L) or RGB without loss.
_MODES = {"1": "L", "L": "L", "P": "RGB", "RGB": "RGB"}


def load_folder(folder: Path) -> Dataset:
    """Every image in the folder and below, sorted by path; names that start with a dot are left out.

    All grey gives x (N, H, W, 1), all RGB (palettes too) x (N, H, W, 3). Every tenth image is held out. If all images
    lie exactly one level down, each sub-folder is a class, numbered in the order of the names and called so.
    Raises FormatError for a folder without images, images of two sizes or two modes, transparency, animation,
    16 bits a channel, a file that Pillow cannot decode, and decompression bombs.
    """
    paths = _some_images(folder)
    x = None
    for i, path in enumerate(paths):
        pixels = read_image(path)
        if x is None:
            if len(paths) * pixels.size > MAX_BYTES:
                size = _describe(pixels)
                raise FormatError(
                    f"{folder}: expected at most 8 GiB of pixels, got {len(paths)} images of {size}; shrink them first"
                )
            first, x = pixels, np.empty((len(paths), *pixels.shape), np.float32)
        if pixels.shape != first.shape:
            raise FormatError(
                f"{folder}: expected images of one size and mode, got {paths[0].relative_to(folder)} "
                f"({_describe(first)}) and {path.relative_to(folder)} ({_describe(pixels)}); "
                "convert them to one size and to grey or RGB beforehand"
            )
        x[i] = from_uint8(pixels)
    assert x is not None
    return hold_out_tenth(folder.name, x, *_labels(folder, paths))


def shape_of_folder(folder: Path) -> tuple[int, ...]:
    """That of its first image, which all others have if it can be loaded."""
    return read_image(_some_images(folder)[0]).shape


def _some_images(folder: Path) -> list[Path]:
    paths = find_images(folder)
    if not paths:
        raise FormatError(
            f"{folder}: expected images ({', '.join(SUFFIXES)}), IDX or CIFAR-10 files, got a folder with none; "
            "give the folder that holds them, or the path of a .npy or .npz file"
        )
    return paths


def find_images(folder: Path) -> list[Path]:
    """The images in the folder and below, sorted by path."""
    paths = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths += [Path(parent, name) for name in names if not name.startswith(".") and name.lower().endswith(SUFFIXES)]
    return sorted(paths, key=lambda path: path.relative_to(folder).parts)


def read_image(path: Path) -> np.ndarray:
    """One image file -> uint8 (H, W, 1) if it is grey, (H, W, 3) if RGB or a palette. Raises FormatError."""
    try:
        from PIL import Image
    except ImportError:
        raise ImportError("reading images needs Pillow, which is not installed: pip install pillow") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                wrong = _unsupported(image)
                if wrong is None:
                    pixels = np.array(image.convert(_MODES[image.mode]))
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise a dozen kinds, down to SyntaxError and struct.error
        reason = " ".join(str(error).split()) or type(error).__name__
        raise FormatError(
            f"{path}: expected an image, got a file that cannot be decoded ({reason}); replace or remove it"
        ) from None
    if wrong is not None:
        raise FormatError(f"{path}: expected one grey or RGB image of 8 bits a channel, got {wrong}")
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _unsupported(image) -> str | None:  # type: ignore[no-untyped-def]
    """What is wrong with an opened Pillow image and what to do, or None."""
    if getattr(image, "n_frames", 1) > 1:
        return f"an animation of {image.n_frames} frames; save each frame as an image"
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        return "one with transparency; lay it on a background first"
    if image.mode not in _MODES:
        return f"mode {image.mode}; convert it to grey or RGB"
    return None


def _labels(folder: Path, paths: list[Path]) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """The class of each image, and the names of the classes."""
    if any(path.parent.parent != folder for path in paths):
        return None, ()
    classes = sorted({path.parent.name for path in paths})
    number = {name: i for i, name in enumerate(classes)}
    return np.array([number[path.parent.name] for path in paths], np.int64), tuple(classes)


def _describe(pixels: np.ndarray) -> str:
    height, width, channels = pixels.shape
    return f"{width}x{height} {'grey' if channels == 1 else 'RGB'}"
