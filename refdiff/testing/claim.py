"""A claim: a named property with its equation, its source, and a check whose error must stay within a bound.

    @claim(r"q(x_t \\mid x_0) = ...", source="[DDPM] eq. 4", of=q_sample, against="t single steps", bound=1e-13,
           schedule=schedules(), seed=seeds())
    def the_closed_form_equals_t_single_steps(schedule, seed): ... return the error

One source, three uses: the tests run the claims, `refdiff verify` prints them, docs/equations.md is made from them. A
claim that `needs` methods of a `Scheduler` takes one as its first argument, and runs on ours and on anybody's alike.
"""

from __future__ import annotations

import copy
import math
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..errors import extra
from .checked_scheduler import collected
from .differences import Difference

try:
    import mpmath  # noqa: F401 - the claims' 50-digit arithmetic, asked for here so that the error says what to install
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis.errors import HypothesisException
except ModuleNotFoundError as error:
    raise ImportError(f"claims need {error.name}, which is not installed: {extra('test')}") from None

__all__ = ["CLAIMS", "FAILURES", "Claim", "Verdict", "check", "claim"]

FAILURES = ("fault", "convention", "rounding")  # what a failure can be, the gravest first


@dataclass(frozen=True)
class Claim:
    """name: in words; equation: LaTeX; source: where it is published; of: the public function it speaks of;
    against: what it is held against; bound: the largest error allowed; error: the check, which returns the error;
    given: the hypothesis strategies of its arguments; needs: methods of a `Scheduler`; examples: how many cases;
    failure: what it is if it fails, one of FAILURES, unless the error says otherwise; unit: of the error, if it has one;
    unless: what a scheduler may be declared to be for which the claim is not asked.
    """

    name: str
    text: str
    equation: str
    source: str
    of: str
    against: str
    bound: float
    error: Callable[..., float]
    given: dict[str, Any]
    needs: tuple[str, ...]
    examples: int
    group: str
    failure: str = "fault"
    unit: str = ""
    unless: tuple[str, ...] = ()

    def speaks_of(self, text: str) -> bool:
        """Whether its name, group, source or function holds this text, in capitals or not."""
        return text.lower() in f"{self.name} {self.group} {self.source} {self.of}".lower()


class Verdict(NamedTuple):
    """worst: the largest error found, or of a claim that fails that of the case the message tells (NaN if it has none);
    holds: whether all cases stayed within the bound; message: if not, why; kind: if not, one of FAILURES; warnings: what the
    checked code warned of, and how often.
    """

    claim: Claim
    worst: float
    holds: bool
    message: str
    seconds: float
    kind: str = ""
    warnings: dict[str, int] = {}  # noqa: RUF012 - read only


CLAIMS: list[Claim] = []


def claim(
    equation: str,
    *,
    source: str,
    of: Any,
    against: str,
    bound: float,
    needs: tuple[str, ...] = (),
    examples: int = 25,
    failure: str = "fault",
    unit: str = "",
    unless: tuple[str, ...] = (),
    **given: Any,
) -> Callable[[Callable[..., float]], Callable[..., float]]:
    """Register the decorated function, which returns an error, as a claim. Its name and docstring are the claim's."""
    assert failure in FAILURES, failure

    def register(error: Callable[..., float]) -> Callable[..., float]:
        function = of if isinstance(of, str) else f"{of.__module__}.{of.__qualname__}"
        CLAIMS.append(
            Claim(
                name=error.__name__.replace("_", " "),
                text=" ".join((error.__doc__ or "").split()),
                equation=equation,
                source=source,
                of=function,
                against=against,
                bound=bound,
                error=error,
                given=given,
                needs=needs,
                examples=examples,
                group=error.__module__.rsplit(".", 1)[-1],
                failure=failure,
                unit=unit,
                unless=unless,
            )
        )
        return error

    return register


class _Failure(NamedTuple):
    """One case in which a claim fails."""

    kind: str
    error: float
    message: str

    def gravity(self) -> tuple[int, bool, float]:
        """The gravest kind first, then what has no error at all, then the largest error."""
        none = math.isnan(self.error)
        return -FAILURES.index(self.kind), none, 0.0 if none else self.error


def check(
    claim: Claim, subject: Any = None, *, examples: int | None = None, random: bool = False, seconds: float = 60.0
) -> Verdict:
    """Run a claim on hypothesis's cases, the same ones every time unless `random`; the verdict says what was found.

    Each case has its own copy of the subject, so that what one leaves behind is not another's. Of the cases that fail the
    gravest is told. Whatever the checked code raises, returns or costs in time becomes a verdict, its warnings are
    counted, and nothing is raised but an interrupt.
    """
    started = time.perf_counter()
    worst, failures = 0.0, []

    def case(**drawn: Any) -> None:
        nonlocal worst
        if time.perf_counter() - started > seconds:  # where there is no alarm
            raise _LateError(f"took longer than {seconds:g} s")
        try:
            error = claim.error(_fresh(subject), **drawn) if claim.needs else claim.error(**drawn)
        except HypothesisException:
            raise
        except (Exception, SystemExit) as raised:
            failures.append(_Failure("fault", math.nan, _told(raised)))
        else:
            worst = max(worst, float(error))
            if not error <= claim.bound:
                failures.append(_failed(claim, error))

    profile = settings(
        max_examples=examples or claim.examples,
        derandomize=not random,
        database=None,
        deadline=None,
        print_blob=False,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    warned: Counter[str] = Counter()
    try:
        with collected(warned), _time_limit(seconds):
            if claim.given:
                profile(given(**claim.given)(case))()
            else:
                case()
    except _LateError as late:
        failures.append(_Failure("fault", math.nan, str(late)))
    except Exception as error:  # of hypothesis itself
        failures.append(_Failure("fault", math.nan, _told(error)))
    took = time.perf_counter() - started
    if not failures:
        return Verdict(claim, worst, True, "", took, "", dict(warned))
    told = max(failures, key=_Failure.gravity)
    return Verdict(claim, told.error, False, told.message, took, told.kind, dict(warned))


def _failed(claim: Claim, error: float) -> _Failure:
    """What an error beyond the bound says."""
    text, kind = (f"{error.text}; ", error.kind) if isinstance(error, Difference) else ("", "")
    unit, verb = (f" {claim.unit}", "are") if claim.unit else ("", "is")
    message = f"{text}error {float(error):.3g}{unit} where at most {claim.bound:.3g} {verb} allowed"
    return _Failure(kind or claim.failure, float(error), message)


def _told(raised: BaseException) -> str:
    text = " ".join(str(raised).split()) or "no message"
    return text if isinstance(raised, AssertionError) else f"{type(raised).__name__}: {text}"


def _fresh(subject: Any) -> Any:
    """A copy of it as it was given; what cannot be copied is asked as it is."""
    with suppress(Exception):
        return copy.deepcopy(subject)
    return subject


class _LateError(BaseException):
    """Beyond Exception, so that neither hypothesis nor the code under test catches it and goes on."""


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """_LateError after this many seconds, where the system has an alarm and this is the main thread."""
    if not hasattr(signal, "SIGALRM") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def late(number: int, frame: Any) -> None:
        raise _LateError(f"took longer than {seconds:g} s")

    former = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
