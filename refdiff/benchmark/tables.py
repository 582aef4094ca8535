"""Markdown made from a result's JSON: the only way into README and docs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .cases import label

__all__ = ["markdown", "table"]


def markdown(result: Mapping[str, Any]) -> str:
    """The whole result: where it was measured, one table for each kind of case, what failed."""
    versions, machine = result["versions"], result["machine"]
    where = machine.get("gpu", {}).get("name") or machine.get("processor", "")
    known = ", ".join(f"{k} {v[:12]}{'+' * v.endswith('+')}" for k, v in versions.items())
    lines = [f"{result['suite']}: {where}, {machine.get('cores')} cores; {known}; {result['written']}.", ""]
    here = _of({"commit": versions["commit"], "gpu": machine.get("gpu", {}).get("name", "")})
    for part in result.get("parts", {}).values():
        gpu = part.get("machine", {}).get("gpu", {}).get("name", "")
        there = _of({"commit": part.get("commit", versions["commit"]), "gpu": gpu}) if "commit" in part else here
        when = "" if there == here else f"; measured {part['written']} of {there}"
        lines += [f"- {part['name']}: {part['text']} ({part['seconds']:.0f} s{when})"]
    if result.get("parts"):
        lines.append("")
    for title, records in _groups(result["records"]).items():
        lines += [f"**{title}**", "", *(table(records) or ["Nothing was measured."]), ""]
    if result["records"]:
        lines += ["Times are medians. A ratio is our time over the other's, taken in turns: below 1 we are faster; "
                  "in brackets its quartiles.", ""]  # fmt: skip
    for key, title in (("wrong", "Timed, and wrong (!):"), ("error", "Not measured, or not to the end:")):
        said = [f"- {label(r['case'])}: {name}: {e[key]}" for r in result["records"]
                for name, e in r["peers"].items() if key in e]  # fmt: skip
        said += [f"- {text}" for text in result.get("failures", [])] if key == "error" else []
        if said:
            lines += [title, "", *_once(said), ""]
    return "\n".join(lines)


def table(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines of one table: a row a case, ours first, then the ratio to each peer that was timed."""
    subject = records[0]["subject"]
    others = list(dict.fromkeys(name for r in records for name in r["peers"] if name != subject))
    floors = any(r.get("floor") for r in records)
    memory = any("memory" in e for r in records for e in r["peers"].values())
    head = ["case", "times" if any("count" in r["case"] for r in records) else "", f"{subject}"]
    head += ["floor", "of floor"] if floors else []
    head += [text for name in others for text in (name, "ratio")]
    head += ["peak memory, MiB"] if memory else []
    several = len({_of(r) for r in records}) > 1
    head += ["measured of"] if several else []
    rows = []
    for r in records:
        if not any("seconds" in e or "memory" in e for e in r["peers"].values()):
            continue
        ours = r["peers"].get(subject, {})
        row = [label(r["case"]), str(r["case"].get("count", "")), _timed(ours)]
        if floors:
            floor = r.get("floor")
            share = floor / ours["seconds"] if floor and ours.get("seconds") else None
            row += [_time(floor), f"{share:.0%}" if share else ""]
        for name in others:
            row += [_timed(r["peers"].get(name, {})), _ratio(r["ratios"].get(name))]
        if memory:
            row.append(", ".join(f"{n} {e['memory'] >> 20}" for n, e in r["peers"].items() if "memory" in e))
        if several:
            row.append(_of(r))
        rows.append(row)
    if not rows:
        return []
    kept = [i for i, name in enumerate(head) if name and (i == 0 or any(row[i] for row in rows))]
    return ["| " + " | ".join(row[i] for i in kept) + " |" for row in (head, ["---"] * len(head), *rows)]


def _groups(records: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for r in records:
        kind = "operations" if r["case"]["kind"] == "operation" else "steps of whole networks"
        title = r.get("title") or kind + (f", {r['threads']} threads" if "threads" in r else "")
        groups.setdefault(title.replace(" 1 threads", " 1 thread"), []).append(r)
    return groups


def _time(seconds: float | None) -> str:
    if not seconds:
        return ""
    return (
        f"{1e6 * seconds:.1f} µs"
        if seconds < 1e-3
        else f"{1e3 * seconds:.2f} ms"
        if seconds < 1
        else f"{seconds:.2f} s"
    )


def _of(r: Mapping[str, Any]) -> str:
    """Commit and GPU that a part or a record was measured with."""
    commit = r.get("commit", "")
    return " on ".join(filter(None, [f"{commit[:12]}{'+' * commit.endswith('+')}", r.get("gpu", "")]))


def _timed(entry: Mapping[str, Any]) -> str:
    """The time, marked where the result was wrong."""
    time = _time(entry.get("seconds"))
    return f"{time} !" if time and "wrong" in entry else time


def _ratio(r: Mapping[str, Any] | None) -> str:
    return f"{r['median']:.2f} [{r['quartiles'][0]:.2f}, {r['quartiles'][1]:.2f}]" if r else ""


def _once(lines: Sequence[str]) -> list[str]:
    """Each line once, at most 40."""
    different = list(dict.fromkeys(lines))
    return different[:40] + ([f"- and {len(different) - 40} more"] if len(different) > 40 else [])
