"""Rows of a table and sinusoids of time on the CUDA engine."""

import numpy as np
import pytest
from emulator.agreement import bound

from refdiff.engines import cuda, reference
from refdiff.engines.cuda.runtime.arena import Arena
from refdiff.engines.cuda.runtime.context import Context
from refdiff.engines.cuda.runtime.dry_run import DryRunDevice
from refdiff.random import Sequence
from refdiff.testing.measures import relative_error


@pytest.mark.parametrize(
    ("shape", "rows", "c"),
    [((5,), 3, 8), ((2, 3), 4, 5), ((1,), 1, 1), ((40,), 6, 136), ((), 2, 4), ((1025,), 1, 2), ((300,), 40, 1)],
)
@pytest.mark.parametrize("on_device", [False, True])
def test_embedding(context, dtype, shape, rows, c, on_device):
    rng = np.random.default_rng(c)
    index, weight = rng.integers(0, rows, shape), context.array(rng.standard_normal((rows, c)), dtype)
    given = context.array(index, "int32") if on_device else index
    y, saved = cuda.embedding(given, weight=weight)
    expected, expected_saved = reference.embedding(index, cuda.host(weight).astype(np.float64))
    assert np.array_equal(cuda.host(y), expected)
    dy = context.array(rng.standard_normal(y.shape), dtype)
    g, again = (cuda.embedding_backward(dy, saved)["weight"] for _ in range(2))
    assert g.dtype == "float32"
    assert cuda.host(g).tobytes() == cuda.host(again).tobytes()
    expected = reference.embedding_backward(cuda.host(dy).astype(np.float64), expected_saved)["weight"]
    assert np.linalg.norm(cuda.host(g) - expected) <= bound("float32", max(index.size, 40)) * np.linalg.norm(expected)


@pytest.mark.parametrize("n", [1, 64, 1000])
@pytest.mark.parametrize("c", [1, 2, 3, 200])
def test_a_table_of_one_row_spreads_its_numbers_over_a_batch(context, dtype, n, c):
    """Index 0 everywhere, drawn on the device; the gradient is the sum over the batch, the same in every order of blocks."""
    row, zero = context.array(np.arange(1.0, c + 1)[None] / 7), cuda.integers(Sequence(0, 1 << 31, 0), n, 0, 0)
    y, saved = cuda.embedding(zero, row)
    assert np.array_equal(cuda.host(y), np.repeat(cuda.host(row), n, axis=0))
    dy = context.array(np.random.default_rng(n).standard_normal((n, c)), dtype)
    g = cuda.embedding_backward(dy, saved)["weight"]
    assert (g.shape, g.dtype) == ((1, c), "float32")
    each = cuda.host(dy).astype(np.float64)
    error = np.abs(cuda.host(g)[0] - each.sum(axis=0))
    assert np.all(error <= bound("float32", n) * np.linalg.norm(each, axis=0) + 1e-30)
    part, _ = cuda.split(context.array(np.repeat(cuda.host(dy), 2, axis=1), dtype), 2)
    again = cuda.embedding_backward(part[0], (zero, (1, c)))["weight"]
    assert (
        cuda.host(again).tobytes() == cuda.host(cuda.embedding_backward(cuda.dense(part[0]), saved)["weight"]).tobytes()
    )


def test_an_embedding_is_where_its_index_is(context):
    """A step that is only planned looks up rows of weights that lie on a device that does run: nothing runs there."""
    weight, dry = context.array(np.zeros((3, 4))), Context(DryRunDevice())
    before = len(context.device.launches)
    y, _ = cuda.embedding(dry.array([0, 2], "int32"), weight)
    assert y.context.device is dry.device
    assert [kernel.name for kernel, *_ in dry.device.launches] == ["embedding"]
    assert len(context.device.launches) == before


def test_embedding_refuses_what_is_no_row(context):
    weight = context.array(np.zeros((3, 4)))
    for index in ([3], [-1], [0.0]):
        with pytest.raises(AssertionError, match="expected"):
            cuda.embedding(np.array(index), weight)


@pytest.mark.parametrize("channels", [4, 5, 16, 129])
@pytest.mark.parametrize("convention", ["ddpm", "adm"])
@pytest.mark.parametrize("kind", ["int32", "float32"])
@pytest.mark.parametrize("on_device", [False, True])
def test_time_embedding(context, dtype, channels, convention, kind, on_device):
    """Integers, and times between them."""
    t = np.array([0, 1, 2, 500, 1000, 123456, 7, 8, 9]) if kind == "int32" else np.array([0.25, 1.5, 999.125, 1e-3])
    t = t.astype(kind)
    y, saved = cuda.time_embedding(context.array(t, kind) if on_device else t, channels, convention, dtype)
    expected, expected_saved = reference.time_embedding(t, channels, convention, np.float64)
    assert (y.dtype, y.shape) == (dtype, expected.shape)
    assert relative_error(cuda.host(y), expected) <= bound(dtype)
    assert np.abs(cuda.host(y) - expected).max() <= (2.0**-8 if dtype == "bfloat16" else 1e-7)
    dy = context.array(np.random.default_rng(0).standard_normal(y.shape), dtype)
    dt = cuda.time_embedding_backward(dy, saved)
    expected = reference.time_embedding_backward(cuda.host(dy).astype(np.float64), expected_saved)
    assert (dt.dtype, dt.shape) == ("float32", t.shape)
    assert relative_error(cuda.host(dt).astype(np.float64), expected) <= bound("float32", channels)


def test_labels_and_times_of_a_captured_step_are_read_when_it_runs(context, dtype):
    """An embedding and its gradient, and sinusoids of a float t, whose index and t change between replays."""
    arena, rng = Context(context.device, Arena(context.device, 1 << 16)), np.random.default_rng(0)
    weight, dy = (arena.array(rng.standard_normal(shape), dtype) for shape in ((5, 8), (6, 8)))
    index, t, kept = arena.array(np.zeros(6), "int32"), arena.array(np.ones(6)), []

    def run():
        y, saved = cuda.embedding(index, weight)
        e, saved_time = cuda.time_embedding(t, 8, dtype=dtype)
        kept[:] = y, cuda.embedding_backward(dy, saved)["weight"], e, cuda.time_embedding_backward(dy, saved_time)

    run()
    graph = arena.capture(run)
    for seed in (1, 2):
        labels, times = np.random.default_rng(seed).integers(0, 5, 6), np.random.default_rng(seed).uniform(0, 99, 6)
        context.device.write(index.pointer, labels.astype(np.int32))
        context.device.write(t.pointer, times.astype(np.float32))
        graph.replay()
        y, dweight, e, dt = map(cuda.host, kept)
        assert np.array_equal(y, cuda.host(weight)[labels])
        _, saved = reference.embedding(labels, cuda.host(weight).astype(np.float64))
        expected = reference.embedding_backward(cuda.host(dy).astype(np.float64), saved)["weight"]
        assert relative_error(dweight, expected) <= bound("float32", 6)
        expected, saved = reference.time_embedding(times.astype(np.float32), 8, dtype=np.float64)
        assert relative_error(e, expected) <= bound(dtype)
        assert relative_error(dt, reference.time_embedding_backward(cuda.host(dy).astype(np.float64), saved)) <= 1e-6
