"""Every claim holds; and a claim that does not hold says so, whatever the code under it does."""

import json
import math
import time

import pytest
from hypothesis import strategies as st

from refdiff.cli import main
from refdiff.process import linear
from refdiff.testing import claims, report
from refdiff.testing.claim import CLAIMS, Claim, check
from refdiff.testing.scheduler import RefdiffScheduler


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_claim(claim, request):
    random = request.config.getoption("--hypothesis-profile") == "random"
    verdict = check(claim, RefdiffScheduler(linear()) if claim.needs else None, random=random, seconds=300)
    assert verdict.holds, verdict.message
    assert verdict.worst <= claim.bound


def test_claims_are_documented_and_their_names_are_their_own():
    assert claims.forward is not None
    assert len({claim.name for claim in CLAIMS}) == len(CLAIMS)
    for claim in CLAIMS:
        assert claim.text.rstrip(")").endswith((".", "?")), claim.name
        assert claim.equation
        assert claim.source.startswith("["), claim.name
        assert claim.of.startswith("refdiff."), claim.name


@pytest.mark.parametrize("name", report.PAGES)
def test_the_pages_made_from_the_claims_are_up_to_date(name):
    from pathlib import Path

    page = Path(__file__).parent.parent.parent / "docs" / name
    assert page.read_text() == report.PAGES[name](), "run: python -m refdiff.testing.report docs"


def make(error, given=None, bound=1.0):
    return Claim(
        "a claim", "Text.", "x", "[X]", "refdiff.x", "y", bound, error, given or {"x": st.floats(0, 10)}, (), 20, "g"
    )


def test_the_worst_error_is_reported_and_the_bound_decides():
    verdict = check(make(lambda x: x / 10, bound=2.0))
    assert verdict.holds
    assert 0 < verdict.worst <= 1
    verdict = check(make(lambda x: x, bound=5.0))
    assert not verdict.holds
    assert verdict.worst > 5
    assert "where at most 5 is allowed" in verdict.message


def test_nan_never_passes():
    verdict = check(make(lambda x: math.nan))
    assert not verdict.holds
    assert math.isnan(verdict.worst)


def test_what_raises_or_takes_too_long_is_a_verdict_too():
    verdict = check(make(lambda x: 1 / 0))
    assert not verdict.holds
    assert verdict.message.startswith("ZeroDivisionError: ")
    verdict = check(make(lambda x: time.sleep(5)), seconds=0.2)
    assert not verdict.holds
    assert "took longer than 0.2 s" in verdict.message
    assert verdict.seconds < 2


def test_a_broken_equation_makes_verify_fail(monkeypatch, capsys):
    from refdiff.process import schedules

    right = schedules.Schedule.between

    def wrong(self, k, t):
        alpha, beta = right(self, k, t)
        return alpha, beta * (1 + 1e-12)

    assert main(["verify", "--match", "completing the square", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["holds"] is True
    monkeypatch.setattr(schedules.Schedule, "between", wrong)
    assert main(["verify", "--match", "completing the square"]) == 1
    out = capsys.readouterr().out
    assert "FAILS" in out
    assert "0 of 1 claims hold" in out


def test_a_match_that_fits_nothing_is_an_error(capsys):
    assert main(["verify", "--match", "no such claim"]) == 2
    assert "--match: expected words of a claim" in capsys.readouterr().err
