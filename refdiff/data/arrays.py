"""Data sets in .npy and .npz files. Headers and declared sizes are looked at before anything is unpacked."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeVar

import numpy as np

from ..errors import FormatError
from .dataset import MAX_BYTES, Dataset, check_samples, from_uint8, hold_out_tenth

T = TypeVar("T")
_NAMES = ("x", "labels", "held_out", "held_out_labels")

# Photographs shrink 1 to 3 times, drawings 20; deflate's limit is 1032. Small files may shrink as they like.
MAX_RATIO, SMALL = 200, 32 << 20


def load_npy(path: Path) -> Dataset:
    """One array of samples, every tenth held out; dtypes and ranges as for `load_npz`."""
    with open(path, "rb") as file:
        x = _read_array(file, path.stat().st_size, str(path))
    return hold_out_tenth(path.name, _samples(str(path), x), None)


def load_npz(path: Path) -> Dataset:
    """Arrays `x` and, where they are, `labels`, `held_out`, `held_out_labels`; or one array of any name.

    Samples: images (N, H, W, 1 or 3), uint8 scaled to [-1, 1] by v / 127.5 - 1 or floats within [-1, 1] already, or
    points (N, D) of finite floats. Floats of another width become float32, labels of any integer type int64. Without
    `held_out` every tenth sample is held out.
    Raises FormatError for truncated or corrupt files, pickled objects, other shapes, dtypes, ranges or names, NaN,
    more than 8 GiB unpacked, and archives that shrink more than 200 times.
    """
    arrays = _open(path, _read_members)
    if len(arrays) == 1:
        ((name, x),) = arrays.items()
        return hold_out_tenth(path.name, _samples(f"{path}: {name}", x), None)
    x = _samples(f"{path}: x", arrays["x"])
    labels = _labels(f"{path}: labels", arrays.get("labels"))
    held_out_labels = _labels(f"{path}: held_out_labels", arrays.get("held_out_labels"))
    if "held_out" in arrays:
        return Dataset(path.name, x, labels, _samples(f"{path}: held_out", arrays["held_out"]), held_out_labels)
    if held_out_labels is not None:
        raise FormatError(f"{path}: expected held_out beside held_out_labels, got none; give both or neither")
    return hold_out_tenth(path.name, x, labels)


def shape_of_npy(path: Path) -> tuple[int, ...]:
    """That of one sample, by the header."""
    with open(path, "rb") as file:
        return _read_header(file, str(path))[0][1:]


def shape_of_npz(path: Path) -> tuple[int, ...]:
    """That of one sample of `x`, or of the only array, by its header."""
    return _open(path, _shape_of_member)[1:]


def _shape_of_member(archive: zipfile.ZipFile, path: Path) -> tuple[int, ...]:
    members = _members(archive, path)
    name = "x" if "x" in members else min(members)
    with archive.open(members[name]) as file:
        return _read_header(file, f"{path}: {name!r}")[0]


def _open(path: Path, use: Callable[[zipfile.ZipFile, Path], T]) -> T:
    """use(archive, path) on the .npz file."""
    try:
        with zipfile.ZipFile(path) as archive:
            return use(archive, path)
    except (FormatError, MemoryError):
        raise
    except Exception as error:  # zipfile raises BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError ...
        raise FormatError(
            f"{path}: expected a .npz archive, got one that is truncated or corrupt ({_reason(error)}); save it again"
        ) from None


def _members(archive: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    """The arrays of the archive by their names, once names and sizes are seen to be right."""
    members = archive.infolist()
    total, packed = sum(m.file_size for m in members), sum(m.compress_size for m in members)
    if total > MAX_BYTES:
        raise FormatError(f"{path}: expected at most 8 GiB unpacked, got {total / 2**30:.1f} GiB; split the file")
    if total > SMALL and total > MAX_RATIO * packed:
        raise FormatError(
            f"{path}: expected an archive that shrinks its arrays at most {MAX_RATIO} times, got one of {packed} bytes "
            f"that unpacks to {total}, perhaps a decompression bomb; if you trust it, save it uncompressed with numpy.savez"
        )
    names = [member.filename.removesuffix(".npy") for member in members]
    if len(names) != 1 and not {"x"} <= set(names) <= set(_NAMES):
        raise FormatError(
            f"{path}: expected arrays named {', '.join(_NAMES)} (x at least), or one array of any name, "
            f"got {', '.join(map(repr, sorted(names)))[:200] or 'none'}; rename them"
        )
    return dict(zip(names, members, strict=True))


def _read_members(archive: zipfile.ZipFile, path: Path) -> dict[str, np.ndarray]:
    arrays = {}
    for name, member in _members(archive, path).items():
        with archive.open(member) as file:
            arrays[name] = _read_array(file, member.file_size, f"{path}: {name!r}")
    return arrays


def _read_array(file: IO[bytes], size: int, where: str) -> np.ndarray:
    """The array in a .npy stream of `size` bytes, once its header is seen to promise exactly what is there."""
    shape, dtype = _read_header(file, where)
    objects, expected, got = dtype.hasobject, math.prod(shape) * dtype.itemsize, size - file.tell()
    if not objects and min(shape, default=0) >= 0 and got == expected:
        file.seek(0)
        with _reading(where):
            array: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
            return array
    if objects:
        raise FormatError(
            f"{where}: expected numbers, got Python objects, whose pickles can run code; save plain numbers"
        )
    raise FormatError(
        f"{where}: expected {expected} bytes of array, as the header says, got {got}; "
        "it is truncated or corrupt: save it again"
    )


def _read_header(file: IO[bytes], where: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype, as the header of a .npy stream says."""
    form = np.lib.format
    with _reading(where):
        version = form.read_magic(file)
        readers = {(1, 0): form.read_array_header_1_0, (2, 0): form.read_array_header_2_0}
        shape, _, dtype = readers[version](file)
        return shape, dtype


@contextmanager
def _reading(where: str) -> Iterator[None]:
    """Whatever a broken .npy stream raises becomes a FormatError."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # numpy parses with ast: ValueError, SyntaxError, RecursionError, EOFError ...
        raise FormatError(
            f"{where}: expected a .npy array, got something truncated or corrupt ({_reason(error)}); save it again"
        ) from None


def _samples(where: str, x: np.ndarray) -> np.ndarray:
    if x.dtype == np.uint8 and x.ndim != 2:
        x = from_uint8(x)
    elif x.dtype.kind != "f":
        raise FormatError(
            f"{where}: expected uint8 images, floats in [-1, 1] or points (N, D) of floats, "
            f"got {x.dtype} of shape {x.shape}; convert it first"
        )
    try:
        check_samples(where, x)  # before the cast, which could round into the range
    except ValueError as error:
        raise FormatError(str(error)) from None
    with np.errstate(over="ignore"):  # what becomes infinite is refused by Dataset
        return x.astype(np.float32, copy=False)


def _labels(where: str, labels: np.ndarray | None) -> np.ndarray | None:
    if labels is None:
        return None
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise FormatError(
            f"{where}: expected one integer a sample, got {labels.dtype} of shape {labels.shape}; number the classes from 0"
        )
    if labels.size and not 0 <= labels.min() <= labels.max() < 1 << 31:
        raise FormatError(
            f"{where}: expected classes counted from 0, below 2^31, got {labels.min()} to {labels.max()}; renumber them"
        )
    return labels.astype(np.int64)


def _reason(error: Exception) -> str:
    """The first 120 characters of an error, on one line."""
    return (" ".join(str(error).split()) or type(error).__name__)[:120]
