"""Captured work is the work itself, from the inputs as they are then."""

import numpy as np
import pytest
from emulator import COMPILER, Emulator

from refdiff.engines.cuda.activation import silu
from refdiff.engines.cuda.runtime.capture import Captured, memory_needed
from refdiff.engines.cuda.runtime.context import Context
from refdiff.engines.cuda.transfer import host


@pytest.mark.skipif(COMPILER is None, reason="the emulator needs g++")
def test_what_is_captured_is_the_work_itself():
    """A replay gives what the launches give, from the inputs as they are then, at the same addresses."""
    context = Context(Emulator())
    x, y = context.array(np.ones(100)), []

    def step():
        y[:] = [silu(silu(x)[0])[0]]

    step()
    address, ran = y[0].pointer, len(context.device.launches)
    y.clear()
    graph = context.capture(step)
    assert graph.launches == 2
    assert y[0].pointer == address
    assert len(context.device.launches) == ran, "a capture runs nothing"
    for value in (1.0, -2.0, 0.5):
        context.device.write(x.pointer, np.full(100, value, np.float32))
        graph.replay()
        np.testing.assert_array_equal(host(y[0]), host(silu(silu(context.array(np.full(100, value)))[0])[0]))


def test_copies_and_waiting_are_refused_during_a_capture(context):
    x = context.array(np.ones(3))
    for step, why in [
        (lambda: host(x), "copy to the host"),
        (lambda: context.device.write(x.pointer, np.ones(3, np.float32)), "copy from the host"),
        (lambda: Context(context.device).empty((3,)), "cannot be reserved"),
        (context.device.synchronise, "cannot wait"),
        (context.device.begin_capture, "do not nest"),
    ]:
        with pytest.raises(AssertionError, match=why):
            context.capture(step)
    assert host(x).sum() == 3, "a capture that failed is over"


@pytest.mark.skipif(COMPILER is None, reason="the emulator needs g++")
def test_once_by_launches_then_captured_then_replayed():
    context = Context(Emulator())
    x, calls, results = context.array(np.ones(100)), [], []
    captured = Captured(context)

    def body():
        calls.append(len(context.device.launches))
        results[:] = [silu(x)[0]]

    for count, value in enumerate((1.0, -2.0, 0.5, 3.0), 1):
        context.device.write(x.pointer, np.full(100, value, np.float32))
        captured.run(body)
        assert (captured.graph is None) == (count == 1)
        assert len(context.device.launches) == count
        np.testing.assert_array_equal(host(results[0]), silu_of(value))
        if count == 1:
            results.clear()  # its place is that of the captured call's result
    assert calls == [0, 1], "once to launch, once to capture"


def silu_of(value):
    context = Context(Emulator())
    return host(silu(context.array(np.full(100, value)))[0])


def test_the_memory_of_work_is_known_before_it_runs():
    """Two arrays of 1 MiB at a time, of three."""

    def run(arena):
        context = Context(arena.device, arena)
        a = context.empty((1 << 18,))
        b = context.empty((1 << 18,))
        del a
        c = context.empty((1 << 18,))
        assert b.pointer != c.pointer

    assert memory_needed(run) == 2 << 20
