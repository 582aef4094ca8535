"""The GPU suite where the GPU, a kernel or a process goes wrong: what is lost, what stays, and how it ends."""

import json
import os
import sys
import textwrap
from collections import Counter

import pytest
from helpers import emulated

from benchmarks import gpu, gpu_checks
from benchmarks.suite import ROOT, Incomplete, Suite, counted
from refdiff.benchmark import Budget, PeerProcess, harness

PEER = """
import ctypes, os, signal, sys, time
import numpy as np
from emulator import Emulator
from benchmarks.peers.refdiff_cuda import CudaPeer
from benchmarks.peers import refdiff_cuda
from refdiff.benchmark import serve
from refdiff.engines.cuda.runtime.device import DeviceLost, is_lost

how, bad = sys.argv[1:]

class Faulty(Emulator):
    lost = False

    def __getattribute__(self, name):
        if name in ("reserve", "read", "write", "synchronise") and object.__getattribute__(self, "lost"):
            raise DeviceLost("waiting for the GPU failed: cudaErrorIllegalAddress")
        return object.__getattribute__(self, name)

    def launch(self, kernel, grid, block, arguments, shared=0):
        super().launch(kernel, grid, block, arguments, shared)
        if kernel.name != bad or self.recording is not None:
            return
        if how == "signal":
            os.kill(os.getpid(), signal.SIGSEGV)
        if how == "lost":
            self.lost = True  # as on a GPU, which says so later, and of everything from then on
        if how == "hang":
            time.sleep(600)
        if how == "wrong":
            (ctypes.c_float * 3).from_address(arguments[2].value)[0] += 1.0

refdiff_cuda.open_device = lambda kind: Faulty()
serve(CudaPeer("faulty"), fatal=is_lost)
"""


@pytest.fixture
def faulty(tmp_path, monkeypatch):
    """faulty(how) -> exit status and result of the suite's operations: silu backward, whose kernel does it, then silu of
    several sizes. The reference is the judge."""
    script = tmp_path / "peer.py"
    script.write_text(PEER)

    def run(how, bad="silu_backward", seconds=60, others=3):
        paths = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]), "OPENBLAS_NUM_THREADS": "1"}

        class Plan(gpu.Plan):
            def __init__(self, dry, asked=()):
                super().__init__(dry, asked)
                forward, backward = self.operations[:2]
                sizes = [forward | {"inputs": [[n + 2, 32]]} for n in range(others)]
                self.operations, self.rounds, self.variants = [backward, *sizes], 1, ["as the judge"]

            def refdiff(self):
                return PeerProcess([sys.executable, str(script), how, bad], paths)

            def pytorch(self, variant):
                return PeerProcess([sys.executable, "-m", "refdiff.benchmark.host", "reference"], paths)

        def ceilings(suite, budget, plan):
            suite.more.update({"copy_bytes_per_second": 1e9, "float32_per_second": 1e9})
            return "as given"

        monkeypatch.setattr(gpu, "Plan", Plan)
        monkeypatch.setitem(gpu.STEPS, "ceilings", ("ceilings", ceilings))
        out = tmp_path / "gpu.json"
        status = gpu.main(["--dry", "--out", str(out), "--parts", "operations", "--seconds", str(seconds)])
        return status, json.loads(out.read_text()), out.with_suffix(".md").read_text()

    return run


@emulated
@pytest.mark.parametrize(("how", "words"), [
    ("signal", "ended with status -11"), ("lost", "DeviceLost: waiting for the GPU failed"), ("hang", "took longer than"),
])  # fmt: skip
def test_one_case_is_lost_and_the_others_are_measured(faulty, monkeypatch, how, words):
    monkeypatch.setattr(gpu, "MOST", 0.0)
    monkeypatch.setattr(harness, "PATIENCE", 2.0)
    others = 9 if how == "hang" else 3
    status, found, table = faulty(how, seconds=20 if how == "hang" else 60, others=others)
    part = found["parts"]["operations"]
    assert (status, part["ok"]) == (1, False)
    assert f"Incomplete: {others} of {others + 1} cases were measured; silu backward 2x32" in part["text"]
    first, *rest = [r["peers"]["refdiff"] for r in found["records"]]
    assert words in first["error"]
    assert "seconds" not in first
    assert all(entry["seconds"] > 0 and "error" not in entry for entry in rest)
    assert found["records"][0]["peers"]["torch as the judge"]["seconds"] > 0
    assert all(r["floor"] > 0 for r in found["records"][1:])
    assert words in table


@emulated
def test_every_case_crashes(faulty):
    """Nothing is measured, and that is said: the peers' times stay."""
    status, found, _ = faulty("lost", bad="silu")
    assert status == 1
    assert "0 of 4 cases were measured" in found["parts"]["operations"]["text"]
    assert len(found["records"]) == 4
    assert all(r["peers"]["torch as the judge"]["seconds"] > 0 for r in found["records"])


@emulated
def test_wrong_numbers_are_timed_and_marked(faulty):
    status, found, table = faulty("wrong")
    entry = found["records"][0]["peers"]["refdiff"]
    assert status == 1
    assert entry["seconds"] > 0
    assert "differs from torch as the judge by" in entry["wrong"]
    assert "4 of 4 cases were measured; 1 of them wrong" in found["parts"]["operations"]["text"]
    assert all("wrong" not in r["peers"]["refdiff"] for r in found["records"][1:])
    assert "µs !" in table or "ms !" in table


def record(**entries):
    case = {"kind": "train", "model": "digits", "batch": 1, "dtype": "float32"}
    return {"case": case, "subject": "ours", "peers": entries, "ratios": {}}


def test_what_counts_as_measured():
    good, bad = {"seconds": 1.0}, {"seconds": 1.0, "error": "ended"}  # it failed after some rounds
    assert counted([record(ours=good, torch=good)] * 2, 2) == "2 of 2 cases were measured"
    assert counted([record(ours=good, torch=good), record(ours=good, torch=bad)], 2).endswith("measured, torch in 1")
    with pytest.raises(Incomplete, match=r"1 of 2 cases were measured; digits train, batch 1, float32: ended"):
        counted([record(ours=good), record(ours=bad)], 2)
    with pytest.raises(Incomplete, match=r"1 of 2 cases were measured; no time was left for the others"):
        counted([record(ours=good)], 2)
    with pytest.raises(Incomplete, match=r"1 of them wrong; .* y: not finite"):
        counted([record(ours=good | {"wrong": "y: not finite"})], 1)


@pytest.fixture
def tests(tmp_path, monkeypatch):
    """tests(name, text) writes a file of tests for the GPU's checks."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # which takes most of the time of so small a file

    def write(name, text):
        start = """
            import os, signal, time
            import pytest
            from refdiff.engines.cuda.runtime.device import DeviceError, DeviceLost
            lost = []
            def gpu():
                if lost:
                    raise DeviceLost("gone")
        """
        path = tmp_path / name
        path.write_text(textwrap.dedent(start) + textwrap.dedent(text))
        return path

    return write


def checked(tmp_path, patience, *files):
    plan, suite = gpu.Plan(dry=True), Suite("try", tmp_path / "a.json", 60)
    plan.tests, plan.chosen, plan.patience = list(files), "", patience
    suite.part("checks", "checks", 1, lambda budget: gpu_checks.checks(suite, budget, plan))
    return suite.parts["checks"]


def test_a_lost_gpu_costs_one_test(tmp_path, tests):
    """Without a new process all that follows in the file would fail as well."""
    one = tests("test_one.py", """
        def test_one():
            gpu()
        def test_two():
            lost.append(1)
            try:
                gpu()
            except DeviceLost as error:
                raise DeviceError("a launch failed") from error
        @pytest.mark.parametrize("name", ["a b", "c]d", "\\\\"])
        def test_two_and_more(name):
            gpu()
        def test_skipped():
            pytest.skip("not here")
        def test_wrong():
            assert gpu() == 2
    """)  # fmt: skip
    part = checked(tmp_path, 30, one)
    assert not part["ok"]
    assert part["found"]["counts"] == {"PASSED": 4, "FAILED": 2, "SKIPPED": 1}
    assert part["found"]["not run"] == 0
    assert [text.partition(": ")[0].rpartition("::")[2] for text in part["found"]["errors"]] == [
        "test_two",
        "test_wrong",
    ]
    assert "4 passed, 2 failed, 1 skipped; " in part["text"]
    assert "DeviceError: a launch failed" in part["text"]


def test_a_file_in_which_all_is_lost_is_given_up(tmp_path, tests, monkeypatch):
    monkeypatch.setattr(gpu_checks, "FAILURES", 1)
    part = checked(tmp_path, 30, tests("test_one.py", """
        @pytest.mark.parametrize("i", range(5))
        def test_one(i):
            raise DeviceLost("gone")
    """))  # fmt: skip
    assert part["found"]["counts"] == {"FAILED": 1}
    assert part["found"]["not run"] == 4
    assert "0 passed, 1 failed, 0 skipped, 4 not run" in part["text"]


def test_a_process_that_dies_or_hangs_costs_one_test(tmp_path, tests):
    one = tests("test_one.py", """
        def test_dies():
            os.kill(os.getpid(), signal.SIGSEGV)
        def test_hangs():
            time.sleep(600)
        def test_last():
            gpu()
    """)  # fmt: skip
    two = tests("test_two.py", "import nothing_of_that_name")
    part = checked(tmp_path, 1.0, one, two)
    assert part["found"]["counts"] == {"CRASHED": 2, "PASSED": 1}
    errors = sorted(part["found"]["errors"])
    assert "test_dies: died of SIGSEGV" in errors[0]
    assert "test_hangs: took longer than 1 s" in errors[1]
    assert "test_two.py: its tests not run: ended with status 2" in errors[2]
    assert "1 passed, 2 failed, 0 skipped, 1 not run" in part["text"]


def test_checks_that_did_not_all_run(tmp_path):
    suite = Suite("try", tmp_path / "a.json", 60)
    for counts, missing, words in (({"SKIPPED": 3}, 0, []), ({"PASSED": 3}, 1, []), ({"PASSED": 3}, 0, ["bad"])):
        suite.part("checks", "checks", 1, lambda b: gpu_checks.summarise(suite, Counter(counts), missing, words))  # noqa: B023
        assert not suite.parts["checks"]["ok"]
    suite.part("checks", "checks", 1, lambda b: gpu_checks.summarise(suite, Counter({"PASSED": 3}), 0, []))
    assert suite.parts["checks"]["text"] == "3 passed, 0 failed, 0 skipped"


TOOL = """#!/bin/sh
# A tool that runs odd_shapes: loses the GPU in the second check, dies in the fourth, and is clean from the fifth on.
for last; do :; done
case "$last" in
  0) echo "PASSED a"; echo "FAILED b: DeviceLost: gone"; exit LOST;;
  2) echo "PASSED c"; kill -SEGV $$;;
  4) echo "PASSED e"; echo "========= ERROR SUMMARY: 0 errors";;
  *) echo "not asked for"; exit 1;;
esac
"""


@pytest.mark.parametrize("status", [70, 86])
def test_a_tool_goes_on_with_the_next_check_in_a_new_process(tmp_path, status):
    tool = tmp_path / "tool"
    tool.write_text(TOOL.replace("LOST", str(status)))
    tool.chmod(0o755)
    pieces = gpu_checks.in_pieces([str(tool)], Budget(20), gpu.Plan(dry=True))
    assert [piece.status for piece in pieces] == [status, -11, 0]
    assert "3 operations passed" in gpu_checks.tool_verdict(pieces)
    assert gpu_checks.tool_verdict(pieces[2:]) == "clean, 1 operations"


def test_a_tool_that_never_says_anything_is_given_up(tmp_path):
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\nkill -SEGV $$\n")
    tool.chmod(0o755)
    assert len(gpu_checks.in_pieces([str(tool)], Budget(20), gpu.Plan(dry=True))) == 2


@emulated
def test_odd_shapes_ends_where_the_gpu_is_lost(monkeypatch, capsys):
    from benchmarks import odd_shapes
    from refdiff.engines.cuda.runtime.device import DeviceLost

    def check(device, dtype, one):
        if one[0] == "gelu":
            raise DeviceLost("gone")

    monkeypatch.setattr(odd_shapes, "check", check)
    monkeypatch.setattr(odd_shapes, "steps", lambda device, dtype: None)
    assert odd_shapes.main(["emulator"]) == 70
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in said] == [["PASSED", "silu"], ["FAILED", "gelu"]]
    assert odd_shapes.main(["emulator", "--from", "2"]) == 70
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("PASSED softmax (5, 33)".replace("(5, 33)", "[(5, 33)]"))
    assert said[-1].startswith("FAILED gelu [(3, 37)] bfloat16")
    assert odd_shapes.main(["emulator", "--from", "99"]) == 0
