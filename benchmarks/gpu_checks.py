"""The checks of the GPU suite, each a program of its own with a time limit: the engine's tests, whole trainings, and
compute-sanitizer."""

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
from typing import Any

from benchmarks.suite import ROOT, Suite
from refdiff.benchmark import Budget

TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
_VERDICT = re.compile(r"\b(PASSED|FAILED|ERROR|SKIPPED)\b")
_RETURNED, _SANITIZER_STATUS = 0, 86


def run(command: list[str], seconds: float, **environment: str) -> tuple[int | None, str]:
    """Exit status, None if it was stopped at its limit, and what it said."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        env={**os.environ, "PYTHONPATH": paths, "PYTHONUNBUFFERED": "1", **environment}, start_new_session=True,
    )  # fmt: skip
    try:
        said, _ = process.communicate(timeout=max(seconds, 0.1))
        return process.returncode, said
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # its workers too
        said, _ = process.communicate()
        return None, said


def kernels(suite: Suite, budget: Budget, plan: Any) -> str:
    """The tests of tests/engines/cuda with the GPU as their device; without pytest every operation on a few shapes."""
    if all(importlib.util.find_spec(name) for name in ("pytest", "hypothesis")):
        what = (
            ["tests/engines/cuda/test_activation.py", "-k", "silu and shape1"] if plan.dry else ["tests/engines/cuda"]
        )
        command = [sys.executable, "-m", "pytest", "-v", "--tb=short", "-p", "no:cacheprovider", "--maxfail=60",
                   "-o", "filterwarnings=default", "-m", "slow or not slow", *what]  # fmt: skip
        if importlib.util.find_spec("xdist") and not plan.dry:
            command += ["-n", str(min(8, os.cpu_count() or 1))]
    else:
        command = [sys.executable, "-m", "benchmarks.odd_shapes", plan.device]
    status, said = run(command, budget.left, REFDIFF_DEVICE=plan.device)
    lines = said.splitlines()
    each = said.partition("short test summary info")[0].splitlines()
    verdicts = [found[1] for line in each if (found := _VERDICT.search(line)) and "===" not in line]
    counts = {name: verdicts.count(name) for name in ("PASSED", "FAILED", "ERROR", "SKIPPED")}
    errors = [line[:400] for line in lines if line.startswith(("E  ", "FAILED", "ERROR"))]
    suite.more["checks"] = {"command": command[1:], "counts": counts, "status": status, "errors": errors[:60]}
    text = f"{counts['PASSED']} passed, {counts['FAILED'] + counts['ERROR']} failed, {counts['SKIPPED']} skipped"
    if status is None:
        raise TimeoutError(f"stopped after {budget.seconds:.0f} s: {text}")
    if status or not counts["PASSED"]:
        raise AssertionError(f"{text}; {'; '.join(errors[:3]) or (lines or ['it said nothing'])[-1]}")
    return text


def agreement(suite: Suite, budget: Budget, plan: Any) -> str:
    """Two runs of 100 steps have the same bits, and the losses of the reference engine to 1e-3."""
    steps = ["3", "model.width=8", "model.groups=4", "train.batch=2", "train.steps=20", "train.warmup=2"]
    command = [sys.executable, "-m", "benchmarks.agreement", plan.device, *(steps if plan.dry else ["100"])]
    status, said = run(command, budget.left)
    if status is None:
        raise TimeoutError(f"stopped after {budget.seconds:.0f} s")
    lines = said.strip().splitlines() or ["it said nothing"]
    if status:
        raise RuntimeError(lines[-1][:400])
    found = suite.more["agreement"] = json.loads(lines[-1])
    text = (f"{found['steps']} steps: two runs {'have the same bits' if found['same_bits'] else 'DIFFER'}; losses differ "
            f"from the reference engine's by at most {found['loss_difference']:.1e}")  # fmt: skip
    if not (found["same_bits"] and found["close"]):
        raise AssertionError(text)
    return text


def sanitizer(suite: Suite, budget: Budget, plan: Any) -> str:
    """memcheck, racecheck, initcheck and synccheck over every operation on odd shapes and two training steps."""
    places = [shutil.which("compute-sanitizer"), *glob.glob("/usr/local/cuda*/bin/compute-sanitizer")]
    tool = next((p for p in places if p), None)
    if tool is None:
        return "not run: compute-sanitizer is not installed"
    found: dict[str, str] = {}
    for i, name in enumerate(TOOLS):
        own = budget.part(1 / (len(TOOLS) - i))
        command = [tool, "--tool", name, "--error-exitcode", str(_SANITIZER_STATUS), "--print-limit", "20",
                   sys.executable, "-m", "benchmarks.odd_shapes", plan.device, *["--few"] * plan.dry]  # fmt: skip
        status, said = run(command, own.left)
        found[name] = _verdict(status, said, own.seconds)
        suite.more["sanitizer"] = dict(found)
        if status not in (_RETURNED, None):
            lines = [line for line in said.splitlines() if line.startswith("=========") or "FAILED" in line]
            suite.more.setdefault("sanitizer_output", {})[name] = lines[:60] or said.splitlines()[-20:]
    text = "; ".join(f"{name}: {verdict}" for name, verdict in found.items())
    if any(not v.startswith(("clean", "refused")) for v in found.values()):
        raise AssertionError(text)
    return text


def _verdict(status: int | None, said: str, seconds: float) -> str:
    if "Device not supported" in said:
        return "refused: this machine does not support the tool"
    passed = len(re.findall(r"^PASSED", said, re.M))
    if status is None:
        return f"stopped after {seconds:.0f} s, {passed} operations were clean until then" if passed else "stopped"
    summary = re.findall(r"(?:ERROR|RACECHECK) SUMMARY: (.*)", said)
    if status == _RETURNED and passed and (not summary or re.match(r"0 (errors|hazards)", summary[-1])):
        return f"clean, {passed} operations"
    last = (said.strip().splitlines() or ["it said nothing"])[-1]
    return summary[-1] if summary and status == _SANITIZER_STATUS else f"ended with status {status}: {last[:200]}"
