"""A plugin of pytest for the GPU's checks: python -m pytest -p benchmarks.lost, with REFDIFF_LEDGER=FILE in the environment.

It records how each test ended, at once, so that a process that dies leaves all of it behind; leaves out what the
ledger has already; and ends the session after an error that makes all that follows fail as well.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from refdiff.engines.cuda.runtime.device import is_lost

LEDGER = "REFDIFF_LEDGER"


class Ledger:
    """Lines of JSON: ["asked", n] once a process, ["begun", test], [verdict, test, words], ["lost"]."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def write(self, *line: Any) -> None:
        with open(self.path, "a") as file:
            file.write(f"\n{json.dumps(line)}\n")  # a process may have died in the middle of the line before

    def read(self) -> Found:
        lines = []
        for text in self.path.read_text().splitlines() if self.path.exists() else []:
            with suppress(ValueError):
                lines.append(json.loads(text))
        verdicts = {line[1]: line[0] for line in lines if line[0].isupper()}
        words = [f"{line[1]}: {line[2]}" for line in lines if line[0] in ("FAILED", "CRASHED")]
        asked = next((line[1] for line in lines if line[0] == "asked"), 0)
        begun = [line[1] for line in lines if line[0] == "begun" and line[1] not in verdicts]
        return Found(asked, verdicts, words, begun, sum(line[0] == "lost" for line in lines))


class Found(NamedTuple):
    """asked: how many tests there are; verdicts: PASSED, SKIPPED, FAILED or CRASHED by test; words: of those that are not
    right; begun: what has no verdict yet; lost: how often the GPU was lost."""

    asked: int
    verdicts: dict[str, str]
    words: list[str]
    begun: list[str]
    lost: int


_said: dict[str, list[str]] = {}  # what failed of the test that runs
_lost: set[str] = set()


def _ledger() -> Ledger:
    return Ledger(os.environ[LEDGER])


def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    done = _ledger().read().verdicts
    gone = [item for item in items if item.nodeid in done]
    if gone:
        config.hook.pytest_deselected(items=gone)
    items[:] = [item for item in items if item.nodeid not in done]


def pytest_collection_finish(session: pytest.Session) -> None:
    _ledger().write("asked", len(session.items))


def pytest_runtest_logstart(nodeid: str) -> None:
    _said[nodeid] = []
    _ledger().write("begun", nodeid)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    if report.failed:
        error = call.excinfo.value if call.excinfo else None
        _said[item.nodeid].append(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
        if is_lost(error):
            _lost.add(item.nodeid)
            item.session.shouldstop = "the GPU does nothing more for this process"
    elif report.skipped:
        _said[item.nodeid].append("")
    return report


def pytest_runtest_logfinish(nodeid: str) -> None:
    said = [text for text in _said[nodeid] if text]
    _ledger().write("FAILED" if said else "SKIPPED" if _said[nodeid] else "PASSED", nodeid, "; ".join(said))
    if nodeid in _lost:
        _ledger().write("lost")
