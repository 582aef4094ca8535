"""The suites as programs: parts that fail, the budget, what is written, and the GPU's orchestration on the emulator."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import time

import pytest
from helpers import emulated

from benchmarks import cpu, gpu, gpu_checks
from benchmarks.suite import ROOT, Incomplete, Suite
from refdiff.benchmark import Budget, PeerProcess

NO_PYTHON = "/no/such/python does not start: [Errno 2] No such file or directory: '/no/such/python'"
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


def test_a_program_that_hangs_is_ended_with_its_children():
    began = time.monotonic()
    ended = gpu_checks.run(["sh", "-c", "echo begun; sleep 60 & wait"], 0.5)
    assert ended == (None, "begun\n", "stopped after 0 s")
    assert (
        gpu_checks.run(["sh", "-c", "echo begun; sleep 60 & wait"], 60, lambda: "it says nothing").last
        == "it says nothing"
    )
    assert time.monotonic() - began < 10
    assert gpu_checks.run(["sh", "-c", "echo bad; exit 3"], 60).last == "ended with status 3: bad"
    assert gpu_checks.run(["sh", "-c", "kill -BUS $$"], 60).last == "died of SIGBUS: it said nothing"


@emulated
def test_the_gpu_suite_dry(tmp_path, monkeypatch, capsys):
    """Without PyTorch; a compute-sanitizer that is clean, finds something, and is refused."""
    monkeypatch.setattr(gpu.Plan, "pytorch", lambda plan, variant: PeerProcess(["/no/such/python"]))
    tool = tmp_path / "compute-sanitizer"
    tool.write_text(TOOL)
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(gpu_checks, "TOOLS", ("memcheck", "racecheck", "initcheck"))
    out = tmp_path / "gpu.json"
    assert gpu.main(["--dry", "--out", str(out), "--seconds", "120", "--parts", "operations"]) == 0
    status = gpu.main(["--dry", "--out", str(out), "--seconds", "120", "--parts", "sanitizers"])
    found = json.loads(out.read_text())
    assert status == 1  # the race
    assert "nothing here was measured on a GPU" in found["suite"]
    assert list(found["parts"]) == ["ceilings", "operations", "sanitizers"]
    said = found["parts"]["sanitizers"]["found"]
    assert said["memcheck"] == "clean, 2 operations"
    assert "1 hazard" in said["racecheck"]
    assert said["initcheck"].startswith("refused")
    assert found["parts"]["ceilings"]["found"]["copy_bytes_per_second"] > 0  # which operations need
    for part in found["parts"].values():
        assert part["commit"] == part["versions"]["commit"]
        assert part["machine"]["cores"] == part["machine_after"]["cores"] > 0
    ours = [r["peers"]["refdiff"] for r in found["records"]]
    assert len(ours) == 2
    assert all(entry["seconds"] > 0 and entry["bytes"] > 0 and entry["launches"] == 1 for entry in ours)
    assert all(r["floor"] > 0 for r in found["records"])
    assert found["parts"]["operations"]["failures"] == [f"torch eager: {NO_PYTHON}"]
    assert found["parts"]["ceilings"]["found"]["through"] == "NumPy"
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
    suite.part("sanitizers", "", 1, lambda budget: "it goes on below")
    with pytest.raises(Incomplete, match="stopped after 1 s, 1 operations were clean until then"):
        gpu_checks.sanitizers(suite, Budget(1), gpu.Plan(dry=True))


def test_unknown_parts(capsys, tmp_path):
    with pytest.raises(SystemExit):
        gpu.main(["--parts", "kernel", "--out", str(tmp_path / "a.json")])
    assert "expected some of ceilings, checks, agreement, networks, operations, tiles, sanitizers, or none" in (
        capsys.readouterr().err
    )
    assert not (tmp_path / "a.json").exists()


def test_what_is_not_installed(tmp_path, monkeypatch):
    """It is said; and is a failure where it was asked for by name."""
    monkeypatch.setattr(gpu_checks.shutil, "which", lambda name: None)
    monkeypatch.setattr(gpu_checks.glob, "glob", lambda pattern: [])
    suite = Suite("try", tmp_path / "a.json", 10)
    assert gpu_checks.sanitizers(suite, Budget(1), gpu.Plan(dry=True)) == "not run: compute-sanitizer is not installed"
    assert gpu.main(["--dry", "--parts", "sanitizers", "--out", str(tmp_path / "b.json")]) == 1


def test_each_part_has_its_share_of_the_time(tmp_path, monkeypatch):
    """A part that is run alone has all of it; operations bring the ceilings of their run."""
    given = {}
    for key in gpu.PARTS:
        run = lambda suite, budget, plan, key=key: given.update({key: budget.seconds}) or "fine"  # noqa: E731
        monkeypatch.setitem(gpu.STEPS, key, (key, run))
    out = ["--dry", "--seconds", "390", "--out", str(tmp_path / "a.json")]
    for parts, seconds in (
        ("tiles", {"tiles": 390}),
        ("operations", {"ceilings": 30, "operations": 390}),
        ("none", {}),
    ):
        given.clear()
        assert gpu.main([*out, "--parts", parts]) == 0
        assert given == pytest.approx(seconds, abs=5)


@pytest.mark.slow
@emulated
def test_the_whole_gpu_suite_dry(tmp_path):
    out = tmp_path / "gpu.json"
    parts = [key for key in gpu.PARTS if key != "tiles" or importlib.util.find_spec("benchmarks.tiles")]
    gpu.main(["--dry", "--out", str(out), "--seconds", "400", "--parts", ",".join(parts[:-1])])
    found = json.loads(out.read_text())
    assert all(part["ok"] for part in found["parts"].values()), found["parts"]
    assert found["parts"]["checks"]["found"]["counts"]["PASSED"] > 0
    assert found["parts"]["agreement"]["found"]["same_bits"]
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


def test_a_part_of_the_cpu_suite_goes_on_with_the_results_that_are_there(tmp_path, monkeypatch):
    out = tmp_path / "cpu.json"
    for key in ("networks", "growth"):
        monkeypatch.setattr(cpu, key, lambda *_, key=key: f"{key} ran")
        assert cpu.main(["--parts", key, "--out", str(out)]) == 0
    parts = json.loads(out.read_text())["parts"]
    assert {key: part["text"] for key, part in parts.items()} == {key: f"{key} ran" for key in ("networks", "growth")}


def test_an_unknown_part_of_the_cpu_suite_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        cpu.main(["--parts", "networks,speed", "--out", str(tmp_path / "cpu.json")])
    assert (
        "--parts: expected some of networks, adm, compiled, memory, operations, growth, got speed"
        in capsys.readouterr().err
    )


@pytest.mark.slow
def test_the_cpu_suite_ends_in_time(tmp_path):
    began = time.monotonic()
    cpu.main(["--quick", "--seconds", "8", "--out", str(tmp_path / "cpu.json")])
    assert time.monotonic() - began < 40
    found = json.loads((tmp_path / "cpu.json").read_text())
    assert found["parts"].keys() == {"networks", "memory", "operations", "growth"}
    assert re.search(r"\*\*.*\*\*", (tmp_path / "cpu.md").read_text())
