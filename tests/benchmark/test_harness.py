"""Peers that fail, differ, lie or hang; ratios; budgets."""

import shutil
import time

import numpy as np
import pytest

from refdiff.benchmark import Budget, PeerError, PeerProcess, harness, measure
from refdiff.benchmark.device import Stopwatch, captured
from refdiff.benchmark.harness import output_error
from refdiff.benchmark.protocol import MOST, sketch
from refdiff.benchmark.statistics import paired, summary

CASE = {"kind": "operation", "operation": "silu"}


def test_one_that_fails_is_recorded_and_the_others_go_on(fake, monkeypatch):
    monkeypatch.setattr(harness, "PATIENCE", 1.0)
    failing = ("slow", "crash", "raises", "nan", "differs", "longer", "nan times", "tires")
    peers = {name: fake(name) for name in ("judge", "twice", "ours", *failing)}
    for name in peers:
        peers[name].about()
    budget = Budget(30)
    record = measure(CASE, peers, subject="ours", tolerance=1e-4, budget=budget.part(0.02), rounds=3, repeats=2)
    errors = {name: entry.get("error", "") for name, entry in record["peers"].items()}
    assert not errors["judge"] + errors["twice"] + errors["ours"]
    assert "took longer" in errors["slow"]
    assert errors["crash"] == "ended with status 3: bus error in the middle of it"
    assert errors["raises"] == "ValueError: no such operation"
    assert "expected 4 numbers, got 5" in errors["longer"]
    assert "positive" in errors["nan times"]
    assert record["ratios"].keys() == {"judge", "twice", "nan", "differs", "tires"}
    for name, words in (
        ("nan", "y: not finite"),
        ("differs", "differs from judge by 1.0e-02 in norm, more than 1e-04"),
    ):
        entry = record["peers"][name]  # timed, and marked
        assert (entry["wrong"], entry["seconds"], "error" in entry) == (words, pytest.approx(0.001), False)
    assert all("wrong" not in record["peers"][name] for name in ("judge", "twice", "ours"))
    tired = record["peers"]["tires"]  # what it did before it failed stays
    assert (tired["n"], tired["error"]) == (2, "RuntimeError: not any more")
    assert record["ratios"]["twice"]["median"] == pytest.approx(0.5)
    assert record["peers"]["ours"]["seconds"] == pytest.approx(0.001)
    assert record["peers"]["ours"]["bytes"] == 32


def test_who_is_not_finite_does_not_judge(fake):
    record = measure(CASE, {"nan": fake("nan"), "ours": fake("ours")}, subject="ours", tolerance=1e-4, budget=Budget(20),
                     rounds=1)  # fmt: skip
    assert "not finite" in record["peers"]["nan"]["wrong"]
    assert "difference" not in record["peers"]["ours"]
    assert record["peers"]["ours"]["seconds"] > 0


def test_a_peer_that_ended_starts_again(fake):
    peer = fake("ours")
    first = peer.about()["pid"]
    with pytest.raises(PeerError, match="ValueError: do: expected"):
        peer.call({"do": "dance"}, 10)
    assert peer.about()["pid"] != first
    assert peer.memory() > 1 << 20


def test_a_program_that_is_not_there_or_says_something_else():
    with PeerProcess(["/no/such/program"]) as peer, pytest.raises(PeerError, match="does not start"):
        peer.about()
    with (
        PeerProcess(["sh", "-c", "echo hello; cat >/dev/null"]) as peer,
        pytest.raises(PeerError, match="expected JSON, it said b'hello'"),
    ):
        peer.about()


def test_ratios_are_paired():
    """A machine that slows down for both does not change the ratio, though it changes the medians."""
    drift = np.array([1, 1, 1, 5, 9, 30.0])
    ours, theirs = 2 * drift, 4 * drift
    theirs[5] = 1.0
    found = paired([[v] for v in ours], [[v] for v in theirs])
    assert found["median"] == pytest.approx(0.5)
    assert found["n"] == 6
    assert summary([3, 1, 2])["median"] == 2
    assert summary([1, 2, 3, 4, 5])["quartiles"] == [2, 4]


@pytest.mark.parametrize(
    ("seconds", "copies", "ahead"), [(0.004, 1, 7), (0.02, 1, 1), (0.05, 1, 0), (1e-6, 1, 100), (4e-4, 10, 7)]
)
def test_short_runs_are_warmed_up(monkeypatch, seconds, copies, ahead):
    """After the first turn, some runs ahead of those that count, whose times are told apart here."""
    monkeypatch.setattr(harness, "SETTLE", 0)
    asked = []

    class Peer:
        def time(self, runs, patience):
            asked.append(runs)
            return [seconds] if runs == 1 else [99.0] * (runs - 3) + [seconds] * 3

    times = harness.in_turns({"ours": Peer()}, {"ours": {}}, Budget(10), rounds=4, repeats=3, copies=copies)
    assert asked == [1] + [ahead + 3] * 4
    assert times == {"ours": [[seconds] * 3] * 4}


@pytest.mark.parametrize("values", [[], [1, float("nan")], [0.0], [-1.0], [float("inf")]])
def test_times_that_are_none(values):
    with pytest.raises(ValueError, match="positive finite"):
        summary(values)


def test_a_budget_and_its_parts():
    budget = Budget(0.2)
    part = budget.part(0.5).part(0.5)
    assert 0 < part.left <= 0.05
    assert part.left < part.patience <= 0.2
    time.sleep(0.25)
    assert budget.left == part.left == part.patience == 0
    assert Budget(1.0).patience <= 1.0


def test_no_time_left(fake):
    record = measure(CASE, {"ours": fake("ours")}, subject="ours", tolerance=1, budget=Budget(0))
    assert record["peers"]["ours"]["error"] == "no time was left"


def test_what_is_compared():
    y = np.random.default_rng(0).standard_normal((3 * MOST, 2))
    kept = sketch(y)
    assert kept[0] == y.size
    assert len(kept) <= MOST + 2
    assert output_error({"y": kept}, {"y": kept}) == (0.0, "")
    moved = y.copy()
    moved[:, 1] += 1  # an even step would not see the second column
    assert output_error({"y": sketch(moved)}, {"y": kept})[0] > 0.1
    assert "expected outputs a, got b" in output_error({"b": kept}, {"a": kept})[1]
    assert "not finite" in output_error({"a": sketch(np.array([np.inf]))}, {"a": sketch(np.array([1.0]))})[1]


class FakeGPU:
    """A CupyDevice as far as the stopwatch knows it: notes what is queued; an event tells how much was queued before it."""

    name = "fake"

    def __init__(self):
        self.queued, self.reserved, self.waited, fake = [], [], 0, self

        class Event:
            def record(self, stream):
                assert stream is fake.stream
                fake.queued.append("event")
                self.at = len(fake.queued)

        self.stream = object()
        cuda = type("cuda", (), {"Event": Event, "get_elapsed_time": lambda a, b: float(b.at - a.at)})
        self.cupy = type("cupy", (), {"cuda": cuda})

    def reserve(self, nbytes):
        self.reserved.append(nbytes)
        return 4096 * len(self.reserved)

    def launch(self, kernel, grid, block, arguments, shared=0):
        """The flush only reads what is large."""
        assert (kernel.source, kernel.name) == ("optimiser.cu", "sum_squares")
        read, written, n = (a.value for a in arguments)
        assert (read, written, 4 * n) == (4096, 8192, self.reserved[0])
        assert self.reserved[0] > 100 << 20
        assert self.reserved[1] == 4 * grid[0] < 1 << 16
        self.queued.append("flush")

    def synchronise(self):
        self.waited += 1


def test_time_on_a_gpu_is_between_two_events_after_a_flush():
    device = FakeGPU()
    watch = Stopwatch(device)
    assert watch.seconds(lambda: device.queued.append("run"), 3) == [2e-3] * 3
    assert device.queued == ["flush", "event", "run", "event"] * 3
    assert device.waited == 1
    assert watch.seconds(lambda: device.queued.append("run"), 1, copies=10) == [pytest.approx(2e-4)]


@pytest.mark.skipif(shutil.which("g++") is None, reason="the emulator needs g++")
def test_copies_in_one_graph_have_memory_of_their_own():
    """Neither what they read nor what they write is in a cache because another copy touched it."""
    from emulator import Emulator

    from refdiff.engines import cuda
    from refdiff.engines.cuda.runtime.arena import Arena

    device, touched = Emulator(), []
    launch = device.launch

    def noting(kernel, grid, block, arguments, shared=0):
        if device.recording is None and watching:
            touched.append([a.value for a in arguments[:2]])
        launch(kernel, grid, block, arguments, shared)

    watching, device.launch = False, noting
    context = cuda.Context(device, Arena(device, 1 << 12))
    with cuda.use(context):
        x = [cuda.array(np.full(3000, i)) for i in range(4)]
    replay, launches = captured(context, [lambda a=a: cuda.silu(a) for a in x])
    watching = True
    replay()
    assert launches == 4
    assert [read for read, _ in touched] == [a.pointer for a in x]
    assert len({pointer for pair in touched for pointer in pair}) == 8


def test_a_peer_that_rests_is_stopped_between_its_turns(tmp_path):
    import sys
    import time

    from refdiff.benchmark.process import PeerProcess

    program = (
        "import json, sys, threading, time\n"
        "ticks = [0]\n"
        "def tick():\n"
        "    while True:\n"
        "        ticks[0] += 1\n"
        "        time.sleep(0.002)\n"
        "threading.Thread(target=tick, daemon=True).start()\n"
        "for line in sys.stdin:\n"
        "    print(json.dumps({'ok': {'ticks': ticks[0]}}), flush=True)\n"
    )
    for rests in (True, False):
        with PeerProcess([sys.executable, "-c", program], rests=rests) as peer:
            first = peer.call({"do": "about"}, 20)["ticks"]
            time.sleep(0.5)
            more = peer.call({"do": "about"}, 20)["ticks"] - first
        assert (more < 60) is rests
