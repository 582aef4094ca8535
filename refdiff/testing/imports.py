"""The arrows between the rooms of this library, read off its sources, and what is wrong with them.

    python -m refdiff.testing.imports [--json]

A room is what stands at the top of the package: a folder, or a file such as random.py. The exit status is 1 if anything is
wrong: a circle, an import of a room above or beside, an internal of an engine outside it.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

from .sources import Import, Sources, read, room_of

__all__ = ["ONLY_FROM", "ORDER", "allowed", "circles", "report", "rooms_page", "to_dict", "wrong"]

# From the top down: a room imports rooms of lower rows, and none of its own row.
ORDER: tuple[tuple[str, ...], ...] = (
    ("refdiff", "__main__"),  # what `import refdiff` and `python -m refdiff` run
    ("cli",),
    ("commands",),
    ("benchmark",),
    ("testing",),
    ("training",),
    ("config", "storage"),
    ("systems",),
    ("evaluation",),
    ("sampling",),
    ("data", "objectives"),
    ("models",),
    ("engines",),
    ("process",),
    ("divergence", "plotting", "progress", "random"),
    ("errors", "version"),
)
# Rooms that these alone may import, though others stand above them too.
ONLY_FROM: dict[str, tuple[str, ...]] = {
    "refdiff": (), "__main__": (), "cli": ("__main__",), "commands": ("cli",),
    "benchmark": ("commands",), "testing": ("benchmark", "commands"),
}  # fmt: skip

_LEVEL = {room: level for level, row in enumerate(ORDER) for room in row}


def allowed(room: str) -> list[str]:
    """The rooms that this one may import, from the top down."""
    below = [other for row in ORDER[_LEVEL[room] + 1 :] for other in row]
    return [other for other in below if room in ONLY_FROM.get(other, (room,))]


# ---- judging


def wrong(sources: Sources) -> list[str]:
    """What is wrong, one line each."""
    homeless = {room_of(name): path for name, path in sources.files.items() if room_of(name) not in _LEVEL}
    return [
        *(f"{path}: expected a room that ORDER places, got {room!r}; give it a row" for room, path in homeless.items()),
        *(f"circle: {' -> '.join(circle)}; open it" for circle in circles(sources)),
        *(
            f"{sources.files[i.source]}:{i.line}: {why}"
            for i in sources.arrows()
            for why in (_misplaced(i), _internal(i))
            if why
        ),
    ]


def _misplaced(i: Import) -> str:
    room, other = room_of(i.source), room_of(i.target)
    if room == other or not {room, other} <= _LEVEL.keys() or other in allowed(room):
        return ""
    if _LEVEL[other] > _LEVEL[room]:
        return f"expected imports of {other} by {' and '.join(ONLY_FROM[other])} alone, got one of {i.target} by {room}"
    beside = "beside" if _LEVEL[other] == _LEVEL[room] else "above"
    return f"expected imports of rooms below {room}, got {i.target}, which stands {beside} it"


def _internal(i: Import) -> str:
    """An engine is its package; outside it one may import that and its runtime, nothing else of it."""
    engine = i.target.split(".")[1:]
    if room_of(i.target) != "engines" or len(engine) < 2 or engine[1] == "runtime":
        return ""
    if i.source.startswith(f"engines.{engine[0]}.") or i.source == f"engines.{engine[0]}":
        return ""
    return f"expected engines.{engine[0]} or engines.{engine[0]}.runtime, got its internal {i.target}; export what is needed"


def circles(sources: Sources) -> list[list[str]]:
    """Of each set of modules that import each other, also inside one room, one shortest circle; it ends where it begins."""
    graph: dict[str, set[str]] = {name: set() for name in sources.files}
    for i in sources.arrows():
        graph[i.source].add(i.target)
    found: list[list[str]] = []
    for name in sorted(graph):
        circle = _path(graph, name)
        if circle and not any(set(circle) & set(other) for other in found):
            found.append(circle)
    return found


def _path(graph: dict[str, set[str]], name: str) -> list[str]:
    """The shortest way from a module back to itself; empty where there is none."""
    ways, seen = [[name]], set()
    for way in ways:  # it grows while it is read
        for after in sorted(graph[way[-1]]):
            if after == name:
                return [*way, name]
            if after not in seen:
                seen.add(after)
                ways.append([*way, after])
    return []


# ---- showing


def to_dict(sources: Sources) -> dict[str, Any]:
    """rooms: of each, how many imports it makes of which others; files: of each, the modules of other rooms it imports."""
    rooms: dict[str, Counter[str]] = {room: Counter() for room in sorted(map(room_of, sources.files), key=_place)}
    files: dict[str, list[str]] = {}
    for i in sources.between_rooms():
        rooms[room_of(i.source)][room_of(i.target)] += 1
        files.setdefault(sources.files[i.source], []).append(i.target)
    types = [f"{sources.files[i.source]}:{i.line}: {i.target}" for i in sources.arrows(types_only=True)]
    return {
        "rooms": {room: {n: counts[n] for n in sorted(counts, key=_place)} for room, counts in rooms.items()},
        "files": {path: sorted(set(targets), key=lambda n: (_place(n), n)) for path, targets in files.items()},
        "types_only": types,
        "unread": sources.unread,
        "wrong": wrong(sources),
    }


def _place(module: str) -> tuple[int, str]:
    room = room_of(module)
    return _LEVEL.get(room, len(ORDER)), room


def report(sources: Sources) -> str:
    """`to_dict` for a reader: each room with what it imports how often, then its files, then what is wrong."""
    found = to_dict(sources)
    width = max((len(path) for path in found["files"]), default=0)
    lines = [f"{len(sources.files)} files, {len(sources.arrows())} imports of each other, {len(sources.between_rooms())} of "
             "them between rooms; a room imports rooms further down alone"]  # fmt: skip
    rooms_of = {sources.files[name]: room_of(name) for name in sources.files}
    for room, counts in found["rooms"].items():
        lines += ["", f"{room:<10} -> " + (", ".join(f"{other} {n}" for other, n in counts.items()) or "nothing")]
        lines += [
            f"    {path:<{width}} {', '.join(to)}" for path, to in found["files"].items() if rooms_of[path] == room
        ]
    for title, places in (("for types alone, not counted", "types_only"), ("named only while they run", "unread")):
        lines += ["", f"{title}: {len(found[places])}", *(f"    {place}" for place in found[places])]
    lines += ["", f"wrong: {len(found['wrong'])}", *(f"    {sentence}" for sentence in found["wrong"])]
    return "\n".join(lines)


def rooms_page() -> str:
    """docs/rooms.md: this library's rooms, from the top down, and what each may import."""
    sources = read(Path(__file__).parents[1])
    rows = [room for row in ORDER[1:] for room in row if room in sources.files]
    parts = [
        "# Rooms",
        "A room is what stands at the top of `refdiff/`: a folder, or a file such as `random.py`. Arrows point one way, "
        "from the top of this table down, and imports inside functions count like any other. Nothing imports in a circle, "
        "not even inside a room. Of an engine, nobody outside imports more than `refdiff.engines.NAME` and its `runtime`, "
        "which captures and repeats steps of training and sampling. This prints every arrow between rooms, file by file, "
        "and what is wrong with them; a test holds that nothing is:",
        "```sh\npython -m refdiff.testing.imports\n```",
        "| room | what it is | may import |\n| --- | --- | --- |\n"
        + "\n".join(_row(sources, room, rows) for room in rows),
        "Made by `python -m refdiff.testing.report docs`.",
    ]
    return "\n\n".join(parts) + "\n"


def _row(sources: Sources, room: str, rows: list[str]) -> str:
    below, may = rows[rows.index(room) + 1 :], allowed(room)
    others = ", ".join(f"`{other}`" for other in below if other not in may)
    words = "all below" + (f" but {others}" if others else "") if set(below) & set(may) else "none"
    return f"| `{room}` | {sources.about[room]} | {words} |"


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m refdiff.testing.imports", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument(
        "folder", nargs="?", type=Path, default=Path(__file__).parents[1], help="a package; ours if left out"
    )
    parser.add_argument("--json", action="store_true", help="as JSON")
    options = parser.parse_args(arguments)
    sources = read(options.folder.resolve())
    print(json.dumps(to_dict(sources), indent=2) if options.json else report(sources))
    return int(bool(wrong(sources)))


if __name__ == "__main__":
    raise SystemExit(main())
