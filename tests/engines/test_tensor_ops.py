"""Sums, products, joins, splits, shapes, fan-out and dropout."""

import math

import numpy as np
import pytest
from helpers import normal
from hypothesis import given
from hypothesis import strategies as st

from refdiff.engines import reference as engine
from refdiff.random import Sequence, bits, uniform, uniform_threshold
from refdiff.testing.derivatives import check_backward
from refdiff.testing.measures import relative_error

seeds = st.integers(0, 2**32 - 1)
small = st.integers(1, 5)
shapes = st.lists(small, min_size=1, max_size=4).map(tuple)
rates = st.floats(0.05, 0.9)


@given(shapes, seeds)
def test_add(check_contract, shape, seed):
    a, b = normal(seed, 2, *shape)
    check_contract("add", (a, b), seed=seed, linear=True)
    assert np.array_equal(engine.add(a, b)[0], a + b)


def test_add_refuses_to_broadcast():
    with pytest.raises(AssertionError, match="add"):
        engine.add(normal(0, 2, 3), normal(1, 1, 3))


@given(small, st.lists(small, max_size=2), small, seeds)
def test_broadcast_add(check_contract, n, positions, c, seed):
    x, e = normal(seed, n, *positions, c), normal(seed + 1, n, c)
    check_contract("broadcast_add", (x, e), seed=seed, linear=True)
    y, _ = engine.broadcast_add(x, e)
    assert all(np.array_equal(y[i, ..., j], x[i, ..., j] + e[i, j]) for i in range(n) for j in range(c))


@pytest.mark.parametrize("shape", [(1, 4), (3, 1), (2, 4), (3, 4, 1)])
def test_broadcast_add_wants_a_number_for_each_sample_and_channel(shape):
    with pytest.raises(AssertionError, match="broadcast_add"):
        engine.broadcast_add(normal(0, 3, 2, 2, 4), normal(1, *shape))


@given(small, st.lists(small, min_size=1, max_size=3), seeds)
def test_add_positions(check_contract, n, shape, seed):
    x, weight = normal(seed, n, *shape), normal(seed + 1, *shape)
    check_contract("add_positions", (x,), {"weight": weight}, seed=seed, linear=True)
    y, saved = engine.add_positions(x, weight)
    assert all(np.array_equal(y[i], x[i] + weight) for i in range(n))
    dx, g = engine.add_positions_backward(np.ones_like(x), saved)
    assert (dx == 1).all()
    assert (g["weight"] == n).all()


@pytest.mark.parametrize("shape", [(4,), (1, 4), (3, 2, 4), (1,)])
def test_add_positions_wants_a_number_for_each_place_of_a_sample(shape):
    with pytest.raises(AssertionError, match="add_positions"):
        engine.add_positions(normal(0, 3, 2, 4), normal(1, *shape))


@given(shapes, st.sampled_from([0.0, 1.0, -2.5, 2**-0.5]), seeds)
def test_scale(check_contract, shape, factor, seed):
    """A number of Python does not change a dtype, whatever it is; a power of two loses nothing."""
    x = normal(seed, *shape)
    if factor:
        check_contract("scale", (x,), seed=seed, linear=True, factor=factor)
    assert np.array_equal(engine.scale(x, factor)[0], factor * x)
    assert np.array_equal(engine.scale(engine.scale(x, 0.25)[0], 4)[0], x)


@given(shapes, st.booleans(), seeds)
def test_multiply(check_contract, shape, of_samples, seed):
    a, b = normal(seed, *shape), normal(seed + 1, *(shape[:1] if of_samples else shape))
    check_contract("multiply", (a, b), seed=seed)
    y, _ = engine.multiply(a, b)
    assert all(np.array_equal(y[n], a[n] * b[n]) for n in range(len(a)))


@pytest.mark.parametrize("shape", [(1,), (3, 1), (2, 3), (3, 2, 1)])
def test_multiply_refuses_to_broadcast(shape):
    with pytest.raises(AssertionError, match="multiply"):
        engine.multiply(normal(0, 3, 2), normal(1, *shape))


@given(shapes, seeds)
def test_sample_sum(check_contract, shape, seed):
    x = normal(seed, *shape)
    check_contract("sample_sum", (x,), seed=seed, linear=True)
    y, _ = engine.sample_sum(x)
    assert y.shape == shape[:1]
    assert y.tolist() == pytest.approx([math.fsum(x[n].ravel()) for n in range(len(x))], rel=1e-14, abs=1e-14)


@given(shapes, small, seeds)
def test_repeat(check_contract, shape, times, seed):
    x = normal(seed, *shape)
    check_contract("repeat", (x,), seed=seed, linear=True, times=times)
    y, _ = engine.repeat(x, times)
    assert y.shape == (shape[0] * times, *shape[1:])
    assert all(np.array_equal(y[n * times + k], x[n]) for n in range(len(x)) for k in range(times))


@given(st.integers(1, 40), seeds)
def test_cumulative_sum(check_contract, count, seed):
    """Its backward is the same sum from the other end; the first difference takes it back."""
    x = normal(seed, count)
    check_contract("cumulative_sum", (x,), seed=seed, linear=True)
    y, saved = engine.cumulative_sum(x)
    np.testing.assert_allclose(np.diff(y, prepend=0.0), x, atol=1e-13)
    mirrored = engine.cumulative_sum_backward(x[::-1], saved)[::-1]
    np.testing.assert_allclose(mirrored, y, rtol=1e-14, atol=1e-14)
    with pytest.raises(AssertionError, match="cumulative_sum"):
        engine.cumulative_sum(x[:, None])


@given(shapes, small, seeds)
def test_concat(check_contract, shape, more, seed):
    a, b = normal(seed, *shape), normal(seed + 1, *shape[:-1], more)
    check_contract("concat", (a, b), seed=seed, linear=True)
    y, _ = engine.concat(a, b)
    assert np.array_equal(y[..., : shape[-1]], a)
    assert np.array_equal(y[..., shape[-1] :], b)


@given(shapes, small, seeds)
def test_split(check_contract, shape, parts, seed):
    *rest, c = shape
    x = normal(seed, *rest, parts * c)
    check_contract("split", (x,), seed=seed, linear=True, parts=parts)
    pieces, _ = engine.split(x, parts)
    assert len(pieces) == parts
    assert all(np.array_equal(piece, x[..., i * c : (i + 1) * c]) for i, piece in enumerate(pieces))


@given(shapes, seeds, st.randoms(use_true_random=False))
def test_reshape(check_contract, shape, seed, random):
    x, target = normal(seed, *shape), random.sample(shape, len(shape))
    check_contract("reshape", (x,), seed=seed, linear=True, shape=tuple(target))
    y, _ = engine.reshape(x, tuple(target))
    assert y.shape == tuple(target)
    assert np.array_equal(y.ravel(), x.ravel())


@given(shapes, small, seeds)
def test_fan_out(shape, uses, seed):
    """The adjoint of x -> (x, ..., x) is the sum."""
    check_backward(
        lambda x: ((x,) * uses, None),
        lambda dys, _: engine.accumulate(*dys),
        (normal(seed, *shape),),
        np.random.default_rng(seed),
    )
    dys = list(normal(seed, uses, *shape))
    before = [dy.copy() for dy in dys]
    dx = engine.accumulate(*dys)
    assert relative_error(dx, sum(before)) <= 1e-15
    assert all(map(np.array_equal, dys, before))
    assert not any(np.shares_memory(dx, dy) for dy in dys)


def test_array_and_host_keep_the_values():
    x = normal(0, 3, 2)
    assert engine.array(x).dtype == np.float32
    assert np.array_equal(engine.host(engine.array(x, np.float64)), x)


# ---- dropout


@given(shapes, rates, seeds)
def test_dropout(check_contract, shape, rate, seed):
    x, key = normal(seed, *shape), Sequence(seed, 1 << 16, 7)
    check_contract("dropout", (x,), seed=seed, rate=rate, key=key, linear=True)
    y, _ = engine.dropout(x, rate, key)
    assert np.all((y == 0) | (np.abs(y - x / (1 - rate)) <= 1e-15 * np.abs(y)))
    assert np.array_equal(engine.dropout(x, rate, key)[0], y)


@given(st.integers(1, 5), st.integers(0, 5), rates, seeds)
def test_a_part_of_a_batch_drops_what_the_whole_batch_drops_there(n, first, rate, seed):
    x, key = np.ones((first + n, 3, 5)), Sequence(seed, 1 << 16, 7)
    whole, part = engine.dropout(x, rate, key)[0], engine.dropout(x[first:], rate, key._replace(first=first))[0]
    assert np.array_equal(part, whole[first:])


@given(rates, seeds)
def test_dropout_drops_at_its_rate_and_keeps_the_expectation(rate, seed):
    """Of n elements n (1 - rate) are kept, give or take sqrt(n rate (1 - rate)); five of those happen once in a million."""
    x = 1 + np.random.default_rng(seed).random((20, 1000))
    y, _ = engine.dropout(x, rate, Sequence(seed, 1 << 16))
    error = (rate * (1 - rate) / x.size) ** 0.5
    assert abs((y == 0).mean() - rate) <= 5 * error
    assert abs((y / x).mean() - 1) <= 5 * error / (1 - rate)


@given(seeds)
def test_dropout_of_another_key_or_sample_is_independent(seed):
    """Two masks of rate 1/2 agree in half of n elements, give or take sqrt(n) / 2."""
    x = np.ones((2, 10_000))
    key = Sequence(seed, 1 << 16, 1)
    y, _ = engine.dropout(x, 0.5, key)
    pairs = [(y[0], y[1])]
    for other in (key._replace(seed=seed + 1), key._replace(stream=key.stream + 1), key._replace(step=2)):
        pairs.append((y, engine.dropout(x, 0.5, other)[0]))
    for a, b in pairs:
        assert abs((a == b).mean() - 0.5) <= 5 * 0.5 / a.size**0.5


@given(small, small, seeds)
def test_dropout_of_a_sample_depends_on_its_place_alone(n, more, seed):
    x, key = normal(seed, n + more, 3, 3, 2), Sequence(seed, 1 << 16)
    assert np.array_equal(engine.dropout(x[:n], 0.3, key)[0], engine.dropout(x, 0.3, key)[0][:n])


def test_dropout_at_rate_zero_keeps_everything():
    x = normal(0, 4, 5)
    assert np.array_equal(engine.dropout(x, 0.0, Sequence(0, 1 << 16))[0], x)


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_dropout_refuses_what_is_no_rate(rate):
    with pytest.raises(AssertionError, match="rate"):
        engine.dropout(normal(0, 2, 2), rate, Sequence(0, 1 << 16))


def test_dropout_at_the_very_number_that_is_drawn():
    """A number equal to the rate is dropped, as `uniform_threshold` has it for the other engines."""
    key, x = Sequence(3, 1 << 16, 0), np.ones((1, 8))
    drawn = uniform(key, np.arange(1), (8,))[0]
    for rate in drawn.tolist():
        assert np.array_equal(engine.dropout(x, rate, key)[0][0] != 0, drawn > rate)
        assert (bits(key, np.arange(1), 8)[0] >= uniform_threshold(rate)).tolist() == (drawn > rate).tolist()
