"""The suites as programs: parts that fail, the budget, what is written, and the GPU's orchestration on the emulator."""

import json
import os
import re
import shutil
import subprocess
import sys
import time

import pytest

from benchmarks import cpu, gpu, gpu_checks
from benchmarks.suite import ROOT, Suite
from refdiff.benchmark import Budget

emulated = pytest.mark.skipif(shutil.which("g++") is None, reason="the emulator needs g++")
TOOL = """#!/bin/sh
# compute-sanitizer, as far as the suite knows it: options, then a command.
tool=$2; while [ "${1#-}" != "$1" ] || [ -n "$skip" ]; do case "$1" in --*) skip=1;; *) skip=;; esac; shift; done
case "$tool" in
  memcheck) "$@" && echo "========= ERROR SUMMARY: 0 errors";;
  racecheck) echo "PASSED silu"; echo "========= RACECHECK SUMMARY: 1 hazard displayed"; exit 86;;
  initcheck) echo "========= Error: Device not supported"; exit 1;;
  *) echo "PASSED silu"; sleep 60;;
esac
"""


def test_a_part_that_fails_and_a_result_at_every_moment(tmp_path, capsys):
    out = tmp_path / "new" / "a.json"
    suite = Suite("try", out, 5)
    assert json.loads(out.read_text())["parts"] == {}
    shares = []

    def failing(budget):
        shares.append(budget.seconds)
        assert json.loads(out.read_text())["parts"]["one"]["text"] == "did not end"
        raise KeyError("gone")

    suite.part("one", "the first", 0.5, failing)
    suite.part("two", "the second", 1, lambda budget: shares.append(budget.seconds) or "fine")
    assert suite.finish() == 1
    found = json.loads(out.read_text())
    assert shares == [pytest.approx(2.5, abs=0.3), pytest.approx(5, abs=1)]
    assert (found["parts"]["one"]["ok"], found["parts"]["two"]["text"]) == (False, "fine")
    assert found["failures"] == ["the first: KeyError: 'gone'"]
    assert found["versions"]["commit"]
    assert capsys.readouterr().out.strip().endswith("a.json and a.md are written.")
    assert "- the second: fine" in out.with_suffix(".md").read_text()


def test_a_program_that_hangs_is_ended_with_its_children(tmp_path):
    began = time.monotonic()
    status, said = gpu_checks.run(["sh", "-c", "echo begun; sleep 60 & wait"], 0.5)
    assert (status, said) == (None, "begun\n")
    assert time.monotonic() - began < 10


@emulated
def test_the_gpu_suite_dry(tmp_path, monkeypatch, capsys):
    """Without PyTorch or with it; a compute-sanitizer that is clean, finds something, is refused, and hangs."""
    tool = tmp_path / "compute-sanitizer"
    tool.write_text(TOOL)
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(gpu_checks, "TOOLS", ("memcheck", "racecheck", "initcheck"))
    out = tmp_path / "gpu.json"
    status = gpu.main(["--dry", "--out", str(out), "--seconds", "120", "--parts", "ceilings,kernels,sanitizer"])
    found = json.loads(out.read_text())
    assert status == 1  # the race
    assert "nothing here was measured on a GPU" in found["suite"]
    assert found["sanitizer"]["memcheck"] == "clean, 2 operations"
    assert "1 hazard" in found["sanitizer"]["racecheck"]
    assert found["sanitizer"]["initcheck"].startswith("refused")
    assert found["ceilings"]["copy_bytes_per_second"] > 0
    ours = [r["peers"]["refdiff"] for r in found["records"]]
    assert len(ours) == 2
    assert all(entry["seconds"] > 0 and entry["bytes"] > 0 and entry["launches"] == 1 for entry in ours)
    assert all(r["floor"] > 0 for r in found["records"])
    shown = capsys.readouterr().out
    assert out.with_suffix(".md").read_text() in shown
    assert "compute-sanitizer: failed" in shown


def test_a_tool_that_hangs_was_clean_until_then(tmp_path, monkeypatch):
    tool = tmp_path / "compute-sanitizer"
    tool.write_text(TOOL)
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(gpu_checks, "TOOLS", ("synccheck",))
    suite = Suite("try", tmp_path / "a.json", 10)
    with pytest.raises(AssertionError, match="stopped after 1 s, 1 operations were clean until then"):
        gpu_checks.sanitizer(suite, Budget(1), gpu.Plan(dry=True))


def test_unknown_parts(capsys, tmp_path):
    with pytest.raises(SystemExit):
        gpu.main(["--parts", "kernel", "--out", str(tmp_path / "a.json")])
    assert "expected some of ceilings, checks" in capsys.readouterr().err
    assert not (tmp_path / "a.json").exists()


@pytest.mark.slow
@emulated
def test_the_whole_gpu_suite_dry(tmp_path):
    out = tmp_path / "gpu.json"
    gpu.main(["--dry", "--out", str(out), "--seconds", "400"])
    found = json.loads(out.read_text())
    assert all(part["ok"] for part in found["parts"].values()), found["parts"]
    assert found["checks"]["counts"]["PASSED"] > 0
    assert found["agreement"]["same_bits"]
    kinds = {r["case"]["kind"]: r["peers"]["refdiff"] for r in found["records"]}
    assert kinds["train"]["seconds"] > 0
    assert kinds["train"]["launches"] > 100


def test_a_polite_kill_leaves_no_peer_behind(tmp_path):
    program = """
import os, signal, sys, time
from refdiff.benchmark import PeerProcess
signal.signal(signal.SIGTERM, signal.default_int_handler)
peer = PeerProcess([sys.executable, "-m", "refdiff.benchmark.host", "reference"], rests=True)
try:
    peer.about()
    print(peer._process.pid, flush=True)
    time.sleep(60)
finally:
    peer.close()
"""
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        peer = int(process.stdout.readline())
        os.kill(peer, 0)
        process.terminate()
        assert process.wait(20) != 0
    with pytest.raises(ProcessLookupError):
        os.kill(peer, 0)


@pytest.mark.slow
def test_the_cpu_suite_ends_in_time(tmp_path):
    began = time.monotonic()
    cpu.main(["--quick", "--seconds", "8", "--out", str(tmp_path / "cpu.json")])
    assert time.monotonic() - began < 40
    found = json.loads((tmp_path / "cpu.json").read_text())
    assert found["parts"].keys() == {"networks", "memory", "operations", "growth"}
    assert re.search(r"\*\*.*\*\*", (tmp_path / "cpu.md").read_text())
