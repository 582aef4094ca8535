"""What claims become for a reader: lines, JSON, and the pages docs/equations.md, docs/errata.md and
docs/from-vae-to-diffusion.md.

`python -m refdiff.testing.report docs` writes them and docs/rooms.md anew; a test fails when they are out of date.
"""

from __future__ import annotations

import inspect
import math
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import reduce
from pathlib import Path
from typing import Any

from . import claims as _claims
from .claim import CLAIMS, FAILURES, Claim, Verdict, check
from .imports import rooms_page
from .scheduler import RefdiffScheduler

__all__ = [
    "claim_place",
    "derivation_page",
    "equations_page",
    "errata_page",
    "function_place",
    "line",
    "summary",
    "to_dict",
    "verify",
]


def verify(random: bool = False, match: str = "") -> Iterator[Verdict]:
    """The verdict on each claim about this library whose name, group, source or function holds `match`, in turn; if there is
    none, on each that calls a function of this name."""
    for claim in [c for c in CLAIMS if c.speaks_of(match)] or [c for c in CLAIMS if _calls(c, match)]:
        yield check(claim, RefdiffScheduler("linear") if claim.needs else None, random=random, seconds=300)


def _calls(claim: Claim, name: str) -> bool:
    return name.isidentifier() and re.search(rf"\b{name}\b", inspect.getsource(claim.error)) is not None


def line(verdict: Verdict, places: bool = False) -> str:
    """One line: that it holds or what its failure is, worst error, bound, claim and unit, source, where asked for the
    places of claim and function; and what went wrong, if anything did."""
    claim = verdict.claim
    word = "holds" if verdict.holds else verdict.kind.upper()
    name = f"{claim.name} ({claim.unit})" if claim.unit else claim.name
    text = f"{word:<10}  {verdict.worst:8.2e} <= {claim.bound:8.2e}  {name}  {claim.source}"
    if places:
        text += f"  {_at(*claim_place(claim))} of {_at(*function_place(claim))}"
    return text if verdict.holds else f"{text}\n            {verdict.message}"


def _at(file: str, line: int) -> str:
    return f"{file}:{line}"


def claim_place(claim: Claim) -> tuple[str, int]:
    """The file, from the folder of the package, and the line where the claim begins."""
    return _place(claim.error)


def function_place(claim: Claim) -> tuple[str, int]:
    """The file and the line of the function, or the class, that it speaks of."""
    parts = claim.of.split(".")
    modules = (
        i for i in range(len(parts), 0, -1) if ".".join(parts[:i]) in sys.modules
    )  # a package may hide its module
    last = next(modules)
    return _place(reduce(getattr, parts[last:], sys.modules[".".join(parts[:last])]))


def _place(of: Any) -> tuple[str, int]:
    inner: Any = of.fget if isinstance(of, property) else getattr(of, "func", of)
    of = inspect.unwrap(inner)
    file = Path(inspect.getsourcefile(of) or "")
    root = Path(__file__).parent.parent.parent
    line = (
        of.__code__.co_firstlineno if hasattr(of, "__code__") else max(1, inspect.getsourcelines(of)[1])
    )  # a module: 0
    return (file.relative_to(root) if file.is_relative_to(root) else file).as_posix(), line


def to_dict(verdict: Verdict) -> dict[str, Any]:
    """For JSON."""
    claim = verdict.claim
    (file, line), (of_file, of_line) = claim_place(claim), function_place(claim)
    return {
        "claim": claim.name, "group": claim.group, "source": claim.source, "of": claim.of, "against": claim.against,
        "worst_error": verdict.worst if math.isfinite(verdict.worst) else None,  # JSON knows neither NaN nor infinity
        "bound": claim.bound, "unit": claim.unit, "holds": verdict.holds, "kind": verdict.kind or None,
        "message": verdict.message, "seconds": round(verdict.seconds, 3), "warnings": verdict.warnings,
        "file": file, "line": line, "of_file": of_file, "of_line": of_line,
    }  # fmt: skip


def summary(verdicts: Iterable[Verdict]) -> str:
    """The last line: how many hold, what the others are, how long it took; before it what the checked code warned of."""
    verdicts = list(verdicts)
    held, seconds = sum(v.holds for v in verdicts), sum(v.seconds for v in verdicts)
    kinds = Counter(v.kind for v in verdicts if not v.holds)
    failed = [f"{kinds[kind]} {kind}{'s' * (kinds[kind] > 1)}" for kind in FAILURES if kinds[kind]]
    warned: Counter[str] = Counter()
    for verdict in verdicts:
        warned.update(verdict.warnings)
    lines = [f"warned {count} times: {text}" for text, count in warned.most_common(5)]
    lines += [f"and of {len(warned) - 5} more"] if len(warned) > 5 else []
    return "\n".join([*lines, ", ".join([f"{held} of {len(verdicts)} claims hold", *failed, f"{seconds:.0f} s"])])


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
        f"`{claim.of}` against {claim.against}; bound {claim.bound:g}{claim.unit and f' {claim.unit}'}."
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


def derivation_page() -> str:
    """docs/from-vae-to-diffusion.md: each line of the derivation with the function that computes it and its number."""
    from .road import DATA, SCHEDULE, road

    beta = ", ".join(f"{b:.2g}" for b in SCHEDULE.beta[1:])
    table = ["| step | | | nats |", "| --- | --- | --- | ---: |"]
    parts, number = [], 0
    for heading, lines in road():
        parts.append(f"## {heading}")
        for step in lines:
            number += 1
            relation = {"<=": "$\\ge$", "=": "$=$"}.get(step.relation, "")
            table.append(f"| [{number}](#step-{number}) | {step.name} | {relation} | {step.value:.10f} |")
            functions = ", ".join(f"`{f.__module__}.{f.__qualname__}`" for f in step.by)
            text = f"### Step {number}\n\n{step.claim}\n\n$$ {step.equation} $$\n\n"
            parts.append(f"{text}{functions}: **{step.value:.10f}**")
            if step.parts:
                rows = "\n".join(f"| {name} | {value:.10f} |" for name, value in step.parts.items())
                parts.append(f"| of which | |\n| --- | ---: |\n{rows}")
    head = [
        "# From the variational autoencoder to diffusion",
        "A chain of equalities and two inequalities leads from the bound of a variational autoencoder to the loss that a "
        "diffusion model is trained with. Here it is walked on one example, every line with the function that computes it "
        f"and the number that it gave: x_0 = {DATA}, three steps with beta = {beta}, N(0, 1) as prior, and the decoders of "
        "a network that says $\\epsilon_\\theta = \\sqrt{1 - \\bar\\alpha_t}\\, x_t + 0.3 \\sin x_t$. Nothing is "
        "drawn, every mean is an integral, and so an equality can be seen in the digits. The whole is in "
        "`refdiff/testing/road.py`; the same statements for any schedule and any decoders are claims, in "
        "[equations.md](equations.md); the keys stand in [references.md](references.md). Made by "
        "`python -m refdiff.testing.report docs`.",
        "\n".join(table),
        "A line with $=$ has the number of the line before it, one with $\\ge$ says how far the number of the line before "
        "is above its own. A line with neither begins anew: step 5 is of another model, since three decoders are not one, "
        "and the last is no bound any more.",
    ]
    return "\n\n".join([*head, *parts]) + "\n"


PAGES = {
    "equations.md": equations_page,
    "errata.md": errata_page,
    "from-vae-to-diffusion.md": derivation_page,
    "rooms.md": rooms_page,
}


def main(folder: str = "docs") -> None:
    """Write the pages."""
    for name, page in PAGES.items():
        (Path(folder) / name).write_text(page())


if __name__ == "__main__":
    main(*sys.argv[1:])
