"""Memory that several processes see: an unnamed file that each of them maps."""

from __future__ import annotations

import mmap
import os
import tempfile

import numpy as np

__all__ = ["SharedMemory"]


class SharedMemory:
    """`count` numbers of float32 for each name, zero at first. descriptor: of the file, open as long as this is."""

    def __init__(self, names: tuple[str, ...], count: int, descriptor: int | None = None) -> None:
        """descriptor: of the file of another process's SharedMemory of the same names and count. It is closed with this."""
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
