"""docs/gallery.md, made from the JSON of the entries: pictures, values with their spread, and how each came about."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.gallery.work import GALLERY

__all__ = ["PAGE", "page", "records", "shown"]

PAGE = GALLERY.with_suffix(".md")
HEAD = """\
# Gallery

What trained models gave. Each entry is one JSON in `docs/gallery/`, with its pictures beside it: the command that makes it
anew, the seeds, the commit, every configuration with its digest, and each value with its spread over six sampling seeds:
their mean ± the standard deviation of one. Figures elsewhere in these documents are taken from there.
"""
TAIL = "Made from the JSON of the entries by `make gallery`."


def records(folder: Path = GALLERY) -> dict[str, dict[str, Any]]:
    """What the JSON files hold, by name."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def shown(value: Any) -> str:
    """A number, or mean ± deviation, as the documents write it: with the digits that the deviation leaves."""
    if isinstance(value, Mapping):
        return f"{value['mean']:.3f} ± {value['deviation']:.3f}"
    return f"{value:.3f}" if isinstance(value, float) else f"{value}"


def page(found: Mapping[str, Mapping[str, Any]]) -> str:
    """The whole page."""
    return "\n\n".join([HEAD.strip(), *("\n\n".join(_parts(record)) for record in found.values()), TAIL]) + "\n"


def _parts(record: Mapping[str, Any]) -> Iterator[str]:
    yield f"## {record['title']}"
    yield f"`{record['command']}`, commit {record['commit'][:12]}"
    for name, caption in record["pictures"].items():
        yield f"![{caption}](gallery/{name})\n\n*{caption[0].upper()}{caption[1:]}.*"
    plain = {key: value for key, value in record["values"].items() if not _is_table(value)}
    yield _table(["value", ""], [[_words(key), shown(value)] for key, value in plain.items()])
    tables = {key: value for key, value in record["values"].items() if _is_table(value)}
    if tables:
        rows = list(dict.fromkeys(row for value in tables.values() for row in value))
        cells = [[row, *(shown(value[row]) if row in value else "" for value in tables.values())] for row in rows]
        yield _table(["", *map(_words, tables)], cells)
    runs = record["runs"].items()
    yield _table(
        ["run", "preset", "changed", "steps", "trained in", "SHA-256 of its configuration"],
        [[name, run["preset"], ", ".join(run["changes"]) or "nothing", f"{run['steps']:,}", f"{run['seconds']:.0f} s",
          run["digest"][:12]] for name, run in runs],
    )  # fmt: skip


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping) and "mean" not in value


def _words(key: str) -> str:
    return key.replace("_", " ")


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
