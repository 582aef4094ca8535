"""Checkpoints: named arrays and a dictionary of plain values in one safetensors file.

The file is: the header's length (8 bytes, little-endian), the header (JSON: each array's dtype, shape and place), the
arrays. https://github.com/huggingface/safetensors#format. refdiff's own metadata is one JSON string in it, under the key
"refdiff", so that the bytes depend on the content alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FormatError
from .atomic import replace_file
from .header import DTYPES, read_header

KEY, FORMAT = "refdiff", 1


def save_checkpoint(
    path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]
) -> None:
    """Write the arrays (any shape; booleans, integers, floats to 64 bits, complex64) and the metadata atomically.

    `metadata` holds what JSON can: None, bool, int, finite float, str, lists and dictionaries with str keys; a tuple
    comes back as a list. Same content, in whatever order, gives the same bytes.

    Raises ValueError for arrays or metadata that the file cannot hold and for a path in no folder, OSError if writing
    fails (a full disk); the former file is then still there, whole.
    """
    try:
        from safetensors.numpy import save
    except ImportError:
        raise _missing() from None
    # safetensors writes an array's memory from its start, whatever its strides: another order would come back as
    # different numbers. (asarray, because ascontiguousarray turns shape () into (1,).)
    ordered = {name: np.asarray(_checked(name, arrays[name]), order="C") for name in sorted(arrays)}
    data = save(ordered, metadata={KEY: _to_json(metadata)})
    replace_file(path, lambda file: file.write(data))


def load_checkpoint(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """-> (arrays, metadata) as given to `save_checkpoint`: arrays sorted by name, fresh and writable.

    Raises ValueError if there is no such file, FormatError (a ValueError) for a file that is truncated, corrupt, no
    safetensors file, or not written by refdiff.
    """
    try:
        from safetensors.numpy import load_file
    except ImportError:
        raise _missing() from None
    path = Path(path)
    if not os.path.isfile(path):
        got = "a folder" if os.path.isdir(path) else "a path where there is no file"
        raise ValueError(f"path: expected a checkpoint file, got {str(path)!r}, {got}; check the spelling")
    # The header is checked first: safetensors tells less of what is wrong, and raises some ten kinds of exception.
    metadata = _from_json(path, read_header(path))
    try:
        loaded = load_file(path)
    except MemoryError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:120]
        raise FormatError(
            f"{path}: expected a checkpoint, got a file safetensors refuses ({reason}); use another copy"
        ) from None
    return {name: np.require(loaded[name], requirements="W") for name in sorted(loaded)}, metadata


def _checked(name: str, array: np.ndarray) -> np.ndarray:
    if not isinstance(name, str) or name == "__metadata__":
        raise ValueError(f"arrays: expected names other than '__metadata__', got {name!r}; rename the array")
    if not isinstance(array, np.ndarray):
        raise ValueError(f"arrays: expected a NumPy array for {name!r}, got {type(array).__name__}; use numpy.asarray")
    if array.dtype.newbyteorder("=") not in DTYPES.values():
        allowed = ", ".join(dtype.name for dtype in DTYPES.values())
        raise ValueError(f"arrays: expected one of {allowed} for {name!r}, got {array.dtype}; convert it first")
    return array


def _to_json(metadata: Mapping[str, Any]) -> str:
    _check_keys(metadata)
    try:
        return json.dumps({"format": FORMAT, "metadata": metadata}, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"metadata: expected what JSON can hold, got something else ({error}); "
            "use numbers, strings, lists and dictionaries"
        ) from None


def _check_keys(value: Any) -> None:
    """JSON would turn a key that is no string into one, silently."""
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise ValueError(f"metadata: expected keys that are strings, got {key!r}; use str(key)")
            _check_keys(value[key])
    elif isinstance(value, list | tuple):
        for item in value:
            _check_keys(item)


def _from_json(path: Path, header: dict[str, Any]) -> dict[str, Any]:
    text = header.get("__metadata__", {}).get(KEY)
    if text is None:
        raise FormatError(
            f"{path}: expected a checkpoint of refdiff, got a safetensors file without the metadata key {KEY!r}; "
            "give a file that refdiff saved, or convert this one"
        )
    try:
        content = json.loads(text)
        version, metadata = content["format"], content["metadata"]
        valid = isinstance(version, int) and isinstance(metadata, dict)
    except (ValueError, KeyError, TypeError, RecursionError):
        valid = False
    if not valid:
        raise FormatError(
            f"{path}: expected refdiff's metadata, got {text[:60]!r}; the file is corrupt: use another copy"
        )
    if version != FORMAT:
        raise FormatError(f"{path}: expected format {FORMAT}, got {version}; a newer refdiff wrote it: upgrade refdiff")
    return metadata


def _missing() -> ImportError:
    return ImportError("checkpoints need safetensors, which is not installed: pip install safetensors")
