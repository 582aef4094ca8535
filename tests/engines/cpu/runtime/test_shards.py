"""Every operation does a batch shard by shard: what it gives has the bits of what groups of shards give alone."""

import numpy as np
import pytest
from engines.cpu.operation_cases import CASES, both, draw
from hypothesis import given
from hypothesis import strategies as st

from refdiff.engines import cpu
from refdiff.engines.cpu import linear_ops, winograd
from refdiff.engines.cpu.runtime.context import current, using
from refdiff.engines.cpu.runtime.shards import (
    destinations,
    shard_rows,
    shards,
    split,
    tree_sum,
)  # fmt: skip
from refdiff.random import Sequence

counts = st.sampled_from([1, 2, 4, 8])


def drawn(name, n=None):
    """Inputs and parameters of a case, of n samples or of as many as the case has."""
    _, shapes, sizes, _ = CASES[name]
    inputs = [draw((n or shape[0], *shape[1:]), i) for i, shape in enumerate(shapes)]
    return inputs, {key: draw(size, 5 + i) for i, (key, size) in enumerate(sizes.items())}


def neighbours_first(values):
    """The sum over a group is a part of the sum over all."""
    if len(values) == 1:
        return values[0]
    middle = len(values) // 2
    return neighbours_first(values[:middle]) + neighbours_first(values[middle:])


def assert_groups(name, n, count, processes):
    """What all shards give at once has the bits of what groups of them give."""
    operation, *_, options = CASES[name]
    forward, backward = getattr(cpu, operation), getattr(cpu, f"{operation}_backward")
    inputs, parameters = drawn(name, n)
    with using(shards=count):
        y, dx, g = both(name, inputs, parameters)
    dy, ys, dxs, gs = draw((24, *y.shape[1:]), 9), [], [], []
    for own in split(len(inputs[0]), processes):
        rows = slice(own.start * len(y) // len(inputs[0]), own.stop * len(y) // len(inputs[0]))
        with using(shards=count // processes):
            part, saved = forward(*(x[own] for x in inputs), **parameters, **options)
            result = backward(dy[rows], saved)
        *dx_part, g_part = result if isinstance(result, tuple) else (result,)
        if not isinstance(g_part, dict):
            dx_part, g_part = [*dx_part, g_part], {}
        ys.append(part), dxs.append(dx_part), gs.append(g_part)
    assert np.array_equal(y, np.concatenate(ys))
    for whole, *parts in zip(dx, *dxs, strict=True):
        assert np.array_equal(whole, np.concatenate(parts))
    assert g.keys() == parameters.keys()
    for key in g:
        assert np.array_equal(g[key], neighbours_first([part[key] for part in gs]))


@pytest.mark.parametrize(("block", "together"), [(8 << 20, 4 << 20), (1 << 14, 0)], ids=["as it is", "in many blocks"])
@pytest.mark.parametrize("name", CASES)
def test_a_batch_of_any_size_is_its_two_halves_to_the_bit(name, block, together, monkeypatch):
    monkeypatch.setattr(winograd, "BLOCK_BYTES", block)
    monkeypatch.setattr(winograd, "LARGE_U_BYTES", together)
    assert_groups(name, None, 2, 2)


@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("name", CASES)
def test_four_shards_have_the_bits_of_two_groups_and_of_four(name, processes):
    assert_groups(name, 8, 4, processes)


@pytest.mark.parametrize(
    "name", ["winograd 4x4", "winograd or taps", "taps", "few channels in", "linear", "group norm"]
)
def test_shards_of_two_sizes_may_take_two_algorithms(name):
    """6 samples in 4 shards: 2, 1, 2 and 1."""
    assert_groups(name, 6, 4, 2)
    assert_groups(name, 6, 4, 4)


@pytest.mark.parametrize(
    "name", ["winograd 2x2", "taps", "columns, stride 2", "linear", "layer norm", "adaptive", "loss a sample"]
)
def test_eight_shards_have_the_bits_of_their_groups(name):
    for processes in (2, 4, 8):
        assert_groups(name, 8, 8, processes)


def test_rows_of_a_table_are_added_up_neighbours_first():
    index, dy, weight = np.array([2, 1, 2, 2, 0, 2, 2, 2]), draw((8, 5)), draw((3, 5))
    with using(shards=4):
        whole = cpu.embedding_backward(dy, (index, weight))["weight"]
    parts = []
    for own in split(8, 4):
        with using(shards=1):
            parts.append(cpu.embedding_backward(dy[own], (index[own], weight))["weight"])
    np.testing.assert_array_equal(whole, neighbours_first(parts))


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("block", [8 << 20, 1 << 14], ids=["as it is", "in many blocks"])
@pytest.mark.parametrize("name", CASES)
def test_shards_that_are_done_at_once_have_the_same_bits(use_threads, name, block, count, monkeypatch):
    monkeypatch.setattr(winograd, "BLOCK_BYTES", block)
    monkeypatch.setattr(winograd, "PARALLEL_WORK", 0)
    monkeypatch.setattr(linear_ops, "PARALLEL_WORK", 0)
    inputs, parameters = drawn(name)
    results = []
    for threads in (1, 2, 3, 8):
        use_threads(threads)
        with using(shards=count):
            y, dx, g = both(name, inputs, parameters)
        results.append([a.tobytes() for a in (y, *dx, *g.values())])
    assert all(result == results[0] for result in results[1:])


def test_dropout_of_a_shard_knows_its_first_sample():
    x, key = draw((5, 300)), Sequence(1, 2, 3)
    whole = cpu.dropout(x, 0.3, key)[0]
    for own in shards(5):
        assert np.array_equal(cpu.dropout(x[own], 0.3, key._replace(first=own.start))[0], whole[own])


def test_the_first_half_is_never_the_smaller_one():
    assert [split(n, 2) for n in (1, 2, 5)] == [(slice(0, 1),), (slice(0, 1), slice(1, 2)), (slice(0, 3), slice(3, 5))]
    assert shard_rows((5, 2, 3, 7)) == [slice(0, 18), slice(18, 30)]
    assert shard_rows((7,)) == [slice(0, 1)]


@given(st.integers(0, 70), counts)
def test_shards_are_all_samples_in_order_and_nearly_equal(n, count):
    with using(shards=count):
        parts = shards(n)
    sizes = [part.stop - part.start for part in parts]
    assert [i for part in parts for i in range(part.start, part.stop)] == list(range(n))
    assert len(sizes) == min(n, count) or n == 0
    assert max(sizes) - min(sizes) <= 1


@given(st.integers(1, 70), counts, counts)
def test_the_shards_of_a_group_are_those_of_the_whole(n, processes, each):
    parts = []
    for own in split(n, processes):
        parts += [slice(own.start + part.start, own.start + part.stop) for part in split(own.stop - own.start, each)]
    assert tuple(parts) == split(n, processes * each)


@given(st.integers(1, 20))
def test_a_tree_sum_adds_neighbours_first(n):
    class Term(str):
        def __iadd__(self, other):
            return Term(f"({self}+{other})")

    terms = [Term(i) for i in range(n)]
    expected = ["", "0", "(0+1)", "((0+1)+2)", "((0+1)+(2+3))", "(((0+1)+(2+3))+4)", "(((0+1)+(2+3))+(4+5))"]
    result = tree_sum(terms)
    assert n >= len(expected) or result == expected[n]
    assert [int(i) for i in result.replace("(", "").replace(")", "").split("+")] == list(range(n))


@given(st.integers(1, 9))
def test_destinations_are_the_places_of_a_tree_sum(n):
    """Two neighbours add to one array; then the arrays are added up."""
    parts, total = draw((n, 5)), np.empty(5, np.float32)
    into = destinations(total, n)
    for part, (array, added) in zip(parts, into, strict=True):
        array[...] = array + part if added else part
    result = tree_sum(array for array, added in into if not added)
    assert result is total
    np.testing.assert_array_equal(total, tree_sum(part.copy() for part in parts))


def test_the_number_of_shards_is_restored():
    assert current().shards == 2
    with using(shards=1):
        assert shards(4) == [slice(0, 4)]
    with pytest.raises(ZeroDivisionError), using(shards=4):
        1 / 0  # noqa: B018
    assert len(shards(4)) == current().shards == 2
