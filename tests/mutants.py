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
    (r"reshape\(.*-1|swapaxes|split = \(", r"-2|\+2|None", "NumPy takes any negative number, and None, for the size to be "
     "inferred; axis 2 of 4 is axis -2"),
    (r"strict=True", r"strict=|zip", "both sequences always have one length"),
    (r"np\.errstate", r"np\.errstate", "only a warning is switched"),
    (r"raise ValueError|f\"|f'|assert |^\"(alpha_bar|timesteps|use ddim)|expected = ", r".",
     "the words or the number in a message; what raises it is tested"),
    (r"like\(.*\"(x_t|v|eps)\"", r"None\)|, \)|\"XX|\"[A-Z]", "the name stands in the message of an error only"),
    (r"einsum\(", r"\"[A-Z]{2}", "the letters of einsum are names, capitals too"),
    (r"np\.(asarray|array)\((t|weight|a|beta|alpha_bar), |astype\(np\.float64\)|normal\(Key", r"None|, \)",
     "NumPy's default is float64, or what follows makes it so; noise in float32 is as good a sample"),
    (r"writeable = False", r"writeable = None", "None is false"),
    (r"(n|seed): int|bins: int \| None = 256|beta_max: float = 1.0", r"= (2001|1|257|2.0)",
     "a default: every use that matters gives its own, and no beta is above 1"),
    (r"Key\(seed, Stream", r"Key\(", "another choice of random numbers, of the same law; that the seed counts is tested"),
    (r"< 6|_NODES|inside|range\(16|range\(13\)|above = real|near =|short =|right =|mirrored =|inner, outer|a2 < 0.5"
     r"|beta < 0.5|first, xp", r".",
     "a border between two forms that agree on both sides of it, or a term below the last bit"),
    (r"n if len\(self\.weights\) > 1", r".", "how many samples the mean is over, or a mean of equal numbers"),
    (r"abs\(w\.sum|values\.min|not off < 0.01|x0_hat\.shape|> rate|nearer =", r"<=|>=|, \)|axis",
     "equality never happens to the bit; the last axis is axis 1"),
    (r"w\.ndim != 1", r".", "what one comparison lets through, the next refuses"),
    (r"kind in \(\"x0\", \"eps\"\)|kind == \"mu\"", r"XX|[A-Z]{2}", "a short cut of the conversion that follows"),
    (r"beta_start > 0 and", r">=", "a beta of 0 is refused by `from_beta`"),
    (r"deque\(trajectory", r".", "how many states are kept; the last one is returned"),
    (r"low = min\(int\(rank\)|above = np\.searchsorted|below = \(above", r".", "an index held within an array that it never "
     "leaves, or beside one that holds it too"),
    (r"1 / \(1 \+ np\.exp", r"2 /", "a factor that cancels: the values are scaled to run from 1 down"),
    (r"np\.isfinite\(new\)", r"1\.0", "nothing added to minus infinity is seen"),
    (r"range\(s, t\)", r"range\(t\)", "the step nearest the middle lies between the two anyway"),
    (r"before = None", r".", "any value that is false will do"),
    (r"device=array_api_compat", r"device=None|, \)", "where there is one device, it is the default"),
    (r"values\.clip\(0\)", r".", "eigenvalues below zero by rounding: tested at 1e-6, below what is seen"),
    (r"xp\.real\(x\) if", r"or True", "the real part of a real array is the array"),
    (r"of_decoder or of_kl", r".", "all that was saved has one shape"),
    (r"dtype\.kind not in", r"XX", "no kind of dtype is called X"),
    (r"xp\.ones_like", r"scale /", "division by one"),
    (r"x = np\.asarray\(x, np\.float64\)", r".", "what follows is float64 by the means and covariances"),
    (r"sum\(axis=-1\)", r"\+1", "of two axes the last is axis 1"),
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
