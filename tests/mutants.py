"""After `mutmut run`: what share of the mutants the tests killed, and why each survivor changes nothing that can be seen.

    python tests/mutants.py docs/mutants.md

Writes the page, prints the survivors that no reason explains, and ends with 1 if fewer than 95 % were killed.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

LEAST = 0.95
SURVIVED, UNTESTED = 0, 33  # mutmut's exit codes; all others are of tests that failed or did not end

# A reason explains a survivor whose changed line it matches: (pattern of the line before, of the line after, reason).
REASONS = [
    (r"reshape\(.*-1|swapaxes", r"-2|\+2|None", "NumPy takes any negative number, and None, for the size to be inferred; "
     "axis 2 of 4 is axis -2"),
    (r"strict=True", r"strict=|zip", "both sequences always have one length"),
    (r"np\.errstate", r"np\.errstate", "only a warning is switched"),
    (r"raise ValueError|f\"|f'|assert ", r".", "the words or the number in a message; what raises it is tested"),
    (r"< 6|_NODES|inside", r".", "erf is 1 to the last bit on both sides; Gauss-Legendre nodes are symmetric"),
    (r"np\.asarray\((t|weight), np\.float64\)", r".", "the product with float64 that follows casts the same numbers"),
]  # fmt: skip


def outcomes(folder: Path) -> dict[str, int | None]:
    """mutant -> exit code."""
    codes: dict[str, int | None] = {}
    for meta in sorted(folder.rglob("*.meta")):
        codes |= json.loads(meta.read_text())["exit_code_by_key"]
    return codes


def change(mutant: str) -> tuple[str, str]:
    """The line before and after."""
    text = subprocess.run(["mutmut", "show", mutant], capture_output=True, text=True, check=False).stdout
    lines = [line for line in text.splitlines() if re.match(r"[-+](?![-+])", line)]
    before = " ".join(line[1:].strip() for line in lines if line[0] == "-")
    after = " ".join(line[1:].strip() for line in lines if line[0] == "+")
    return before, after


def reason(before: str, after: str) -> str:
    """Why the two cannot be told apart, "" if nothing explains it."""
    return next((why for old, new, why in REASONS if re.search(old, before) and re.search(new, after)), "")


def main(page: str) -> int:
    """Write the page; the exit status."""
    codes = outcomes(Path("mutants"))
    counts = Counter("survived" if c == SURVIVED else "untested" if c == UNTESTED else "killed" for c in codes.values())
    share = counts["killed"] / max(1, len(codes))
    alive = [m for m, code in codes.items() if code in (SURVIVED, UNTESTED)]
    explained, unexplained = defaultdict(list), []
    for mutant in alive:
        before, after = change(mutant)
        why = reason(before, after)
        (explained[why] if why else unexplained).append(
            f"- `{mutant.replace('__mutmut', '')}`: `{before}` became `{after}`"
        )
    parts = [
        "# Mutants",
        "Each way of breaking one line of `refdiff/process/` and `refdiff/engines/reference/` is tried, and the tests must "
        "notice. Made by `make mutants`.",
        f"{len(codes)} mutants, {counts['killed']} killed ({share:.1%}), {counts['survived']} survived, "
        f"{counts['untested']} never run.",
    ]
    for why, lines in explained.items():
        parts.append(f"## {why[0].upper()}{why[1:]}\n\n" + "\n".join(lines))
    if unexplained:
        parts.append("## Not explained\n\n" + "\n".join(unexplained))
    Path(page).write_text("\n\n".join(parts) + "\n")
    print(
        f"{counts['killed']} of {len(codes)} mutants killed ({share:.1%}); {len(unexplained)} survivors without a reason"
    )
    print("\n".join(unexplained))
    return int(share < LEAST)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
