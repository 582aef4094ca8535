"""A captured step: one buffer an entry of the batch, a record that comes a step late, and parameters in flat buffers."""

import numpy as np
import pytest
from emulator import COMPILER, Emulator, Late

from refdiff.engines import cuda
from refdiff.engines.cuda.runtime.captured_step import CapturedStep
from refdiff.engines.cuda.runtime.context import Context
from refdiff.engines.cuda.runtime.flat_optimiser import FlatOptimiser, OptimiserSettings

pytestmark = pytest.mark.skipif(COMPILER is None, reason="the emulator needs g++")
ENTRIES = {"x": ((2, 3), np.float32), "label": ((2,), np.int32)}
RECORD = [("scalars", "f4", 8), ("loss", "f4"), ("bad", "i4")]
PLACES = {"table": (0, (4, 3))}
SIZE = 64  # of which the last 52 numbers belong to nobody


class Rows:
    """Learns rows of a table, mean (table[label] - x)^2, at a constant rate."""

    def __init__(self, device, done=0, dtype="float32"):
        self.context = Context(device)
        self.captured = CapturedStep(self.context, ENTRIES, RECORD, done)
        values = {name: np.zeros(SIZE, np.float32) for name in ("p", "ema", "m", "v")}
        settings = OptimiserSettings(100, 0.1, decay="constant")
        self.optimiser = FlatOptimiser(
            self.context,
            PLACES,
            SIZE,
            values,
            {"table": dtype},
            settings,
            self.captured.field("scalars"),
            self.captured.field("bad"),
            extras=[1],
        )

    def body(self):
        inputs, table = self.captured.inputs, self.optimiser.parameters["table"]
        y, saved = cuda.embedding(inputs["label"], table)
        # One sample of all numbers, whose loss is the mean of their squares.
        rows, goal = (cuda.reshape(a, (1, a.size))[0] for a in (y, cuda.cast(inputs["x"], y.dtype)))
        loss, of_loss = cuda.squared_error(rows, goal)
        dy = cuda.reshape(cuda.squared_error_backward(1.0, of_loss), y.shape)[0]
        g = cuda.embedding_backward(dy, saved)
        self.optimiser.collect({"table": g["weight"]}, [(loss, self.captured.field("loss"))])
        self.optimiser.prepare(self.captured.number, self.captured.field("loss"))
        self.optimiser.update()

    def step(self, i):
        given = batch(i)
        record = self.captured.step(self.body, given)
        for entry in given.values():
            entry[...] = 99  # the caller's again
        return record


def batch(i):
    return {"x": np.full((2, 3), i + 1, np.float32), "label": np.array([i % 4, (i + 1) % 4], np.int32)}


def test_records_come_a_step_late_and_each_once():
    rows = Rows(Late(), done=7)
    records = [rows.step(0), rows.step(1), rows.step(2)]
    assert records[0] is None
    assert [int(r["number"]) for r in records[1:]] == [8, 9]
    assert float(records[1]["loss"]) == 1, "of a table of zeros, where x is 1"
    assert rows.context.device.waits == 2
    last = rows.captured.settle()
    assert (int(last["number"]), int(last["bad"])) == (10, 0)
    assert rows.captured.settle() is None
    assert rows.step(3) is None, "the one before has been seen"
    assert int(rows.captured.settle()["number"]) == 11


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_host_that_waits_for_nothing_changes_no_bit(dtype):
    """Every entry is sent anew, from pinned memory that nobody writes before the step is over."""
    waiting, late = Rows(Emulator(), dtype=dtype), Rows(Late(), dtype=dtype)
    expected, actual = [], []
    for i in range(6):
        waiting.step(i)
        expected.append(waiting.captured.settle())
        actual.append(late.step(i))
    actual = [*actual[1:], late.captured.settle()]
    assert [a.tobytes() for a in actual] == [e.tobytes() for e in expected]
    assert len({float(e["loss"]) for e in expected}) == 6
    for name in ("p", "ema", "m", "v"):
        x, y = (cuda.host(getattr(rows.optimiser.state, name)) for rows in (waiting, late))
        assert np.array_equal(x, y)
        assert x[:12].all()
        assert not x[12:].any()


def test_only_the_first_two_steps_run_the_body():
    rows, calls = Rows(Emulator()), []

    def body():
        calls.append(rows.captured.graph)
        rows.body()

    launched = []
    for i in range(4):
        before = len(rows.context.device.launches)
        rows.captured.step(body, batch(i))
        launched.append(rows.context.device.launches[before:])
    assert calls == [None, None]
    assert launched[0][0].name == "advance"
    assert launched == [launched[0]] * 4
    assert rows.captured.graph.launches == len(launched[0])


def test_a_bad_step_writes_nothing_nor_does_any_later():
    rows = Rows(Emulator())
    rows.step(0)
    before = cuda.host(rows.optimiser.state.p)
    rows.captured.step(rows.body, {**batch(1), "x": np.full((2, 3), np.nan, np.float32)})
    bad = rows.step(2)
    assert (int(bad["number"]), int(bad["bad"])) == (2, 2)
    assert np.isnan(bad["loss"])
    later = rows.captured.settle()
    assert (int(later["number"]), int(later["bad"])) == (3, 2)
    assert np.array_equal(cuda.host(rows.optimiser.state.p), before)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"x": np.zeros((3, 3), np.float32)}, r"x: expected \(2, 3\), got \(3, 3\)"),
        ({"more": np.zeros(2)}, "expected entries .*got .*'more'"),
    ],
)
def test_another_batch_than_was_said(change, match):
    with pytest.raises(AssertionError, match=match):
        Rows(Emulator()).captured.step(lambda: None, {**batch(0), **change})


def test_gradients_that_moved_are_refused():
    rows = Rows(Emulator())
    held = []

    def body():
        rows.body()
        held.append(rows.context.empty((4, 3)))  # which outlives the step: the next finds other places

    rows.captured.step(body, batch(0))
    with pytest.raises(AssertionError, match="other addresses"):
        rows.captured.step(body, batch(1))


def test_each_parameter_needs_its_gradient():
    rows = Rows(Emulator())
    loss = rows.captured.field("loss")
    with pytest.raises(AssertionError, match="one gradient a parameter"):
        rows.optimiser.collect({}, [(loss, loss)])
    g = rows.context.empty((4, 3))
    with pytest.raises(AssertionError, match="expected 2 segments, got 3"):
        rows.optimiser.collect({"table": g}, [(loss, loss)] * 2)
