"""Softmax and attention."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff.engines import reference as engine
from refdiff.testing.measures import relative_error

seeds = st.integers(0, 2**32 - 1)
small = st.integers(1, 4)
lengths = st.integers(2, 6)
heads = st.sampled_from([1, 2, 3, 4])


@st.composite
def cases(draw):
    """q, k and v; heads: the same or another number of queries as of keys."""
    rng = np.random.default_rng(draw(seeds))
    n, s, length, head = draw(small), draw(st.integers(1, 6)), draw(lengths), draw(heads)
    c = head * draw(small)
    # Half of a normal number: where one weight is nearly 1, the gradient is a difference of nearly equal numbers.
    return 0.5 * rng.standard_normal((n, s, c)), *0.5 * rng.standard_normal((2, n, length, c)), head


def defined(q, k, v, heads):
    """[Attention] eq. 1, a sample, a head and a query at a time."""
    y, d = np.empty_like(q), q.shape[2] // heads
    for n, h, s in np.ndindex(len(q), heads, q.shape[1]):
        own = slice(h * d, (h + 1) * d)
        weight = [np.exp(sum(q[n, s, own] * key[own]) / d**0.5) for key in k[n]]
        y[n, s, own] = sum(w * value[own] for w, value in zip(weight, v[n], strict=True)) / sum(weight)
    return y


@given(st.lists(small, max_size=2), st.integers(2, 8), st.sampled_from([0.1, 0.5]), seeds)
def test_softmax(check_contract, rest, c, scale, seed):
    x = scale * np.random.default_rng(seed).standard_normal((*rest, c))
    check_contract("softmax", (x,), seed=seed)
    y, _ = engine.softmax(x)
    assert relative_error(y, np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True)) <= 1e-14


@given(st.integers(1, 8), st.floats(-1e3, 1e3), seeds)
def test_softmax_rows_sum_to_one_and_ignore_a_shift(c, shift, seed):
    x = 3 * np.random.default_rng(seed).standard_normal((4, c))
    y, _ = engine.softmax(x)
    np.testing.assert_allclose(y.sum(axis=-1), 1, rtol=1e-15 * (1 + c))
    assert y.min() > 0
    assert relative_error(engine.softmax(x + shift)[0], y) <= 1e-12


@given(st.integers(1, 8), seeds)
def test_softmax_backward_sums_to_zero_in_each_row(c, seed):
    """As the shift of a row changes nothing, the gradient has no part along it."""
    x, dy = np.random.default_rng(seed).standard_normal((2, 5, c))
    np.testing.assert_allclose(engine.softmax_backward(dy, engine.softmax(x)[1]).sum(axis=-1), 0, atol=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_softmax_of_large_numbers(dtype):
    """No overflow on either side, and nothing but the largest counts. (A warning is an error in these tests.)"""
    y, _ = engine.softmax(np.array([[1e4, -1e4, 0], [-1e4, -1e4, -1e4]], dtype))
    np.testing.assert_allclose(y, [[1, 0, 0], [1 / 3] * 3], rtol=1e-6)


@given(cases(), seeds)
def test_attention(check_contract, case, seed):
    *qkv, heads = case
    check_contract("attention", tuple(qkv), seed=seed, heads=heads)


@given(cases())
def test_attention_is_its_definition(case):
    assert relative_error(engine.attention(*case)[0], defined(*case)) <= 1e-13


@given(cases())
def test_attention_has_one_head_unless_told(case):
    *qkv, _ = case
    assert relative_error(engine.attention(*qkv)[0], defined(*qkv, 1)) <= 1e-13


@given(cases(), seeds)
def test_attention_moves_with_its_queries_and_not_with_its_keys(case, seed):
    q, k, v, heads = case
    rng = np.random.default_rng(seed)
    queries, keys = rng.permutation(q.shape[1]), rng.permutation(k.shape[1])
    y, _ = engine.attention(q, k, v, heads)
    assert relative_error(engine.attention(q[:, queries], k, v, heads)[0], y[:, queries]) <= 1e-13
    assert relative_error(engine.attention(q, k[:, keys], v[:, keys], heads)[0], y) <= 1e-13


@given(cases())
def test_attention_of_a_head_is_that_of_its_channels_alone(case):
    q, k, v, heads = case
    y, _ = engine.attention(q, k, v, heads)
    d = q.shape[2] // heads
    for h in range(heads):
        own = slice(h * d, (h + 1) * d)
        assert relative_error(engine.attention(q[..., own], k[..., own], v[..., own])[0], y[..., own]) <= 1e-13


@given(cases())
def test_attention_averages_the_values(case):
    """Equal values come back as they are; one key alone has all the weight, and then q and k get no gradient."""
    q, k, v, heads = case
    same = np.broadcast_to(v[:, :1], v.shape)
    assert relative_error(engine.attention(q, k, same, heads)[0], np.broadcast_to(v[:, :1], q.shape)) <= 1e-14
    y, saved = engine.attention(q, k[:, :1], v[:, :1], heads)
    dq, dk, dv = engine.attention_backward(q, saved)
    assert relative_error(y, np.broadcast_to(v[:, :1], q.shape)) <= 1e-14
    assert not dq.any()
    assert not dk.any()
    assert relative_error(dv, q.sum(axis=1, keepdims=True)) <= 1e-14


def test_attention_of_large_scores_does_not_overflow():
    q, k, v = np.random.default_rng(0).standard_normal((3, 2, 5, 4)).astype(np.float32)
    y, saved = engine.attention(1e3 * q, 1e3 * k, v, 2)
    assert np.isfinite(y).all()
    assert all(np.isfinite(g).all() for g in engine.attention_backward(y, saved))


def test_attention_refuses_heads_that_do_not_divide():
    q, k, v = np.random.default_rng(0).standard_normal((3, 2, 5, 6))
    with pytest.raises(AssertionError, match="6 channels do not divide into 4 heads"):
        engine.attention(q, k, v, 4)
