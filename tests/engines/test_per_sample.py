"""One number a sample: lookups by t, sums of two arrays, choices, and the loss."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff.engines import reference as engine
from refdiff.process import linear, q_sample

seeds = st.integers(0, 2**32 - 1)
shapes = st.lists(st.integers(1, 5), min_size=1, max_size=4)
dtypes = st.sampled_from([np.float32, np.float64])


@given(shapes, seeds)
def test_squared_error(check_contract, shape, seed):
    rng = np.random.default_rng(seed)
    x, target = rng.standard_normal((2, *shape))
    weight = rng.uniform(0.1, 3, shape[0])
    check_contract("squared_error", (x,), seed=seed, target=target)
    check_contract("squared_error", (x,), seed=seed, target=target, weight=weight)
    loss, _ = engine.squared_error(x, target, weight)
    assert loss.shape == (shape[0],)
    for n, w in enumerate(weight):
        count = max(1, x[n].size)
        assert loss[n] == pytest.approx(w * math.fsum(np.ravel((x[n] - target[n]) ** 2)) / count, rel=1e-14)
    plain, _ = engine.squared_error(x, target)
    np.testing.assert_allclose(plain * weight, loss, rtol=1e-15)
    assert plain.mean() == pytest.approx(np.mean((x - target) ** 2), rel=1e-14)


@given(shapes, st.booleans(), seeds)
def test_a_number_for_dloss_is_that_number_for_each_sample(shape, weighted, seed):
    """Also one of float64, whose kind does not spread: float32 stays float32, and so it does with a float64 weight."""
    rng = np.random.default_rng(seed)
    x, target = rng.standard_normal((2, *shape)).astype(np.float32)
    loss, saved = engine.squared_error(x, target, rng.uniform(0.1, 3, shape[0]) if weighted else None)
    dx = engine.squared_error_backward(0.5, saved)
    assert loss.dtype == dx.dtype == np.float32
    assert np.array_equal(dx, engine.squared_error_backward(np.full(shape[0], 0.5), saved))
    assert np.array_equal(dx, engine.squared_error_backward(np.float64(0.5), saved))


def test_squared_error_refuses_to_broadcast():
    for x, target, weight in (((3, 1), (3, 3), None), ((3, 2), (3, 2), (1,)), ((3, 2), (3, 2), (3, 1))):
        with pytest.raises(AssertionError, match="squared_error"):
            engine.squared_error(np.ones(x), np.ones(target), weight and np.ones(weight))


def table_of(rows, k, seed):
    table = np.random.default_rng(seed).standard_normal((rows, k))
    table.flags.writeable = False
    return table


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 5), seeds)
def test_columns(n, rows, k, seed):
    table, index = table_of(rows, k, seed), np.random.default_rng(seed).integers(0, rows, n)
    found = engine.columns(table, index)
    assert len(found) == k
    for j, column in enumerate(found):
        assert column.tolist() == [table[i, j] for i in index]
        assert not np.shares_memory(column, table)


def test_columns_refuses_what_is_no_table_and_no_row():
    index = np.array([0, 1])
    for table in (np.ones((3, 2)), table_of(3, 2, 0).astype(np.float32), table_of(3, 2, 0)[:, 0]):
        with pytest.raises(AssertionError, match="read-only float64 table"):
            engine.columns(table, index)
    for row in (-1, 3):
        with pytest.raises(AssertionError, match="columns: expected rows from 0 to 2"):
            engine.columns(table_of(3, 2, 0), np.array([0, row]))


@given(st.integers(1, 6), st.integers(1, 6), dtypes, seeds)
def test_gather(n, k, dtype, seed):
    rng = np.random.default_rng(seed)
    values, index = rng.standard_normal(k).astype(dtype), rng.integers(0, k, n)
    found = engine.gather(values, index)
    assert found.dtype == dtype
    assert found.tolist() == [values[i] for i in index]
    assert not np.shares_memory(found, values)


def test_gather_refuses_what_is_no_row_of_numbers_and_no_place():
    values = np.ones(3)
    for index in ([-1], [3]):
        with pytest.raises(AssertionError, match="gather: expected places from 0 to 2"):
            engine.gather(values, np.array(index))
    for given_values, index in ((np.ones((3, 1)), [0]), (values, [[0]])):
        with pytest.raises(AssertionError, match=r"expected values \(K,\) and index \(N,\)"):
            engine.gather(given_values, np.array(index))


@given(shapes, dtypes, seeds)
def test_affine(shape, dtype, seed):
    """Coefficients are cast first: the numbers are those of a sum in the data's own dtype, to the bit."""
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((2, shape[0]))
    x, y = rng.standard_normal((2, *shape)).astype(dtype)
    actual = engine.affine(a, x, b, y)
    assert (actual.dtype, actual.shape) == (dtype, x.shape)
    for n in range(shape[0]):
        assert np.array_equal(actual[n], dtype(a[n]) * x[n] + dtype(b[n]) * y[n])


def test_affine_of_columns_is_the_forward_process():
    schedule, rng = linear(50), np.random.default_rng(0)
    table = np.stack([np.sqrt(schedule.alpha_bar), np.sqrt(schedule.one_minus_alpha_bar)], axis=1)
    table.flags.writeable = False
    x0, eps = rng.standard_normal((2, 5, 3, 3, 2))
    t = np.array([1, 50, 25, 2, 49])
    a, b = engine.columns(table, t)
    assert np.array_equal(engine.affine(a, x0, b, eps), q_sample(schedule, x0, t, eps))


@given(shapes, dtypes, seeds)
def test_less(shape, dtype, seed):
    rng = np.random.default_rng(seed)
    a, b = rng.uniform(0, 1, (2, *shape)).astype(dtype)
    a.ravel()[0] = b.ravel()[0]
    bits = engine.less(a, b)
    assert bits.dtype == dtype
    assert bits.tolist() == np.vectorize(lambda u, v: float(u < v))(a, b).tolist()
    assert bits.ravel()[0] == 0
    assert np.array_equal(engine.less(a + 1e-30j, b), bits)
    with pytest.raises(AssertionError, match="less"):
        engine.less(a[..., None], b)


def test_a_uniform_is_less_than_p_with_probability_p():
    u = np.random.default_rng(0).uniform(size=100_000)
    for p in (0.0, 0.1, 0.5, 1.0):
        share = engine.less(u, np.full_like(u, p)).mean()
        assert abs(share - p) <= 5 * (p * (1 - p) / u.size) ** 0.5


def test_affine_refuses_to_broadcast():
    with pytest.raises(AssertionError, match="affine"):
        engine.affine(np.ones(3), np.ones((3, 2)), np.ones(3), np.ones((3, 1)))
    with pytest.raises(AssertionError, match="affine"):
        engine.affine(np.ones(1), np.ones((3, 2)), np.ones(3), np.ones((3, 2)))


@given(
    shapes,
    st.sampled_from([np.bool_, np.int64, np.float32]),
    st.sampled_from([np.float32, np.float64, np.int64]),
    seeds,
)
def test_where(shape, kind, dtype, seed):
    rng = np.random.default_rng(seed)
    condition = rng.integers(0, 2, shape[0]).astype(kind)
    a, b = (100 * rng.standard_normal((2, *shape))).astype(dtype)
    for first in (a, 7):
        actual = engine.where(condition, first, b)
        assert (actual.dtype, actual.shape) == (dtype, b.shape)
        for n, yes in enumerate(condition):
            assert np.array_equal(actual[n], (np.full_like(b, first)[n] if first is not a else a[n]) if yes else b[n])


def test_where_refuses_another_shape_and_a_silent_cast():
    with pytest.raises(AssertionError, match="where"):
        engine.where(np.ones(2), 0, np.ones(3))
    with pytest.raises(AssertionError, match="where"):
        engine.where(np.ones(3), np.ones(3), np.ones((3, 2)))
    with pytest.raises(AssertionError, match="float64 among int64"):
        engine.where(np.ones(3), 0.5, np.ones(3, np.int64))


@given(shapes, seeds)
def test_stop(shape, seed):
    """The value is the same; what a complex step adds to it ends here."""
    x, v = np.random.default_rng(seed).standard_normal((2, *shape))
    assert np.array_equal(engine.stop(x), x)
    stopped = engine.stop(x + 1e-30j * v)
    assert np.array_equal(stopped, x)
    assert stopped.dtype == np.float64
