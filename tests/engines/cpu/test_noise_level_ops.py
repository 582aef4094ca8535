"""What gives several results, or sums over samples, on the CPU engine: the same bits captured and in any shards."""

import numpy as np
import pytest
from engines.likelihood_cases import drawn

from refdiff.engines import cpu
from refdiff.engines.cpu.runtime.context import using
from refdiff.engines.cpu.runtime.gradient_buffer import GradientBuffer, address
from refdiff.engines.cpu.runtime.memory import empty
from refdiff.engines.cpu.runtime.shards import split, tree_sum

NAMES = "slope", "rate", "shift", "weight"


def joined(*arrays):
    """All their numbers, in order."""
    y, end = empty((sum(a.size for a in arrays),)), 0
    for a in arrays:
        y[end : end + a.size].reshape(a.shape)[...] = a
        end += a.size
    return y


def monotone(units, n, seed):
    _, _, p, options = drawn("monotone" if units else "straight line", (n,), seed, np.float32)
    return [options["t"], *(p[name] for name in NAMES)]


def monotone_twice(t, *p):
    (f, slope), saved = cpu.monotone(t, *p)
    g = cpu.monotone_backward((slope, f), saved)
    return joined(f, slope, *(g[name] for name in NAMES))


def posterior_step(log_alpha_bar, logit):
    y, saved = cpu.posterior_step(log_alpha_bar, logit)
    return joined(*y, *cpu.posterior_step_backward(y[::-1], saved))


def sums(x):
    y, saved = cpu.cumulative_sum(x)
    return joined(y, cpu.cumulative_sum_backward(y, saved))


FUNCTIONS = {
    "monotone": (monotone_twice, lambda seed: monotone(20, 9, seed)),
    "straight line": (monotone_twice, lambda seed: monotone(0, 9, seed)),
    "step": (posterior_step, lambda seed: list(drawn("step", (9,), seed, np.float32)[1])),
    "cumulative sum": (sums, lambda seed: [np.random.default_rng(seed).standard_normal(30, dtype=np.float32)]),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_same_bits_captured(use_threads, name):
    use_threads(1)
    f, draw = FUNCTIONS[name]
    graph = cpu.Captured(f)
    for call in range(5):
        arguments = draw(call)
        before = [a.tobytes() for a in arguments]
        assert graph(*arguments).tobytes() == f(*arguments).tobytes(), call
        assert [a.tobytes() for a in arguments] == before
    assert graph.capture is not None


def test_integers_are_repeated_as_they_are(use_threads):
    """Which rows a table is asked for, say, and other ones in each replay."""
    use_threads(1)
    table = np.random.default_rng(0).standard_normal((5, 3), dtype=np.float32)
    graph = cpu.Captured(lambda index: cpu.embedding(cpu.repeat(index, 3)[0], table)[0])
    for call in range(5):
        index = np.random.default_rng(call).integers(0, 5, 4)
        assert np.array_equal(graph(index), table[np.repeat(index, 3)])
    assert cpu.repeat(index, 3)[0].dtype == index.dtype
    assert graph.capture is not None


@pytest.mark.parametrize("units", [0, 1024])
@pytest.mark.parametrize("processes", [1, 2, 4])
def test_gradients_of_monotone_are_added_up_neighbours_first(units, processes):
    """Four shards in one pass, in two and in four; each f has the bits that it has alone."""
    t, *p = monotone(units, 8, 0)
    df, dslope = np.random.default_rng(1).standard_normal((2, 8), dtype=np.float32)

    def groups(count, shards):
        done = []
        for own in split(8, count):
            with using(shards=shards):
                y, saved = cpu.monotone(t[own], *p)
                done.append((y, cpu.monotone_backward((df[own], dslope[own]), saved)))
        values = [np.concatenate(parts) for parts in zip(*(y for y, _ in done), strict=True)]
        return values, {name: tree_sum([g[name] for _, g in done]) for name in NAMES}

    (values, g), (expected, expected_g) = groups(processes, 4 // processes), groups(8 // 2, 1)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(values, expected, strict=True))
    assert all(g[name].tobytes() == expected_g[name].tobytes() for name in NAMES)


def test_gradients_of_monotone_and_of_a_table_lie_where_the_optimiser_reads_them():
    """And a second one does not, which is noticed."""
    t, *p = monotone(20, 6, 0)
    flat = np.concatenate([*p, np.ones(12, np.float32)])
    starts = np.cumsum([0, *(a.size for a in p)])
    p = [flat[i : i + a.size] for i, a in zip(starts, p, strict=False)]
    table, index = flat[starts[-1] :].reshape(4, 3), np.array([0, 3, 3, 1, 0, 0])
    place = np.full(flat.size, np.nan, np.float32)
    buffer = GradientBuffer(flat, place)

    def gradients():
        (f, slope), saved = cpu.monotone(t, *p)
        rows, of_rows = cpu.embedding(index, table)
        return *cpu.monotone_backward((f, slope), saved).values(), cpu.embedding_backward(rows, of_rows)["weight"]

    with using(gradients=buffer):
        first = gradients()
        assert not buffer.refused
        second = gradients()
    assert buffer.refused
    assert not np.isnan(place).any()
    for a, b, start in zip(first, second, starts, strict=True):
        assert address(a) == address(place[start:])
        assert not np.shares_memory(b, place)
        assert a.tobytes() == b.tobytes()


def test_a_cumulative_sum_asks_for_shards_one_by_one():
    """Inside a step of training alone; its sum is that of float64."""
    x = np.random.default_rng(0).standard_normal(3000, dtype=np.float32)
    y, saved = cpu.cumulative_sum(x)
    assert y.tobytes() == np.cumsum(x.astype(np.float64)).astype(np.float32).tobytes()
    buffer = GradientBuffer(x, np.empty_like(x))
    cpu.cumulative_sum_backward(y, saved)
    assert not buffer.refused
    with using(gradients=buffer):
        cpu.cumulative_sum(x)
        assert not buffer.refused
        cpu.cumulative_sum_backward(y, saved)
    assert buffer.refused
