"""Rows of a table, and the sinusoids of the time."""

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff.engines import reference as engine
from refdiff.testing.derivatives import check_backward

seeds = st.integers(0, 2**32 - 1)
small = st.integers(1, 5)
conventions = st.sampled_from(["ddpm", "adm"])


@given(st.lists(small, min_size=1, max_size=3), small, small, seeds)
def test_embedding(check_contract, shape, rows, c, seed):
    """Rows are read more than once as a rule, and some are not read at all."""
    rng = np.random.default_rng(seed)
    index, weight = rng.integers(0, rows, shape), rng.standard_normal((rows, c))
    check_contract("embedding", (), {"weight": weight}, seed=seed, linear=True, index=index)
    y, saved = engine.embedding(index, weight)
    assert all(np.array_equal(y[place], weight[index[place]]) for place in np.ndindex(index.shape))
    dy, expected = rng.standard_normal(y.shape), np.zeros_like(weight)
    for place in np.ndindex(index.shape):
        expected[index[place]] += dy[place]
    np.testing.assert_allclose(engine.embedding_backward(dy, saved)["weight"], expected, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("index", [-1, 4])
def test_embedding_refuses_a_row_that_is_not_there(index):
    with pytest.raises(AssertionError, match=r"^embedding: expected rows from 0 to 3"):
        engine.embedding(np.array([0, index]), np.ones((4, 2)))


def published(t, channels, convention):
    """The published codes, a number at a time, in 30 digits.

    ddpm: emb = log(10000) / (half - 1), exp(-i emb), [sin, cos]; adm: exp(-log(10000) i / half), [cos, sin].
    """
    half = channels // 2
    with mpmath.workdps(30):
        rate = mpmath.log(10000) / (half - 1 if convention == "ddpm" else half)
        angles = [mpmath.mpf(t) * mpmath.exp(-i * rate) for i in range(half)]
        sin, cos = [float(mpmath.sin(a)) for a in angles], [float(mpmath.cos(a)) for a in angles]
    return (sin + cos if convention == "ddpm" else cos + sin) + [0.0] * (channels % 2)


@given(st.integers(1, 4), st.integers(4, 20), conventions, seeds)
def test_time_embedding_is_the_published_one(n, channels, convention, seed):
    t = np.random.default_rng(seed).integers(1, 4001, n)
    y, _ = engine.time_embedding(t, channels, convention, np.float64)
    np.testing.assert_allclose(y, [published(int(i), channels, convention) for i in t], atol=4e-12, rtol=0)


def test_time_embedding_by_hand():
    """t = 1, four channels: frequencies 1 and 1/10000 (DDPM), 1 and 1/100 (ADM)."""
    y = engine.time_embedding(np.array([1]), 4, "ddpm", np.float64)[0][0]
    np.testing.assert_allclose(y, [math.sin(1), math.sin(1e-4), math.cos(1), math.cos(1e-4)], rtol=1e-15)
    y = engine.time_embedding(np.array([1]), 4, "adm", np.float64)[0][0]
    np.testing.assert_allclose(y, [math.cos(1), math.cos(1e-2), math.sin(1), math.sin(1e-2)], rtol=1e-15)


@given(st.integers(4, 20), conventions, st.sampled_from([np.float32, np.float64, np.complex128]), seeds)
def test_time_embedding_is_cast_once(channels, convention, dtype, seed):
    """In float32 it is the rounded float64 one, not sinusoids of a rounded angle; DDPM's in float32 unless told."""
    t = np.random.default_rng(seed).integers(1, 4001, 5)
    exact, _ = engine.time_embedding(t, channels, convention, np.float64)
    y, saved = engine.time_embedding(t, channels, convention, dtype)
    assert y.dtype == engine.time_embedding_backward(y, saved).dtype == dtype
    assert np.array_equal(y, exact.astype(dtype))
    assert engine.time_embedding(t, channels)[0].dtype == np.float32
    assert np.array_equal(
        engine.time_embedding(t, channels, dtype=dtype)[0], engine.time_embedding(t, channels, "ddpm", dtype)[0]
    )


@given(st.integers(1, 4), st.integers(4, 20), conventions, seeds)
def test_time_embedding_backward(n, channels, convention, seed):
    """At times between the steps, and at the steps themselves, floats or integers."""
    rng = np.random.default_rng(seed)

    def forward(t):
        return engine.time_embedding(t, channels, convention, np.float64)

    t = rng.uniform(0, 20, n)
    check_backward(forward, engine.time_embedding_backward, (t,), rng)
    dy, steps = rng.standard_normal((n, channels)), rng.integers(1, 4001, n)
    of_integers, of_floats = (forward(t) for t in (steps, steps.astype(np.float64)))
    assert np.array_equal(of_integers[0], of_floats[0])
    dt = engine.time_embedding_backward(dy, of_integers[1])
    assert np.array_equal(dt, engine.time_embedding_backward(dy, of_floats[1]))
    assert dt.shape == (n,)


def test_time_embedding_tells_all_times_apart():
    """Of 4000 steps no two are nearer than 1e-3, so a network can hear which it is."""
    for convention in ("ddpm", "adm"):
        y, _ = engine.time_embedding(np.arange(1, 4001), 32, convention, np.float64)
        near = np.sqrt(((y[1:] - y[:-1]) ** 2).sum(axis=1))
        assert near.min() > 1e-3
        assert len(np.unique(y.round(6), axis=0)) == 4000


def test_time_embedding_refuses_what_it_cannot_do():
    with pytest.raises(AssertionError, match="at least 4"):
        engine.time_embedding(np.array([1]), 3)
    with pytest.raises(AssertionError, match="convention 'edm'"):
        engine.time_embedding(np.array([1]), 8, "edm")
