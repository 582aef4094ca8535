"""Progress: a bar on a terminal alone; elsewhere a plain line every half minute."""

import sys

import pytest

from refdiff import progress
from refdiff.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """The time, to be set by hand."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_elsewhere_a_line_comes_every_half_minute(clock, capsys):
    with Progress("training", 100, "step", done=10) as shown:
        for i in range(90):
            shown.say(f"loss {i}")
            shown.update()
            clock[0] += 1.0
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "training: 41 of 100 steps, loss 30",
        "training: 71 of 100 steps, loss 60",
    ]


def test_what_is_soon_done_or_unwanted_says_nothing(clock, capsys, monkeypatch):
    with Progress("sampling", 5, "step") as shown:
        shown.update(5)
    with Progress("sampling", 5, "step", on=False) as shown:
        clock[0] += 100
        shown.update(5)
    monkeypatch.setattr(sys, "stderr", None)  # as of a program without a console, or with stderr closed
    with Progress("sampling", 5, "step") as shown:
        clock[0] += 100
        shown.update(5)
    monkeypatch.undo()
    assert capsys.readouterr() == ("", "")


def test_on_a_terminal_it_is_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Progress("sampling", 4, "step") as shown:
        shown.say("well")
        shown.update(4)
    err = capsys.readouterr().err
    assert "\r" in err
    assert "sampling: 100%" in err
    assert "well" in err
