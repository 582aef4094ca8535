"""The matrix library at one thread while an operation runs, and as it was afterwards.

The engine divides the work itself; OpenBLAS's own threads on products this small would cost 40 times what they save. The
setting belongs to the whole process, so it is made when the first of the operations running at the same time begins,
and taken back when the last one ends. NumPy built with another library than OpenBLAS is left as it is.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .fork import after_fork

__all__ = ["single_threaded_blas"]


def _library() -> tuple[Callable[[], int], Callable[[int], None]] | None:
    """OpenBLAS's get_num_threads and set_num_threads, of the copy that NumPy uses; None when it uses another library."""
    home = Path(np.__file__).parent
    folders = (home.parent / "numpy.libs", home / ".dylibs", home / ".libs")
    candidates = [str(path) for folder in folders for path in sorted(folder.glob("*openblas*"))]
    if not candidates:  # NumPy of a distribution: the library it has loaded
        try:
            maps = Path("/proc/self/maps").read_text().splitlines()
            candidates = sorted({line.split(maxsplit=5)[5] for line in maps if "openblas" in line})
        except (OSError, IndexError):
            return None
    for candidate in candidates:
        try:
            library = ctypes.PyDLL(candidate)
        except OSError:
            continue
        for prefix in ("scipy_openblas", "openblas"):
            for suffix in ("64_", ""):
                try:
                    get = getattr(library, f"{prefix}_get_num_threads{suffix}")
                    put = getattr(library, f"{prefix}_set_num_threads{suffix}")
                except AttributeError:
                    continue
                put.restype = None
                return get, put
    return None


class _SingleThreadedBlas:
    """`with single_threaded_blas:` keep the matrix library at one thread, across several operations where it stands around
    them. Blocks of all threads may overlap: the first makes the setting, the last takes it back. users: blocks entered."""

    def __init__(self) -> None:
        self._functions = _library()
        self._lock = threading.Lock()
        self.users = 0
        self._before = 1

    @property
    def threads(self) -> int | None:
        """How many threads the library uses now; None where it is another than OpenBLAS."""
        return self._functions[0]() if self._functions else None

    @threads.setter
    def threads(self, n: int) -> None:
        if self._functions:
            self._functions[1](n)

    def __enter__(self) -> None:
        with self._lock:
            if not self.users and self._functions:
                self._before = self._functions[0]()
                if self._before != 1:
                    self._functions[1](1)
            self.users += 1

    def __exit__(self, *_: Any) -> None:
        with self._lock:
            self.users -= 1
            if not self.users and self._functions and self._before != 1:
                self._functions[1](self._before)

    def reset(self) -> None:
        """In a child process of fork, where no operation runs."""
        self._lock, self.users = threading.Lock(), 0


single_threaded_blas = _SingleThreadedBlas()
after_fork(single_threaded_blas.reset)
