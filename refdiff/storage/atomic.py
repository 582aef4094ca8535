"""A file is whole or it is not there: every file refdiff writes goes through `replace_file`."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import IO


def replace_file(path: str | os.PathLike[str], write: Callable[[IO[bytes]], object]) -> None:
    """Call write(file) on a new file in the folder of `path`, then put it in the place of `path` in one step.

    Whatever happens on the way (a full disk, an exception in `write`, an interrupt, a kill, a power cut), `path` holds
    the former file or the new one, whole. After an exception no temporary file remains; after a kill one named
    .refdiff-*.tmp may. A symbolic link is followed; permissions are those of the former file.

    Raises ValueError if the folder does not exist or `path` is no ordinary file, and OSError if writing fails.
    """
    path = Path(os.path.realpath(path))
    if not path.parent.is_dir():
        raise ValueError(f"path: expected a file in an existing folder, got {path}; create {path.parent} first")
    if path.exists() and not path.is_file():  # a device, too, would be replaced by a file
        raise ValueError(
            f"path: expected the name of a file, got {path}, which is a folder or device; give another name"
        )
    temporary = path.parent / f".refdiff-{secrets.token_hex(8)}.tmp"
    try:
        with open(temporary, "xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())  # else a power cut can leave the new name with no content
        if path.exists():
            shutil.copymode(path, temporary)
        os.replace(temporary, path)
    except BaseException:  # KeyboardInterrupt, too
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make the new name itself last; Windows has no such call and needs none."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
