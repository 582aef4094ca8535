"""CIFAR-10, binary version: records of one label and 3 x 32 x 32 bytes, planes red, green, blue.

https://www.cs.toronto.edu/~kriz/cifar.html. The Python version holds pickles, which can run code; it is refused.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import FormatError
from .dataset import MAX_BYTES, Dataset, from_uint8, hold_out_tenth

_RECORD = 1 + 3 * 32 * 32


def shape_of(path: Path) -> tuple[int, ...]:
    """That of every image of CIFAR-10."""
    return 32, 32, 3


def is_cifar_folder(folder: Path) -> bool:
    """Whether the folder holds a training batch of CIFAR-10, binary or (to be refused by name) Python version."""
    return any(folder.glob("data_batch_*"))


def load_cifar_folder(folder: Path) -> Dataset:
    """data_batch_1.bin, data_batch_2.bin, ... and test_batch.bin, which is held out; without it every tenth image is.

    x (N, 32, 32, 3), 10 classes. Raises FormatError for a missing, truncated or corrupt batch.
    """
    batches = list(folder.glob("data_batch_*.bin"))
    if not batches:
        raise FormatError(
            f"{folder}: expected data_batch_1.bin, ..., got the Python version of CIFAR-10, which refdiff does not "
            "open because pickles can run code; download the binary version, cifar-10-binary.tar.gz"
        )
    expected = [folder / f"data_batch_{i + 1}.bin" for i in range(len(batches))]
    if set(expected) != set(batches):
        missing, extra = min(set(expected) - set(batches)), max(set(batches) - set(expected))
        raise FormatError(f"{folder}: expected {missing.name} beside {extra.name}, got none; unpack the archive again")
    x, labels = (np.concatenate(parts) for parts in zip(*map(read_batch, expected), strict=True))
    test = folder / "test_batch.bin"
    if not test.is_file():
        return hold_out_tenth(folder.name, x, labels)
    return Dataset(folder.name, x, labels, *read_batch(test))


def load_cifar_file(path: Path) -> Dataset:
    """One batch, every tenth image held out."""
    return hold_out_tenth(path.name, *read_batch(path))


def read_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """-> x float32 (N, 32, 32, 3) in [-1, 1], labels int64 (N,) from 0 to 9."""
    size = path.stat().st_size
    if not 0 < size <= MAX_BYTES or size % _RECORD:
        hint = "this may be CIFAR-100, which is not read" if size and size % (_RECORD + 1) == 0 else "download it again"
        raise FormatError(
            f"{path}: expected CIFAR-10's binary version, records of {_RECORD} bytes, got {size} bytes"
            f"{f', {size % _RECORD} too many' if size % _RECORD else ''}; {hint}"
        )
    records = np.fromfile(path, np.uint8).reshape(-1, _RECORD)
    labels = records[:, 0].astype(np.int64)
    if labels.max() > 9:
        where = int(labels.argmax())
        raise FormatError(
            f"{path}: expected labels from 0 to 9, got {labels[where]} in record {where}; "
            "it is corrupt or not CIFAR-10: download it again"
        )
    return from_uint8(records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1).copy()), labels
