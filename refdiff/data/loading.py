"""From a name or a path to a Dataset: `load` looks at what is there and calls the reader for it."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FormatError
from . import arrays, binary, cifar, folder, idx, line, planar
from .dataset import Dataset, from_uint8
from .digits import load_digits

# Every name that `load` knows, and what makes it.
NAMED: dict[str, Callable[[], Any]] = {"digits": load_digits, **binary.NAMED, **planar.NAMED, **line.NAMED}


def load(name_or_path: str | os.PathLike[str], *, resolution: int | None = None) -> Dataset:
    """The data set of that name, or the one in that file or folder.

    Names
        digits                             8x8 grey handwritten digits, bundled: 1442 + 355 held out, 10 classes
        binary-digits                      the same, black or white: -1 or 1
        heartbeat                          20 bits, a pulse every fifth: images 1x20 of -1 and 1, 1000 + 500 held out
        swissroll, moons, rings, mixture   points (N, 2): 8192 + 2048 held out
        mixture-1d                         points (N, 1) of three Gaussians: 8192 + 2048 held out
    Paths (a name wins over a path; write ./digits or give a Path for a path)
        folder with train-images-idx3-ubyte[.gz], ... (MNIST)   held out: the t10k images
        folder with data_batch_1.bin, ... (CIFAR-10, binary)    held out: test_batch.bin
        folder of images, all of one size, all grey or all RGB  classes: sub-folders, if all lie in such
        file *.npy or *.npz                                     held out: the array `held_out`
        file of IDX images, file *.bin of CIFAR-10
    Bytes become float32 by v / 127.5 - 1. Where no test split is there, every tenth sample (9, 19, ... from 0) is held
    out. With `resolution=R` images must be R x R; nothing is ever resized.

    Raises ValueError for an unknown name or a path that does not exist, for another resolution, and FormatError (a
    ValueError) for a file that is not what it should be.
    """
    named = isinstance(name_or_path, str) and name_or_path in NAMED
    data = NAMED[str(name_or_path)]() if named else _load_path(name_or_path)
    if resolution is not None:
        _check_resolution(data, resolution)
    return data


def load_images(name_or_path: str | os.PathLike[str]) -> tuple[np.ndarray, np.ndarray | None]:
    """Images to do something with, in their order, and their labels or None: of a data set with a held-out split of its own
    that split, of any other file or folder all images, or the one image of a file such as a PNG.   -> (N, H, W, C), (N,)

    Errors as of `load`; ValueError for points.
    """
    path = Path(os.path.expanduser(name_or_path))
    if name_or_path not in NAMED and path.suffix.lower() in folder.SUFFIXES and path.is_file():
        return from_uint8(folder.read_image(path))[None], None
    data = load(name_or_path)
    if not isinstance(data, Dataset) or len(data.shape) != 3:
        raise ValueError(
            f"name_or_path: expected images, got {name_or_path}, which has others; give a file or a folder"
        )
    return data.to_measure()


def shape_of(name_or_path: str | os.PathLike[str]) -> tuple[int, ...] | None:
    """The shape of one sample of what `load` would read, by a first image or a header alone; None where nothing is there.

    Errors as of `load`, as far as so little shows them.
    """
    if isinstance(name_or_path, str) and name_or_path in NAMED:
        entry = NAMED[name_or_path]().inputs.get("x")
        return entry.shape if entry else None
    path = Path(os.path.expanduser(name_or_path))
    if not os.fspath(name_or_path) or not os.path.exists(path):
        return None
    reader = _folder_reader(path) if path.is_dir() else _file_reader(path)
    return _SHAPES[reader](path)


def _load_path(name_or_path: str | os.PathLike[str]) -> Dataset:
    path = Path(os.path.expanduser(name_or_path))
    if not os.fspath(name_or_path) or not os.path.exists(path):
        raise ValueError(_unknown(os.fspath(name_or_path)))
    reader = _folder_reader(path) if path.is_dir() else _file_reader(path)
    try:
        return reader(path)
    except FormatError:
        raise
    except ValueError as error:  # from Dataset, which does not know the file
        raise FormatError(f"{path}: {error}") from None


def _folder_reader(path: Path) -> Callable[[Path], Dataset]:
    if idx.is_idx_folder(path):
        return idx.load_idx_folder
    if cifar.is_cifar_folder(path):
        return cifar.load_cifar_folder
    return folder.load_folder


def _file_reader(path: Path) -> Callable[[Path], Dataset]:
    suffix = path.suffix.lower()
    by_suffix = {".npy": arrays.load_npy, ".npz": arrays.load_npz, ".bin": cifar.load_cifar_file}
    if suffix in by_suffix:
        return by_suffix[suffix]
    if idx.is_idx_file(path):
        return idx.load_idx_file
    advice = (
        "give the folder it lies in" if suffix in folder.SUFFIXES else "give a folder of images, or convert it to .npz"
    )
    raise FormatError(f"{path}: expected .npy, .npz, .bin (CIFAR-10) or IDX (MNIST), got {path.name!r}; {advice}")


_SHAPES: dict[Callable[[Path], Dataset], Callable[[Path], tuple[int, ...]]] = {
    folder.load_folder: folder.shape_of_folder, idx.load_idx_folder: idx.shape_of_folder,
    idx.load_idx_file: idx.shape_of_file, cifar.load_cifar_folder: cifar.shape_of, cifar.load_cifar_file: cifar.shape_of,
    arrays.load_npy: arrays.shape_of_npy, arrays.load_npz: arrays.shape_of_npz,
}  # fmt: skip


def _unknown(text: str) -> str:
    close = difflib.get_close_matches(text.lower(), NAMED, n=2)
    guess = f"did you mean {' or '.join(close)}? " if close else ""
    return (
        f"name_or_path: expected one of {', '.join(NAMED)}, or the path of a file or folder, "
        f"got {text!r}, which is neither; {guess or 'check the spelling; '}see `load` for the formats it reads"
    )


def _check_resolution(data: Dataset, resolution: int) -> None:
    if not isinstance(resolution, int) or isinstance(resolution, bool) or resolution < 1:
        raise ValueError(f"resolution: expected a positive integer, got {resolution!r}; give the side in pixels")
    if len(data.shape) == 1:
        raise ValueError(
            f"resolution: expected none for {data.name}, which holds points, got {resolution}; leave it out"
        )
    height, width, _ = data.shape
    if (height, width) != (resolution, resolution):
        raise ValueError(
            f"resolution: expected images of {resolution}x{resolution}, got {width}x{height} in {data.name}; "
            "nothing is resized here: resize the files beforehand, or leave resolution out"
        )
