"""Results of several runs in one: parts measured at different times, of different commits, even on different machines, so
that a short time on a GPU can be used in pieces. Each part and each record says when, of which commit and on what it was
measured; what is measured again takes the place of what was, which is put aside and not lost."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["Results", "read"]


class Results:
    """parts: by key; records: of cases, at most one a case; earlier: parts and records that were measured again since."""

    def __init__(self) -> None:
        self.parts: dict[str, dict[str, Any]] = {}
        self.records: list[dict[str, Any]] = []
        self.earlier: dict[str, list[dict[str, Any]]] = {"parts": [], "records": []}

    def begin(self, key: str, entry: dict[str, Any]) -> None:
        """A part that begins now, in the place of an earlier one. Records of that one stay until their cases come again."""
        if key in self.parts:
            self._aside("parts", {"part": key, **self.parts.pop(key)})
        self.parts[key] = entry

    def keep(self, record: dict[str, Any]) -> None:
        """A record that was made now."""
        for i, other in enumerate(self.records):
            if _same(other) == _same(record):
                self._aside("records", other)
                self.records[i] = record
                return
        self.records.append(record)

    def take(self, found: Mapping[str, Any]) -> None:
        """All of another run's. Of one part, or of one case, the later stays, and the other is put aside."""
        for key, entry in found["parts"].items():
            mine = self.parts.get(key)
            if mine is None or mine["written"] < entry["written"]:
                self.begin(key, dict(entry))
            elif mine != entry:
                self._aside("parts", {"part": key, **entry})
        for record in found["records"]:
            other = next((r for r in self.records if _same(r) == _same(record)), None)
            if other is None or other["written"] < record["written"]:
                self.keep(dict(record))
            elif other != record:
                self._aside("records", dict(record))
        for kind, entries in found["earlier"].items():
            for entry in entries:
                self._aside(kind, dict(entry))

    def newest(self) -> dict[str, Any]:
        """The part that began last."""
        return max(self.parts.values(), key=lambda entry: entry["written"])

    def as_dict(self) -> dict[str, Any]:
        failures = [f"{e['name']}: {text}" for e in self.parts.values() for text in e["failures"]]
        return {"parts": self.parts, "failures": failures, "records": self.records, "earlier": self.earlier}

    def _aside(self, kind: str, entry: dict[str, Any]) -> None:
        if entry not in self.earlier[kind]:
            self.earlier[kind].append(entry)


def _same(record: Mapping[str, Any]) -> str:
    """Records that answer one question have one of these."""
    return json.dumps([record.get(key) for key in ("part", "case", "threads", "title")], sort_keys=True)


def read(path: str | Path, suite: str) -> dict[str, Any]:
    """The result of that suite in a file. ValueError, which names the file, for anything else."""
    try:
        found = json.loads(Path(path).read_text())
        name = found["suite"]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path}: expected a result of the suite {suite!r}, got no such JSON ({error!r})") from None
    if name != suite:
        raise ValueError(f"{path}: expected a result of the suite {suite!r}, got one of {name!r}; choose another file")
    if not {"parts", "records", "earlier"} <= found.keys():
        raise ValueError(f"{path}: expected parts, records and earlier, got {', '.join(found)}; move it away")
    return found
