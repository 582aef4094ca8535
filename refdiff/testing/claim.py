"""A claim: a named property with its equation, its source, and a check whose error must stay within a bound.

    @claim(r"q(x_t \\mid x_0) = ...", source="[DDPM] eq. 4", of=q_sample, against="t single steps", bound=1e-13,
           schedule=schedules(), seed=seeds())
    def the_closed_form_equals_t_single_steps(schedule, seed): ... return the error

One source, three uses: the tests run the claims, `refdiff verify` prints them, docs/equations.md is made from them. A
claim that `needs` methods of a `Scheduler` takes one as its first argument, and runs on ours and on anybody's alike.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..errors import extra

try:
    import mpmath  # noqa: F401 - the claims' 50-digit arithmetic, asked for here so that the error says what to install
    from hypothesis import HealthCheck, Phase, given, settings
except ModuleNotFoundError as error:
    raise ImportError(f"claims need {error.name}, which is not installed: {extra('test')}") from None

__all__ = ["CLAIMS", "Claim", "Verdict", "check", "claim"]


@dataclass(frozen=True)
class Claim:
    """name: in words; equation: LaTeX; source: where it is published; of: the public function it speaks of;
    against: what it is held against; bound: the largest error allowed; error: the check, which returns the error;
    given: the hypothesis strategies of its arguments; needs: methods of a `Scheduler`; examples: how many cases.
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


class Verdict(NamedTuple):
    """worst: the largest error found, NaN if one was; holds: whether all stayed within the bound; message: if not, why."""

    claim: Claim
    worst: float
    holds: bool
    message: str
    seconds: float


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
    **given: Any,
) -> Callable[[Callable[..., float]], Callable[..., float]]:
    """Register the decorated function, which returns an error, as a claim. Its name and docstring are the claim's."""

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
            )
        )
        return error

    return register


def check(
    claim: Claim, subject: Any = None, *, examples: int | None = None, random: bool = False, seconds: float = 60.0
) -> Verdict:
    """Run a claim on hypothesis's cases, the same ones every time unless `random`; the verdict says what was found.

    Whatever the checked code raises, returns or costs in time becomes a verdict: nothing is raised but an interrupt.
    """
    worst, started = 0.0, time.perf_counter()

    def within(**drawn: Any) -> None:
        nonlocal worst
        error = float(claim.error(subject, **drawn) if claim.needs else claim.error(**drawn))
        worst = error if error != error or worst != worst else max(worst, error)
        assert error <= claim.bound, f"error {error:.3g} where at most {claim.bound:.3g} is allowed"

    profile = settings(
        max_examples=examples or claim.examples,
        derandomize=not random,
        database=None,
        deadline=None,
        print_blob=False,
        report_multiple_bugs=False,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    message = ""
    try:
        with _time_limit(seconds):
            if claim.given:
                profile(given(**claim.given)(within))()
            else:
                within()
    except _LateError as late:
        message = str(late)
    except Exception as error:
        text = " ".join(str(error).split()) or "no message"
        message = text if isinstance(error, AssertionError) else f"{type(error).__name__}: {text}"
    return Verdict(claim, worst, not message, message, time.perf_counter() - started)


class _LateError(BaseException):
    """Beyond Exception, so that neither hypothesis nor the code under test catches it and goes on."""


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """_LateError after so many seconds, where the system has an alarm and this is the main thread."""
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
