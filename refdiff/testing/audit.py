"""Audit somebody's scheduler: run the claims it can be asked on it, and say of each that fails what came instead of what.

for verdict in audit(load("diffusers:DDIMScheduler", {"timestep_spacing": "trailing", "eta": 0.5})):
    print(verdict.claim.name, verdict.holds, verdict.message)
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import importlib
import json
import math
import os
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

from .asking import Difference
from .claim import Claim, Verdict, check
from .scheduler import Scheduler, expected_methods, offers

__all__ = ["SCHEDULER_CLAIMS", "audit", "load", "options", "report", "unasked"]


def _scheduler_claims() -> list[Claim]:
    from .claim import CLAIMS
    from .claims import runs, scheduler

    groups = [module.__name__.rsplit(".", 1)[-1] for module in (scheduler, runs)]
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
) -> list[Verdict]:
    """The verdicts of the claims on a scheduler, of those whose methods it has, each on a copy of it as it was given.

    subject: has some of the six methods of `Scheduler`. match: only claims with this text in their name. examples: at
    most so many cases a claim. random: new cases each time. seconds: the time each claim may take. What the subject
    raises, returns or costs is a verdict; `ValueError` if no claim can be asked of it.
    """
    chosen = [claim for claim in (SCHEDULER_CLAIMS if claims is None else claims) if match.lower() in claim.name]
    if not chosen:
        raise ValueError(f"match: expected part of the name of a claim, got {match!r}")
    asked = [claim for claim in chosen if offers(subject, claim.needs)]
    if not asked:
        raise ValueError(_no_scheduler(subject))
    return [_verdict(claim, subject, examples, random, seconds) for claim in asked]


def unasked(subject: Any, claims: Sequence[Claim] | None = None) -> dict[str, list[str]]:
    """The claims that cannot be asked of the subject, each with the methods it lacks for them."""
    missing = {
        claim.name: [name for name in claim.needs if not offers(subject, [name])]
        for claim in (SCHEDULER_CLAIMS if claims is None else claims)
    }
    return {name: methods for name, methods in missing.items() if methods}


def report(verdicts: Iterable[Verdict], as_json: bool = False) -> str:
    """The verdicts for a reader: a line each, with one more for each that fails, and the sum; or as JSON."""
    from .report import line, summary, to_dict

    verdicts = list(verdicts)
    if as_json:
        finite = [{key: _finite(value) for key, value in to_dict(verdict).items()} for verdict in verdicts]
        return json.dumps(finite, indent=2)
    return "\n".join([*map(line, verdicts), summary(verdicts)])


def options(arguments: Iterable[str]) -> dict[str, Any]:
    """{"eta": 0.5, "clip_sample": False} from eta=0.5 clip_sample=false: values are JSON, or else text."""
    values: dict[str, Any] = {}
    for argument in arguments:
        name, equals, text = argument.partition("=")
        if not (equals and name.isidentifier()):
            raise ValueError(f"options: expected name=value, got {argument!r}")
        try:
            values[name] = json.loads({"True": "true", "False": "false", "None": "null"}.get(text, text))
        except json.JSONDecodeError:
            values[name] = text
    return values


def load(target: str, options: dict[str, Any] | None = None) -> Scheduler:
    """The scheduler that `module:name` names, made with these keyword options, ready to be asked.

    An object with the methods of `Scheduler` is taken as it is; one of diffusers is put into its adapter, which takes
    `eta` and `use_clipped_model_output` beside the options of its class. ValueError if it is neither, or cannot be made.
    """
    module_name, colon, name = target.partition(":")
    if not (colon and module_name and name):
        raise ValueError(f"target: expected module:class, as in mypackage.schedules:MyScheduler, got {target!r}")
    given = dict(options or {})
    try:
        made = _made(_found(module_name, name, target), given, target)
    except (ValueError, ImportError):
        raise
    except Exception as error:  # whatever somebody's module or class raises
        raise ValueError(
            f"target: {target} with {given or 'no options'} raised {type(error).__name__}: {error}"
        ) from error
    if not offers(made, ["alpha_bar"]):
        raise ValueError(f"target: {target} is no scheduler that can be asked. {_no_scheduler(made)}")
    return made


def _made(found: Any, given: dict[str, Any], target: str) -> Any:
    """The scheduler itself: a class or a function is called with the options, a scheduler of diffusers gets its adapter."""
    from . import diffusers

    if diffusers.is_scheduler(found):
        return diffusers.wrap(found, **given)
    if isinstance(found, type) or (callable(found) and not offers(found, ["alpha_bar"])):
        found, given = found(**given), {}
    if given:
        raise ValueError(f"options: {target} is an object already made, which takes none, got {given}")
    return diffusers.wrap(found) if diffusers.is_scheduler(found) else found


def _found(module_name: str, name: str, target: str) -> Any:
    """The object, from a module that may lie in the current folder."""
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        install = ": pip install diffusers torch" if module_name.split(".")[0] == "diffusers" else ""
        raise ValueError(f"target: {target} needs the module {error.name!r}, which is not found{install}") from error
    finally:
        sys.path.remove(here)
    found = getattr(module, name, None)
    if found is None:
        classes = [
            key for key, value in vars(module).items() if isinstance(value, type) and value.__module__ == module_name
        ]
        raise ValueError(f"target: {module_name} has no {name}; its classes are {', '.join(classes) or 'none'}")
    return found


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: None stands for them."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _no_scheduler(subject: Any) -> str:
    return (
        f"A scheduler has alpha_bar and as many as it can of: {expected_methods()}; {type(subject).__name__} has not. "
        "Write a class with these methods around it (see docs/verify-your-own.md)"
    )


def _verdict(claim: Claim, subject: Any, examples: int | None, random: bool, seconds: float) -> Verdict:
    """check(claim) on a copy of the subject, with a message that tells what was expected and what came."""
    with contextlib.suppress(Exception):  # what cannot be copied is asked as it is
        subject = copy.deepcopy(subject)
    last, raised_last = "", False
    started = time.perf_counter()

    def error(*given: Any, **drawn: Any) -> float:
        nonlocal last, raised_last
        last, raised_last = "", True
        try:
            # The alarm of `check` rings once; hypothesis would go on with what is slow to find a smaller case of it.
            if time.perf_counter() - started > seconds:
                raise TimeoutError(f"took longer than {seconds:g} s")
            found = claim.error(*given, **drawn)
        except (Exception, SystemExit) as raised:
            text = " ".join(str(raised).split()) or "no message"
            last = text if isinstance(raised, AssertionError) else f"{type(raised).__name__}: {text}"
            if isinstance(raised, SystemExit):
                raise RuntimeError(last) from raised
            raise
        raised_last = False
        if isinstance(found, Difference) and not found <= claim.bound:
            last = f"{found.text}; error {found:.3g} where at most {claim.bound:.3g} is allowed"
        return found

    cases = min(examples or claim.examples, claim.examples)
    verdict = check(dataclasses.replace(claim, error=error), subject, examples=cases, random=random, seconds=seconds)
    if verdict.holds:
        return verdict._replace(claim=claim)
    worst = float("nan") if raised_last else verdict.worst
    return verdict._replace(claim=claim, worst=worst, message=last or verdict.message)
