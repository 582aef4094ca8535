"""The matrix library at one thread while an operation runs, and as it was afterwards.

The engine divides the work itself; OpenBLAS's own threads on products this small would cost 40 times what they save. The
setting belongs to the whole process, so it is made when the first of the operations running at the same time begins,
and taken back when the last one ends. NumPy built with another library than OpenBLAS is left as it is.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

__all__ = ["controlled", "enter", "held", "leave"]


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


_functions = _library()
controlled = _functions is not None
_lock = threading.Lock()
_users = 0
_before = 1


def enter() -> None:
    """An operation begins."""
    global _users, _before
    with _lock:
        if not _users and _functions:
            _before = _functions[0]()
            if _before != 1:
                _functions[1](1)
        _users += 1


def leave() -> None:
    """An operation ends."""
    global _users
    with _lock:
        _users -= 1
        if not _users and _functions and _before != 1:
            _functions[1](_before)


@contextmanager
def held() -> Iterator[None]:
    """Many operations, between which nobody else is let in."""
    enter()
    try:
        yield
    finally:
        leave()


def _forget() -> None:
    """A child process of fork runs no operation."""
    global _lock, _users
    _lock, _users = threading.Lock(), 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
