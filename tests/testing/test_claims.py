"""Every claim holds; and a claim that does not hold says so, whatever the code under it does."""

import dataclasses
import json
import logging
import math
import time
import warnings
from pathlib import Path

import pytest
from hypothesis import strategies as st

from refdiff.cli import main
from refdiff.testing import claims, report
from refdiff.testing.claim import CLAIMS, Claim, check
from refdiff.testing.differences import Difference
from refdiff.testing.scheduler import RefdiffScheduler


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_claim(claim, request):
    random = request.config.getoption("--hypothesis-profile") == "random"
    verdict = check(claim, RefdiffScheduler("linear") if claim.needs else None, random=random, seconds=300)
    assert verdict.holds, verdict.message
    assert verdict.worst <= claim.bound
    assert not verdict.warnings


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


def test_the_number_and_the_message_are_of_one_case_and_have_a_unit():
    claim = dataclasses.replace(make(lambda x: Difference(x, f"for x = {x:.3g}"), bound=5.0), unit="roundings")
    verdict = check(claim)
    assert (
        verdict.message
        == f"for x = {verdict.worst:.3g}; error {verdict.worst:.3g} roundings where at most 5 are allowed"
    )
    assert "(roundings)" in report.line(verdict)
    assert f"{verdict.worst:8.2e}" in report.line(verdict)


def test_the_gravest_failure_is_told():
    """A fault, though conventions and roundings are farther off; among equals the farthest, and what raises before all."""

    def error(x):
        kind = "convention" if x > 5 else "rounding" if x < 2 else "fault"
        return Difference(3 + (100 if kind != "fault" else x), kind, kind)

    verdict = check(make(error, bound=1.0))
    assert (verdict.kind, verdict.worst) == ("fault", pytest.approx(8, abs=3))
    assert report.line(verdict).startswith("FAULT ")
    assert "1 fault" in report.summary([verdict])
    verdict = check(dataclasses.replace(make(lambda x: x, bound=1.0), failure="rounding"))
    assert verdict.kind == "rounding"
    assert report.line(verdict).startswith("ROUNDING ")


def test_each_case_has_its_own_copy_of_the_subject():
    used = []

    def once(subject, x):
        subject.append(x)
        used.append(len(subject))
        return 0.0

    subject = []
    assert check(dataclasses.replace(make(once), needs=("alpha_bar",)), subject).holds
    assert set(used) == {1}
    assert subject == []


def test_warnings_are_counted_and_not_printed(capsys, recwarn):
    def warns(x):
        warnings.warn("look  out", RuntimeWarning, stacklevel=1)
        logging.getLogger("theirs").error("beware")
        return 0.0

    verdict = check(make(warns))
    assert verdict.holds
    assert verdict.warnings == {"RuntimeWarning: look out": 20, "theirs: beware": 20}
    assert report.summary([verdict, verdict]).splitlines()[:2] == [
        "warned 40 times: theirs: beware",
        "warned 40 times: RuntimeWarning: look out",
    ]
    assert not recwarn.list
    assert capsys.readouterr().err == ""


def test_every_claim_and_its_function_have_a_place():
    root = Path(report.__file__).parent.parent.parent
    for claim in CLAIMS:
        (file, line), (of_file, of_line) = report.claim_place(claim), report.function_place(claim)
        lines = (root / file).read_text().splitlines()[line - 1 :]
        assert any(claim.name.replace(" ", "_") in text for text in lines[:12]), claim.name
        lines = (root / of_file).read_text().splitlines()[of_line - 1 :]
        assert any(claim.of.rsplit(".", 1)[1] in text for text in lines[:3]), claim.name


def test_verify_finds_the_claims_that_call_a_function_of_which_there_is_none(capsys):
    assert not any(claim.speaks_of("l_simple_backward") for claim in CLAIMS)
    assert main(["verify", "--match", "l_simple_backward", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)


def test_verify_finds_the_claims_of_a_function_and_says_where_they_are(capsys):
    assert main(["verify", "--match", "q_sample", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert len(told) >= 3
    assert any("q_sample" not in one["claim"].replace(" ", "_") for one in told)
    assert {one["of"] for one in told} == {"refdiff.process.forward.q_sample"}
    assert {one["of_file"] for one in told} == {"refdiff/process/forward.py"}
    assert all(one["file"] == "refdiff/testing/claims/forward.py" and one["line"] > 1 for one in told)
    assert main(["verify", "--match", told[0]["claim"]]) == 0
    line = capsys.readouterr().out.splitlines()[0]
    assert line.endswith(
        f"refdiff/testing/claims/forward.py:{told[0]['line']} of refdiff/process/forward.py:{told[0]['of_line']}"
    )


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
    assert "FAULT" in out
    assert "0 of 1 claims hold" in out


def test_a_match_that_fits_nothing_is_an_error(capsys):
    assert main(["verify", "--match", "no such claim"]) == 2
    assert "--match: expected words of a claim" in capsys.readouterr().err
