"""What claims become for a reader: lines, JSON, and the pages docs/equations.md and docs/errata.md.

`python -m refdiff.testing.report docs` writes the pages anew; a test fails when they are out of date.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from . import claims as _claims
from .claim import CLAIMS, Claim, Verdict, check
from .scheduler import RefdiffScheduler

__all__ = ["equations_page", "errata_page", "line", "summary", "to_dict", "verify"]


def verify(random: bool = False, match: str = "") -> Iterator[Verdict]:
    """The verdict on each claim about this library whose name, group or source holds `match`, one after the other."""
    from ..process import linear

    for claim in CLAIMS:
        if match.lower() in f"{claim.name} {claim.group} {claim.source}".lower():
            yield check(claim, RefdiffScheduler(linear()) if claim.needs else None, random=random, seconds=300)


def line(verdict: Verdict) -> str:
    """One line: verdict, worst error, bound, claim, source; and what went wrong, if anything did."""
    claim = verdict.claim
    word = "holds" if verdict.holds else "FAILS"
    text = f"{word}  {verdict.worst:8.1e} <= {claim.bound:7.1e}  {claim.name}  {claim.source}"
    return text if verdict.holds else f"{text}\n       {verdict.message}"


def to_dict(verdict: Verdict) -> dict[str, Any]:
    """For JSON."""
    claim = verdict.claim
    return {
        "claim": claim.name, "group": claim.group, "source": claim.source, "of": claim.of, "against": claim.against,
        "worst_error": verdict.worst if math.isfinite(verdict.worst) else None,  # JSON knows neither NaN nor infinity
        "bound": claim.bound, "holds": verdict.holds, "message": verdict.message,
        "seconds": round(verdict.seconds, 3),
    }  # fmt: skip


def summary(verdicts: Iterable[Verdict]) -> str:
    """The last line: how many hold, and how long it took."""
    verdicts = list(verdicts)
    held, seconds = sum(v.holds for v in verdicts), sum(v.seconds for v in verdicts)
    return f"{held} of {len(verdicts)} claims hold, {seconds:.0f} s"


def equations_page() -> str:
    """docs/equations.md: every claim with its equation, the function it speaks of, and what it was held against."""
    parts = [
        "# Equations",
        "Each equation below is a claim that `refdiff verify` checks and the tests run: the function is held against "
        "something that was not made by the same hand, on cases that hypothesis draws, and its worst error must stay within "
        "the bound. Made from the claims by `python -m refdiff.testing.report docs`; the keys stand in "
        "[references.md](references.md).",
    ]
    for group in dict.fromkeys(claim.group for claim in CLAIMS):
        module = sys.modules[f"{_claims.__name__}.{group}"]
        parts.append(f"## {(module.__doc__ or group).strip().splitlines()[0]}")
        parts += [_entry(claim) for claim in CLAIMS if claim.group == group]
    return "\n\n".join(parts) + "\n"


def _entry(claim: Claim) -> str:
    return (
        f"**{claim.name[0].upper()}{claim.name[1:]}.** {claim.source}\n\n$$ {claim.equation} $$\n\n{claim.text}\n\n"
        f"`{claim.of}` against {claim.against}; bound {claim.bound:g}."
    )


def errata_page() -> str:
    """docs/errata.md: the misprints, with the size of the error each makes."""
    from .claims.misprints import MISPRINTS

    steps = (10, 100, 500, 1000)
    parts = [
        "# Misprints in circulation",
        "Lecture notes and posts copy these from one another. Each is refuted by a claim (`refdiff verify`): the right "
        "formula passes an independent check that the misprint fails. Sizes are relative errors on the linear schedule, "
        "T = 1000, for data of size 1: 1 means wrong by as much as the thing itself. Made by "
        "`python -m refdiff.testing.report docs`.",
    ]
    for number, misprint in enumerate(MISPRINTS, 1):
        sizes = " | ".join(f"{misprint.size(t):.2g}" for t in steps)
        head = " | ".join(f"t = {t}" for t in steps)
        parts.append(
            f"## {number}\n\nWrong:\n\n$$ {misprint.wrong} $$\n\nRight:\n\n$$ {misprint.right} $$\n\n{misprint.why}\n\n"
            f"| {head} |\n|{' --- |' * len(steps)}\n| {sizes} |"
        )
    parts.append(
        "## Not a misprint\n\n$KL(q(x_T \\mid x_{T-1}) \\,\\|\\, p(x_T))$, averaged over $x_{T-1}$, and "
        "$KL(q(x_T \\mid x_0) \\,\\|\\, p(x_T))$ both occur, and differ: the first belongs to the decomposition of the "
        "bound with consistency terms, the second to the one with denoising terms. A claim shows both."
    )
    return "\n\n".join(parts) + "\n"


PAGES = {"equations.md": equations_page, "errata.md": errata_page}


def main(folder: str = "docs") -> None:
    """Write the pages."""
    for name, page in PAGES.items():
        (Path(folder) / name).write_text(page())


if __name__ == "__main__":
    main(*sys.argv[1:])
