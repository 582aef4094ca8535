"""The header of a safetensors file, read with suspicion: nothing in it is believed before it is checked.

https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FormatError

# The dtypes that both safetensors and NumPy know, by safetensors' names.
DTYPES = {
    name: np.dtype(dtype)
    for name, dtype in {
        "BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "uint16", "I16": "int16", "U32": "uint32", "I32": "int32",
        "U64": "uint64", "I64": "int64", "F16": "float16", "F32": "float32", "F64": "float64", "C64": "complex64",
    }.items()
}  # fmt: skip

_MAX_HEADER = 100_000_000  # safetensors' own limit


def read_header(path: Path) -> dict[str, Any]:
    """The header as a dictionary: {name: {"dtype", "shape", "data_offsets"}}, and "__metadata__": {str: str} if given.

    Checked: the length, the JSON, no name twice, each entry's dtype, shape and place, and that the arrays cover the
    rest of the file exactly, without gap or overlap. Raises FormatError, one line, for anything else.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > min(size - 8, _MAX_HEADER):
            what = f"{size} bytes" if len(start) < 8 else f"{size} bytes that start {start!r}"
            raise _wrong(path, "a safetensors file", what, "give a file that refdiff saved, or another copy")
        text = file.read(length)
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise _corrupt(path, "JSON", str(error)[:80]) from None
    if not isinstance(header, dict):
        raise _corrupt(path, "a JSON object", type(header).__name__)
    metadata = header.get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _corrupt(path, "strings as metadata", repr(metadata)[:60])
    places = sorted(_place(path, name, entry) for name, entry in header.items() if name != "__metadata__")
    end = 0
    for begin, next_end, name in places:
        if begin != end:
            raise _corrupt(path, f"the data of {name[:60]!r} at byte {end}", f"byte {begin}")
        end = next_end
    data = size - 8 - length
    if data != end:
        what = "truncated" if data < end else "too long"
        raise _wrong(
            path, f"{end} bytes of arrays, as the header says", f"{data}", f"the file is {what}: use another copy"
        )
    return header


def _place(path: Path, name: str, entry: Any) -> tuple[int, int, str]:
    """One entry, checked -> (begin, end, name)."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise _corrupt(path, f"dtype, shape and data_offsets of {name[:60]!r}", repr(entry)[:60])
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise _wrong(path, f"a dtype NumPy has, for {name[:60]!r}", repr(dtype)[:60], "convert it, for example to F32")
    if not _naturals(shape) or len(shape) > 32:
        raise _corrupt(path, f"a shape for {name[:60]!r}", repr(shape)[:60])
    if not _naturals(offsets) or len(offsets) != 2:
        raise _corrupt(path, f"two offsets for {name[:60]!r}", repr(offsets)[:60])
    begin, end = offsets
    expected = math.prod(shape) * DTYPES[dtype].itemsize
    if end - begin != expected:
        raise _corrupt(path, f"{expected} bytes for {name[:60]!r}", f"{end - begin}")
    return begin, end, name


def _naturals(values: Any) -> bool:
    # type, not isinstance: true and false are not numbers here.
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 1 << 63 for value in values)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise ValueError("one name stands twice")
    return entries


def _corrupt(path: Path, expected: str, got: str) -> FormatError:
    return _wrong(
        path, f"in the header {expected}", got, "the file is corrupt or no safetensors file: use another copy"
    )


def _wrong(path: Path, expected: str, got: str, advice: str) -> FormatError:
    return FormatError(f"{path}: expected {expected}, got {got}; {advice}")
