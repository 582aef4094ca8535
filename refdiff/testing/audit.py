"""Audit somebody's scheduler: run the claims it can be asked, and say of each failure what was expected and what it got.

for verdict in audit(load("diffusers:DDIMScheduler", {"timestep_spacing": "trailing", "eta": 0.5})):
    print(verdict.claim.name, verdict.holds, verdict.kind, verdict.message)
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from .checked_scheduler import CheckedScheduler
from .claim import Claim, Verdict, check
from .loading import load, no_scheduler, options
from .scheduler import Declared, offers

__all__ = ["SCHEDULER_CLAIMS", "audit", "load", "options", "report", "skipped"]


def _scheduler_claims() -> list[Claim]:
    from .claim import CLAIMS
    from .claims import runs, scheduler, steps

    groups = [module.__name__.rsplit(".", 1)[-1] for module in (scheduler, steps, runs)]
    return [claim for claim in CLAIMS if claim.group in groups]


SCHEDULER_CLAIMS = _scheduler_claims()


def audit(
    subject: Any,
    claims: Sequence[Claim] | None = None,
    *,
    match: str = "",
    examples: int | None = None,
    random: bool = False,
    seconds: float = 60.0,
    variance: str | None = None,
    all_steps: bool | None = None,
    dtype: str | None = None,
) -> list[Verdict]:
    """The verdicts of the claims on a scheduler, of those whose methods it has, each case on a copy of it as it was given.

    subject: has some of the methods of `Scheduler`. match: only claims with this text in their name, source or function.
    examples: the largest number of cases a claim. random: new cases each time. seconds: the time each claim may take.
    variance, all_steps: what the subject does by choice, if it does not declare it itself, see `Scheduler`; where nobody
    declares it and it is so, one verdict tells it, and the rest take it for granted. dtype: "float32" or "float64", the
    only one that it is for: what is about others is not asked, and all data come in it.

    What the subject raises, returns or costs is a verdict; `ValueError` if no claim can be asked of it.
    """
    chosen = [claim for claim in (SCHEDULER_CLAIMS if claims is None else claims) if claim.speaks_of(match)]
    if not chosen:
        raise ValueError(f"match: expected part of the name of a claim, got {match!r}")
    if not any(offers(subject, claim.needs) for claim in chosen):
        raise ValueError(no_scheduler(subject))
    subject = _declared(Declared(subject, variance, all_steps, dtype))
    lacking = skipped(subject, chosen)
    return [_verdict(claim, subject, examples, random, seconds) for claim in chosen if claim.name not in lacking]


def skipped(subject: Any, claims: Sequence[Claim] | None = None) -> dict[str, list[str]]:
    """The claims that are not asked of the subject, each with the methods it lacks for them, or with what is declared."""
    declared = {"all_steps"} if getattr(subject, "all_steps", False) else set()
    if isinstance(subject, Declared) and subject.dtype:
        declared.add(subject.dtype)
    why = {
        claim.name: [name for name in claim.needs if not offers(subject, [name])]
        + [name for name in claim.unless if name in declared]
        for claim in (SCHEDULER_CLAIMS if claims is None else claims)
    }
    return {name: reasons for name, reasons in why.items() if reasons}


def report(verdicts: Iterable[Verdict], as_json: bool = False) -> str:
    """The verdicts for a reader: a line each, with one more for each that fails, and the sum; or as JSON."""
    from .report import line, summary, to_dict

    verdicts = list(verdicts)
    if as_json:
        finite = [{key: _finite(value) for key, value in to_dict(verdict).items()} for verdict in verdicts]
        return json.dumps(finite, indent=2)
    return "\n".join([*map(line, verdicts), summary(verdicts)])


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: None stands for them."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _declared(subject: Declared) -> Declared:
    """With what it does and nobody declared, found by asking."""
    from .claims.steps import adds_beta

    found: dict[str, Any] = {}
    with suppress(Exception, SystemExit):  # what fails here fails as a claim too
        if getattr(subject, "all_steps", None) is None:
            one = CheckedScheduler(copy.deepcopy(subject))
            everything = list(range(one.T, 0, -1))
            found["all_steps"] = one.T > 3 and all(one.timesteps(n) == everything for n in (2, 3))
    with suppress(Exception, SystemExit):
        if getattr(subject, "variance", None) is None:
            one = CheckedScheduler(Declared(copy.deepcopy(subject), all_steps=found.get("all_steps")))
            found["variance"] = "beta" if adds_beta(one) else None
    found = {name: value for name, value in found.items() if value}
    said = {name: vars(subject).get(name) for name in ("variance", "all_steps")}
    return Declared(subject.scheduler, **(said | found), dtype=subject.dtype, found=tuple(found))


def _verdict(claim: Claim, subject: Declared, examples: int | None, random: bool, seconds: float) -> Verdict:
    """check(claim), of one dtype alone where only that is to be asked."""
    from hypothesis import strategies as st

    given = claim.given
    if subject.dtype and "dtype" in given:
        given = given | {"dtype": st.just(subject.dtype)}
    cases = min(examples or claim.examples, claim.examples)
    if getattr(subject, "all_steps", False) and "sample" in claim.needs:
        cases = min(cases, 3)  # each is a run of T steps, and they differ by their seed alone
    narrowed = dataclasses.replace(claim, given=given)
    return check(narrowed, subject, examples=cases, random=random, seconds=seconds)._replace(claim=claim)
