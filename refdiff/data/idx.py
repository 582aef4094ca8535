"""IDX files, the format of MNIST and its relatives, plain or packed with gzip.

An IDX file is the bytes 0 0 8 d (8 says unsigned bytes), d sizes as big-endian 32-bit integers, then the bytes.
http://yann.lecun.com/exdb/mnist/
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from ..errors import FormatError
from .dataset import MAX_BYTES, Dataset, from_uint8, hold_out_tenth

T = TypeVar("T")
_GZIP = b"\x1f\x8b"
_CHUNK = 16 << 20


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def is_idx_folder(folder: Path) -> bool:
    """Whether the folder holds MNIST's training images by one of their names."""
    return _find(folder, "train", "images") is not None


def is_idx_file(path: Path) -> bool:
    """Whether the name or the first bytes are those of an IDX or gzip file."""
    if "idx" in path.name and "ubyte" in path.name:
        return True
    with open(path, "rb") as file:
        start = file.read(3)
    return start[:2] == _GZIP or start == b"\0\0\x08"


def load_idx_folder(folder: Path) -> Dataset:
    """train-images-idx3-ubyte, t10k-images-idx3-ubyte and their labels, each plain or .gz.

    The t10k images are held out; without them every tenth training image is. Labels are optional.
    x (N, H, W, 1). Raises FormatError naming the file that is not what it should be.
    """
    x, labels = _read_split(folder, "train")
    if _find(folder, "t10k", "images") is None:
        return hold_out_tenth(folder.name, x, labels)
    return Dataset(folder.name, x, labels, *_read_split(folder, "t10k"))


def load_idx_file(path: Path) -> Dataset:
    """One file of images (N, H, W, 1), every tenth held out.

    Labels come from the neighbour of the same name with "labels" for "images" and "idx1" for "idx3", if there is one.
    """
    x = read_images(path)
    neighbour = path.name.replace("images", "labels").replace("idx3", "idx1")
    stem = neighbour.removesuffix(".gz")
    if neighbour != path.name:
        for labels in (path.with_name(name) for name in (neighbour, stem, f"{stem}.gz")):
            if labels.is_file():
                return hold_out_tenth(path.name, x, _read_labels(labels, len(x)))
    return hold_out_tenth(path.name, x, None)


def shape_of_folder(folder: Path) -> tuple[int, ...]:
    """That of the training images."""
    images = _find(folder, "train", "images")
    assert images is not None
    return shape_of_file(images)


def shape_of_file(path: Path) -> tuple[int, ...]:
    """That of its images, by the header."""
    return *_open(path, lambda file: _header(file, path, 3))[1:], 1


def read_images(path: Path) -> np.ndarray:
    """An IDX file of three dimensions -> float32 (N, H, W, 1) in [-1, 1]."""
    return from_uint8(read_idx(path, 3)[..., None])


def read_idx(path: Path, ndim: int) -> np.ndarray:
    """The unsigned bytes of an IDX file with `ndim` dimensions, the last fastest.   -> uint8, read-only.

    Raises FormatError for another magic number, for a file shorter or longer than its header says, for a broken
    gzip stream, and for more than 8 GiB.
    """
    return _open(path, lambda file: _parse(file, path, ndim))


def _open(path: Path, use: Callable[[_Readable], T]) -> T:
    """use(file) on the bytes of the file, unpacked if need be. FormatError for a broken gzip stream."""
    try:
        with open(path, "rb") as file:
            packed = file.read(2) == _GZIP
        with gzip.open(path, "rb") if packed else open(path, "rb") as file:
            return use(file)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise FormatError(
            f"{path}: expected a whole gzip file, got a truncated or corrupt one ({error}); download it again"
        ) from None


def _header(file: _Readable, path: Path, ndim: int) -> tuple[int, ...]:
    """The sizes that an IDX file begins with."""
    magic, got = bytes((0, 0, 8, ndim)), file.read(4)
    if got != magic:
        raise FormatError(
            f"{path}: expected an IDX file of unsigned bytes in {ndim} dimensions (it starts {magic.hex()}), "
            f"got one that starts {got.hex() or 'with nothing'}; give the file that holds the "
            f"{'images' if ndim == 3 else 'labels'}, or download it again"
        )
    sizes = file.read(4 * ndim)
    if len(sizes) < 4 * ndim:
        raise FormatError(
            f"{path}: expected an IDX header of {4 + 4 * ndim} bytes, got {4 + len(sizes)}; download it again"
        )
    return struct.unpack(f">{ndim}I", sizes)


def _parse(file: _Readable, path: Path, ndim: int) -> np.ndarray:
    shape = _header(file, path, ndim)
    count = math.prod(shape)
    promise = f"{'x'.join(map(str, shape))} bytes after the header"
    if not 0 < count <= MAX_BYTES:
        raise FormatError(f"{path}: expected 1 byte to 8 GiB, got a header that says {promise}; it is corrupt or empty")
    data = _read(file, count + 1)
    if len(data) != count:
        what = f"{len(data)}" if len(data) < count else "more"
        raise FormatError(f"{path}: expected {promise}, as the header says, got {what}; download it again")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _read(file: _Readable, count: int) -> bytes:
    """Up to `count` bytes. In chunks, because read(count) would reserve whatever a corrupt header asks for."""
    chunks = []
    while count and (chunk := file.read(min(count, _CHUNK))):
        chunks.append(chunk)
        count -= len(chunk)
    return b"".join(chunks)


def _read_split(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray | None]:
    images, labels = _find(folder, split, "images"), _find(folder, split, "labels")
    assert images is not None
    x = read_images(images)
    return x, None if labels is None else _read_labels(labels, len(x))


def _read_labels(path: Path, count: int) -> np.ndarray:
    labels = read_idx(path, 1).astype(np.int64)
    if len(labels) != count:
        raise FormatError(
            f"{path}: expected {count} labels, one an image, got {len(labels)}; they belong to other images"
        )
    return labels


def _find(folder: Path, split: str, kind: str) -> Path | None:
    dimensions = {"images": "idx3", "labels": "idx1"}[kind]
    for separator in "-.":  # the second is how some mirrors write it
        for end in ("", ".gz"):
            path = folder / f"{split}-{kind}{separator}{dimensions}-ubyte{end}"
            if path.is_file():
                return path
    return None
