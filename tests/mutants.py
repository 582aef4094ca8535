"""After `mutmut run`: what share of the mutants the tests killed, and why each survivor changes nothing that can be seen.

    python tests/mutants.py docs/mutants.md

tests/mutants.toml holds a reason for each survivor by itself: the function, the line before and the line after. The page
is written; survivors without a reason and reasons without a survivor are printed, and either, or fewer killed than LEAST,
ends with 1.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path
from typing import NamedTuple

LEAST = 0.97
SURVIVED, UNTESTED = 0, 33  # mutmut's exit codes; all others are of tests that failed or did not end; None: not run
REASONS = Path(__file__).with_suffix(".toml")


class Mutant(NamedTuple):
    """A change of one line of a function: what a reason belongs to, whatever number mutmut gives it."""

    function: str
    before: str
    after: str


def outcomes(folder: Path) -> dict[str, int | None]:
    """mutmut's name of each mutant -> exit code."""
    codes: dict[str, int | None] = {}
    for meta in sorted(folder.rglob("*.meta")):
        codes |= json.loads(meta.read_text())["exit_code_by_key"]
    return codes


def function_of(name: str) -> str:
    """refdiff.process.exact.xǁGaussianMixtureǁbound__mutmut_42 -> refdiff.process.exact.GaussianMixture.bound"""
    module, _, mangled = name.rpartition("__mutmut_")[0].rpartition(".")
    return f"{module}.{re.sub('^x(_|ǁ)', '', mangled).replace('ǁ', '.')}"


def mutant(name: str) -> Mutant:
    """What mutmut changed."""
    text = subprocess.run(["mutmut", "show", name], capture_output=True, text=True, check=False).stdout
    lines = [line for line in text.splitlines() if re.match(r"[-+](?![-+])", line)]
    before, after = (" ".join(line[1:].strip() for line in lines if line[0] == sign) for sign in "-+")
    return Mutant(function_of(name), before, after)


def reasons(file: Path = REASONS) -> dict[Mutant, str]:
    """mutant -> why it cannot be told from the code. ValueError if one stands twice, or its reason is empty."""
    found: dict[Mutant, str] = {}
    for function, entries in tomllib.loads(file.read_text()).items():
        for entry in entries:
            key = Mutant(function, entry["before"], entry["after"])
            if key in found or not entry["why"].strip():
                raise ValueError(
                    f"{file.name}: expected one reason for each mutant, got none or a second one for {key}"
                )
            found[key] = entry["why"]
    return found


def outcome(code: int | None) -> str:
    return {SURVIVED: "survived", UNTESTED: "untested", None: "not tried"}.get(code, "killed")


def share(counts: Counter[str]) -> float:
    """Killed, of those that were tried."""
    return counts["killed"] / max(1, counts.total() - counts["not tried"])


def page(codes: dict[str, int | None], explained: list[tuple[Mutant, str]]) -> str:
    """docs/mutants.md: how many there are, what was not tried, and the survivors by function, each with its reason."""
    counts, left = Counter(map(outcome, codes.values())), Counter(function_of(m) for m, c in codes.items() if c is None)
    parts = [
        "# Mutants",
        "Each way of breaking one line of `refdiff/process/`, `refdiff/engines/reference/` and `refdiff/objectives/` is "
        "tried, and the tests must notice. Each of those that they do not notice was looked at, and the reason given here "
        "is its own. Made by `make mutants` from the run and `tests/mutants.toml`.",
        f"{len(codes)} mutants, {counts['killed']} killed ({share(counts):.1%} of those tried), "
        f"{counts['survived']} survived, {counts['untested']} in lines that no test reaches, "
        f"{counts['not tried']} not tried.",
    ]
    if left:
        parts.append(f"Not tried: {', '.join(f'`{function}` ({n})' for function, n in sorted(left.items()))}.")
    for function in sorted({mutant.function for mutant, _ in explained}):
        parts.append(f"## {function}")
        parts += [
            f"- `{m.before}`\\\n  became `{m.after}`:\\\n  {why}." for m, why in explained if m.function == function
        ]
    return "\n\n".join(parts) + "\n"


def main(target: str) -> int:
    """Write the page; the exit status."""
    codes, known = outcomes(Path("mutants")), reasons()
    counts = Counter(map(outcome, codes.values()))
    alive = [mutant(name) for name, code in codes.items() if code in (SURVIVED, UNTESTED)]
    explained = [(m, known[m]) for m in alive if m in known]
    unexplained = [m for m in alive if m not in known]
    Path(target).write_text(page(codes, explained))
    tried = f"({share(counts):.1%} of those tried)"
    print(f"{counts['killed']} of {len(codes)} mutants killed {tried}, {counts['not tried']} not tried")
    for text, mutants in (
        ("survives without a reason", unexplained),
        ("has a reason and no survivor", known.keys() - alive),
    ):
        for m in sorted(mutants):
            print(f"{text}: {m.function}\n  - {m.before}\n  + {m.after}")
    return int(share(counts) < LEAST or bool(counts["not tried"]) or bool(unexplained) or bool(known.keys() - alive))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
