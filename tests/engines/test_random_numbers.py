"""Random numbers as operations are those of `refdiff.random`, of the samples first .. first + n - 1."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff import random
from refdiff.engines import reference as engine
from refdiff.random import Sequence

sequences = st.builds(
    Sequence,
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 99),
)
shapes = st.lists(st.integers(0, 4), max_size=3).map(tuple)


@given(sequences, st.integers(0, 9), shapes, st.integers(-(2**31), 2**31 - 1), st.integers(0, 2**31))
def test_the_numbers_are_those_of_the_generator(sequence, n, shape, low, width):
    index = np.arange(n)
    assert np.array_equal(engine.normal(sequence, n, shape), random.normal(sequence, index, shape))
    exact = random.uniform(sequence, index, shape)
    uniform = engine.uniform(sequence, n, shape)
    assert np.array_equal(uniform, exact.astype(np.float32))
    assert np.array_equal(engine.uniform(sequence, n), random.uniform(sequence, index).astype(np.float32))
    assert engine.normal(sequence, n, shape).dtype == uniform.dtype == np.float32
    actual = engine.integers(sequence, n, low, low + width)
    assert np.array_equal(actual, random.integers(sequence, index, low, low + width))


@given(sequences, st.integers(1, 4), st.integers(1, 9))
def test_a_part_of_a_batch_has_the_numbers_of_its_place(sequence, first, n):
    later = sequence._replace(first=sequence.first + first)
    for draw in (
        lambda key, n: engine.normal(key, n, (3,)),
        lambda key, n: engine.uniform(key, n),
        lambda key, n: engine.integers(key, n, 1, 1000),
        lambda key, n: engine.bernoulli(key, n, 0.5),
        lambda key, n: engine.categorical(key, n, np.array([0.2, 0.7, 1.0])),
        lambda key, n: engine.antithetic(key._replace(first=key.first - sequence.first), n, 13),
        lambda key, n: engine.antithetic_steps(key._replace(first=key.first - sequence.first), n, 13, 7),
    ):
        assert np.array_equal(draw(later, n), draw(sequence, first + n)[first:])


@given(sequences, st.floats(0, 1), st.integers(0, 40))
def test_bernoulli_is_decided_exactly(sequence, rate, n):
    """Also where the rate is a number that the generator gives, which does not exceed itself, or the one just below."""
    words = random.bits(sequence, np.arange(n), 1)[:, 0].tolist()
    given = [(word + 0.5) * 2.0**-32 for word in words[:3]]
    for p in [rate, *given, *np.nextafter(given, 0).tolist()]:
        expected = [int(Fraction(2 * word + 1, 1 << 33) <= Fraction(p)) for word in words]
        assert engine.bernoulli(sequence, n, p).tolist() == expected
    assert not engine.bernoulli(sequence, n, 0.0).any()
    assert engine.bernoulli(sequence, n, 1.0).all()


@given(sequences, st.floats(0, 0.99))
def test_bernoulli_is_what_dropout_drops(sequence, rate):
    dropped = engine.dropout(np.ones((30, 1)), rate, sequence)[0][:, 0] == 0
    assert np.array_equal(engine.bernoulli(sequence, 30, rate), dropped)


def test_bernoulli_refuses_what_is_no_rate():
    for rate in (-0.1, 1.1, float("nan")):
        with pytest.raises(AssertionError, match="a rate in"):
            engine.bernoulli(Sequence(0, 1), 3, rate)


@given(sequences, st.integers(0, 30), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_categorical_counts_what_the_uniform_number_reaches(sequence, n, k, seed):
    """Decided exactly, in float32 entries too; also where an entry is itself a number that the generator gives."""
    words = random.bits(sequence, np.arange(n), 1)[:, 0].tolist()
    u = [Fraction(2 * word + 1, 1 << 33) for word in words]
    weight = np.random.default_rng(seed).exponential(size=k) * (np.arange(k) % 3 != 1)  # some have no chance
    even, drawn = np.arange(1, k + 1) / k, np.sort(np.array([*map(float, u), *[1.0] * k])[:k])
    for cumulative in (np.cumsum(weight) / max(weight.sum(), 1e-9), even.astype(np.float32), drawn):
        found = engine.categorical(sequence, n, cumulative)
        assert found.dtype.kind == "i"
        reached = [sum(Fraction(c) <= each for c in cumulative.tolist()) for each in u]
        assert found.tolist() == [min(count, k - 1) for count in reached]


def test_categorical_draws_as_often_as_it_is_told():
    """20,000 draws of each of five, in standard errors; what has no chance is never drawn."""
    p = np.array([0.1, 0.0, 0.55, 0.05, 0.3])
    found = engine.categorical(Sequence(3, 1), 20_000, np.cumsum(p))
    counts = np.bincount(found, minlength=5)
    assert counts[1] == 0
    assert np.abs((counts - 20_000 * p) / np.sqrt(20_000 * p * (1 - p) + 1)).max() <= 4


def test_categorical_stays_below_k_where_the_last_entry_falls_short():
    assert set(engine.categorical(Sequence(0, 1), 50, np.array([0.1, 0.2]))) == {0, 1}
    assert not engine.categorical(Sequence(0, 1), 50, np.array([1.0])).any()
    for cumulative in (np.ones((2, 1)), np.ones(0)):
        with pytest.raises(AssertionError, match=r"expected cumulative \(K,\)"):
            engine.categorical(Sequence(0, 1), 3, cumulative)


@given(sequences, st.integers(1, 70), st.integers(1, 2000))
def test_antithetic_times_are_one_number_and_the_sample_s_place(sequence, total, T):
    """Of the whole step, in exact arithmetic but for the last digit, whatever part of it is asked for."""
    step = sequence._replace(first=0)
    word = int(random.bits(step, np.arange(1), 1)[0, 0])
    t = [(Fraction(2 * word + 1, 1 << 33) + Fraction(i, total)) % 1 for i in range(total)]
    found, steps = engine.antithetic(step, total, total), engine.antithetic_steps(step, total, total, T)
    assert (found.dtype, steps.dtype.kind) == (np.float32, "i")
    off = [abs(Fraction(float(a)) - b) for a, b in zip(found, t, strict=True)]
    assert all(o <= Fraction(1, 1 << 24) for o in off)
    near = [1 + int(T * b) for b in t]
    assert all(a == b or abs(T * c % 1 - (a > b)) < 1e-9 for a, b, c in zip(steps.tolist(), near, t, strict=True))
    assert 1 <= steps.min() <= steps.max() <= T


def test_antithetic_times_are_evenly_spread_and_each_is_uniform():
    """Gaps of 1 / 64 all around; of 3,000 steps the mean and the spread of one sample's t, in standard errors."""
    t = np.sort(engine.antithetic(Sequence(1, 2, 3), 64, 64).astype(np.float64))
    assert np.abs(np.diff(np.append(t, t[0] + 1)) - 1 / 64).max() <= 1e-6
    one = np.array([engine.antithetic(Sequence(1, 2, step, 5), 1, 64)[0] for step in range(3000)])
    assert abs(one.mean() - 0.5) <= 4 / (12 * 3000) ** 0.5
    assert abs(one.var() * 12 - 1) <= 4 * (0.8 / 3000) ** 0.5


def test_antithetic_times_of_no_step_are_refused():
    with pytest.raises(AssertionError, match="antithetic: expected a step of at least one sample, got 0"):
        engine.antithetic(Sequence(0, 1), 3, 0)
    with pytest.raises(AssertionError, match="antithetic_steps: expected at least one step, got 0"):
        engine.antithetic_steps(Sequence(0, 1), 3, 3, 0)
