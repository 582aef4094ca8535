"""The checks of the GPU suite, each a program of its own with a time limit: the engine's tests, whole trainings, and
compute-sanitizer. After an error that leaves the GPU useless to a process (and after one that dies, or hangs) a new process
goes on with what comes next, so that one bad kernel costs one test."""

from __future__ import annotations

import glob
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.suite import ROOT, Incomplete, Suite
from refdiff.benchmark import Budget
from refdiff.benchmark.protocol import FATAL

TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
LANES = 8  # test files at a time, most
FAILURES = 20  # of one file, most: what comes after them is not run
_NEVER = threading.Event()
_RETURNED, _SANITIZER_STATUS = 0, 86


class Ended(NamedTuple):
    """status: None if it was stopped, and then why; said: all of its output."""

    status: int | None
    said: str
    why: str = ""

    @property
    def last(self) -> str:
        """How it ended, in words."""
        if self.status is None:
            return self.why
        line = (self.said.strip().splitlines() or ["it said nothing"])[-1][:200]
        died = f"died of {signal.Signals(-self.status).name}" if self.status < 0 else f"ended with status {self.status}"
        return f"{died}: {line}"


def run(
    command: list[str],
    seconds: float,
    quiet: Callable[[], str] = str,
    stop: threading.Event = _NEVER,
    **environment: str,
) -> Ended:
    """A program until it ends, until its time is over, until `stop` is set, or until quiet() gives a reason to stop it."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        env={**os.environ, "PYTHONPATH": paths, "PYTHONUNBUFFERED": "1", **environment}, start_new_session=True,
    )  # fmt: skip
    end, why = time.monotonic() + max(seconds, 0.1), ""
    try:
        while not why:
            try:
                said, _ = process.communicate(timeout=max(0.01, min(0.5, end - time.monotonic())))
                return Ended(process.returncode, said)
            except subprocess.TimeoutExpired:
                why = (
                    f"stopped after {seconds:.0f} s" * (time.monotonic() > end) or "stopped" * stop.is_set() or quiet()
                )
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # its workers too
    said, _ = process.communicate()
    return Ended(None, said, why)


def checks(suite: Suite, budget: Budget, plan: Any) -> str:
    """The tests of tests/engines/cuda with the GPU as their device; without pytest every operation on a few shapes."""
    if not all(importlib.util.find_spec(name) for name in ("pytest", "hypothesis")):
        pieces = in_pieces([], budget, plan)
        words = [line for piece in pieces for line in piece.said.splitlines() if line.startswith("FAILED")]
        words += [piece.last for piece in pieces if piece.status not in (0, 1, FATAL)]
        counts = Counter({"PASSED": sum(_passed(piece.said) for piece in pieces), "FAILED": len(words)})
        return summarise(suite, counts, int(not words and not counts["PASSED"]), words)
    counts, missing, words, stop = Counter[str](), 0, list[str](), threading.Event()
    lanes = min(LANES, os.cpu_count() or 1, len(plan.tests))
    with ThreadPoolExecutor(lanes) as pool:
        try:
            for future in as_completed([pool.submit(one_file, path, budget, plan, stop) for path in plan.tests]):
                found, lacks, said = future.result()
                counts, missing, words = counts + found, missing + lacks, words + said
                suite.more.update({"counts": dict(counts), "not run": missing, "errors": words[:60]})
                suite.write()
        finally:
            stop.set()
    return summarise(suite, counts, missing, words)


def one_file(path: Path, budget: Budget, plan: Any, stop: threading.Event) -> tuple[Counter[str], int, list[str]]:
    """How its tests ended, how many were not run, and what is wrong."""
    from benchmarks.lost import LEDGER, Ledger

    with tempfile.TemporaryDirectory() as folder:
        ledger, done, words = Ledger(Path(folder) / "ledger"), 0, list[str]()
        command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", "-p", "benchmarks.lost",
                   "-o", "filterwarnings=default", "-m", "slow or not slow", *["-k", plan.chosen] * bool(plan.chosen),
                   str(path)]  # fmt: skip

        def quiet() -> str:
            """One test takes too long."""
            if not ledger.path.exists() or time.time() - ledger.path.stat().st_mtime < plan.patience:
                return ""
            return f"took longer than {plan.patience:.0f} s" * bool(ledger.read().begun)  # else the next process starts

        while True:
            now = {LEDGER: str(ledger.path), "REFDIFF_DEVICE": plan.device}
            ended = run(command, budget.left, quiet, stop, **now)
            found = ledger.read()
            for test in found.begun:
                ledger.write("CRASHED", test, ended.last)
            before, found = found, ledger.read()
            ok = ended.status in (0, 1, 5) and not before.begun and len(found.verdicts) >= found.asked
            failed = sum(v in ("FAILED", "CRASHED") for v in found.verdicts.values())
            if ok or len(found.verdicts) == done or failed >= FAILURES or budget.left < 1 or stop.is_set():
                break
            done = len(found.verdicts)
        missing = max(found.asked - len(found.verdicts), 0)
        if not ok and (not found.asked or missing):
            words.append(f"{path.name}: {missing or 'its tests'} not run: {ended.last}")
            missing = missing or 1
    return Counter(found.verdicts.values()), missing, [*found.words, *words]


def summarise(suite: Suite, counts: Counter[str], missing: int, words: list[str]) -> str:
    """What to say of them. Incomplete where one is not right, or was not run."""
    suite.more.update({"counts": dict(counts), "not run": missing, "errors": words[:60]})
    text = f"{counts['PASSED']} passed, {counts['FAILED'] + counts['CRASHED']} failed, {counts['SKIPPED']} skipped"
    text += f", {missing} not run" * bool(missing)
    if words or missing or not counts["PASSED"]:
        raise Incomplete("; ".join([text, *words[:3]]))
    return text


def in_pieces(prefix: list[str], budget: Budget, plan: Any) -> list[Ended]:
    """Every check of odd_shapes under a tool, in as many processes as it takes."""
    pieces, done, silent = list[Ended](), 0, 0
    while True:
        command = [*prefix, sys.executable, "-m", "benchmarks.odd_shapes", plan.device, *["--few"] * plan.dry]
        ended = run([*command, "--from", str(done)], budget.left)
        pieces.append(ended)
        verdicts = len(re.findall(r"^(?:PASSED|FAILED) ", ended.said, re.M))
        silent = 0 if verdicts else silent + 1
        if ended.status is None or budget.left < 1 or silent > 1:
            return pieces
        if ended.status >= 0 and ended.status != FATAL and not _lost(ended.said):
            return pieces
        done += verdicts + (ended.status < 0)  # of what killed it nothing is said


def _lost(said: str) -> bool:
    """Its last check lost the GPU: a tool has an exit status of its own."""
    last = [line for line in said.splitlines() if line.startswith(("PASSED", "FAILED"))][-1:]
    return bool(last) and "DeviceLost" in last[0]


def _passed(said: str) -> int:
    return len(re.findall(r"^PASSED", said, re.M))


def agreement(suite: Suite, budget: Budget, plan: Any) -> str:
    """Two runs of 100 steps have the same bits, and the losses of the reference engine to 1e-3."""
    steps = ["3", "model.width=8", "model.groups=4", "train.batch=2", "train.steps=20", "train.warmup=2"]
    command = [sys.executable, "-m", "benchmarks.agreement", plan.device, *(steps if plan.dry else ["100"])]
    ended = run(command, budget.left)
    if ended.status is None:
        raise TimeoutError(ended.why)
    if ended.status:
        raise RuntimeError(ended.last)
    found = json.loads(ended.said.strip().splitlines()[-1])
    suite.more.update(found)
    text = (f"{found['steps']} steps: two runs {'have the same bits' if found['same_bits'] else 'DIFFER'}; losses differ "
            f"from the reference engine's by at most {found['loss_difference']:.1e}")  # fmt: skip
    if not (found["same_bits"] and found["close"]):
        raise AssertionError(text)
    return text


def sanitizers(suite: Suite, budget: Budget, plan: Any) -> str:
    """memcheck, racecheck, initcheck and synccheck over every operation on odd shapes and two training steps."""
    places = [shutil.which("compute-sanitizer"), *glob.glob("/usr/local/cuda*/bin/compute-sanitizer")]
    tool = next((p for p in places if p), None)
    if tool is None:
        if "sanitizers" in plan.asked:
            raise Incomplete("compute-sanitizer is not installed")
        return "not run: compute-sanitizer is not installed"
    found: dict[str, str] = {}
    for i, name in enumerate(TOOLS):
        own = budget.part(1 / (len(TOOLS) - i))
        options = ["--tool", name, "--error-exitcode", str(_SANITIZER_STATUS), "--print-limit", "20"]
        pieces = in_pieces([tool, *options], own, plan)
        found[name] = tool_verdict(pieces)
        suite.more[name] = found[name]
        said = "\n".join(piece.said for piece in pieces)
        if any(piece.status not in (_RETURNED, None) for piece in pieces):
            lines = [line for line in said.splitlines() if line.startswith("=========") or "FAILED" in line]
            suite.more.setdefault("output", {})[name] = lines[:60] or said.splitlines()[-20:]
        suite.write()
    text = "; ".join(f"{name}: {verdict}" for name, verdict in found.items())
    if any(not v.startswith(("clean", "refused")) for v in found.values()) or "clean" not in text:
        raise Incomplete(text)
    return text


def tool_verdict(pieces: list[Ended]) -> str:
    """Of all processes of one tool: what is bad in the first bad one, and how much passed in all."""
    passed = sum(_passed(piece.said) for piece in pieces)
    if any("Device not supported" in piece.said for piece in pieces):
        return "refused: this machine does not support the tool"
    for piece in pieces:
        summary = re.findall(r"(?:ERROR|RACECHECK) SUMMARY: (.*)", piece.said)
        clean = not summary or re.match(r"0 (errors|hazards)", summary[-1])
        if piece.status is None:
            return f"{piece.why}, {passed} operations were clean until then" if passed else piece.why
        if piece.status != _RETURNED or not _passed(piece.said) or not clean:
            bad = summary[-1] if summary and piece.status == _SANITIZER_STATUS else piece.last
            return f"{bad}; {passed} operations passed" if len(pieces) > 1 else bad
    return f"clean, {passed} operations"
