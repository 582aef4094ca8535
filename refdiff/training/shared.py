"""Memory that two processes see: an unnamed file that both map."""

from __future__ import annotations

import mmap
import os
import tempfile

import numpy as np

__all__ = ["Shared"]


class Shared:
    """`count` numbers of float32 for each name, zero at first. descriptor: of the file, open as long as this is."""

    def __init__(self, names: tuple[str, ...], count: int, descriptor: int | None = None) -> None:
        """descriptor: of another process's Shared of the same names and count, which is then seen; it is taken over."""
        self.names, self.count = names, count
        size = max(4 * count * len(names), mmap.PAGESIZE)
        self.descriptor = _unnamed(size) if descriptor is None else descriptor
        memory = mmap.mmap(self.descriptor, size)
        self.arrays = {
            name: np.frombuffer(memory, np.float32, count, 4 * count * i) for i, name in enumerate(names)
        }  # fmt: skip

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


def _unnamed(size: int) -> int:
    """A file of zeros that nobody else can open. /dev/shm is not used: containers keep it small."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("refdiff")
    else:
        descriptor, path = tempfile.mkstemp(prefix="refdiff-")
        os.unlink(path)
    os.ftruncate(descriptor, size)
    return descriptor
