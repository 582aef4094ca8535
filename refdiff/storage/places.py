"""Whether a file can be written where somebody wants it, asked before the work whose result it is to hold."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..errors import option

__all__ = ["check_file", "check_place"]


def check_file(name: str, path: str | os.PathLike[str], suffixes: Sequence[str], force: bool = True) -> None:
    """ValueError, which begins with `name`, unless path ends in one of the suffixes and may be written: no folder, and with
    force=False nothing that is there. Folders above it may be missing; `check_place` looks at those that are not."""
    path = Path(path)
    if path.suffix.lower() not in suffixes:
        raise ValueError(f"{name}: expected a name ending in {' or '.join(suffixes)}, got {path}; rename it")
    if path.is_dir():
        raise ValueError(f"{name}: expected a file, got the folder {path}; choose another name")
    check_place(name, path, force)


def check_place(name: str, path: str | os.PathLike[str], force: bool = True) -> None:
    """ValueError unless the nearest folder above path that exists can be written to, and, with force=False, path is free."""
    path = Path(path)
    if path.exists() and not force:
        raise ValueError(f"{name}: {path} exists; add {option('force')} to write over it, or choose another")
    above = next(folder for folder in (*path.absolute().parents, Path("/")) if folder.exists())
    if not above.is_dir():
        raise ValueError(f"{name}: expected a place in a folder, got {path}, but {above} is a file; choose another")
    if not os.access(above, os.W_OK | os.X_OK):
        raise ValueError(f"{name}: expected a folder that may be written to, got {above}; choose another")
