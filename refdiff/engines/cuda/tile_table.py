"""Which tile of a matrix product is the fastest, as measured: a table an architecture, tiles/ARCHITECTURE.json beside this
file, written by benchmarks/tiles.py. Without one, product.py guesses.

    {"format": 1, "architecture": "sm_90a", "device": "...", ..., "seconds":
     [{"kernel": "conv2d", "dtype": "bfloat16", "problem": [131072, 128, 1152, 1], "tiles": {"128x128": 9e-05, ...}}, ...]}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import FormatError

__all__ = ["FOLDER", "Problem", "Table", "read", "table_of", "text"]

FOLDER = Path(__file__).with_name("tiles")
FORMAT = 1


class Problem(NamedTuple):
    """`copies` products of m x k and k x n at once."""

    m: int
    n: int
    k: int
    copies: int = 1


Tiles = dict[tuple[int, int], float]  # a tile's (m, n) -> seconds
Table = dict[tuple[str, str], dict[Problem, Tiles]]  # (kernel, dtype) -> problem -> its tiles


def text(table: Table, about: Mapping[str, Any]) -> str:
    """The table as `read` reads it. about: what it was measured on; its architecture among others."""
    rows = [
        json.dumps(
            {
                "kernel": kernel,
                "dtype": dtype,
                "problem": problem,
                "tiles": {f"{m}x{n}": s for (m, n), s in tiles.items()},
            }
        )
        for (kernel, dtype), problems in table.items()
        for problem, tiles in problems.items()
    ]
    head = json.dumps({"format": FORMAT, **about}, indent=1).removesuffix("\n}")
    return head + ',\n "seconds": [' + ",".join(f"\n  {row}" for row in rows) + "\n ]\n}\n"


def read(path: Path) -> Table:
    """The table in a file.   FormatError, which names it, if it is none."""
    try:
        found = json.loads(path.read_text())
        if found["format"] != FORMAT:
            raise ValueError(f"format {found['format']}")
        table: Table = {}
        for row in found["seconds"]:
            seconds = {_tile(name): float(s) for name, s in row["tiles"].items()}
            if not seconds or not all(0 < s < float("inf") for s in seconds.values()):
                raise ValueError(f"{row['tiles']} as seconds")
            table.setdefault((row["kernel"], row["dtype"]), {})[Problem(*map(int, row["problem"]))] = seconds
        return table
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FormatError(
            f"{path}: expected a table of tiles, format {FORMAT}, got {type(error).__name__}: {error}; measure it again "
            "with python -m benchmarks.gpu, or delete it"
        ) from error


def _tile(name: str) -> tuple[int, int]:
    m, n = map(int, name.split("x"))
    return m, n


@cache
def table_of(architecture: str) -> Table:
    """The table of an architecture ("sm_90a"); empty where none was measured."""
    path = FOLDER / f"{architecture}.json"
    return read(path) if path.exists() else {}
