"""Random numbers as operations of the CUDA engine: integers and 0 or 1 to the bit, floats to their last digits."""

import numpy as np
import pytest

from refdiff import random
from refdiff.engines import cuda, reference
from refdiff.engines.cuda import random_numbers
from refdiff.engines.cuda.runtime.arena import Arena
from refdiff.engines.cuda.runtime.context import Context
from refdiff.random import Sequence, bits, stream

SEED = (5 << 32) + 0xFFFFFFFF


@pytest.mark.parametrize("shape", [(), (1,), (5, 3), (4, 4, 2), (259,)])
@pytest.mark.parametrize(("step", "first"), [(0, 0), (0xFFFFFFFF, 123456), (7, 0xFFFFFFFC)])
def test_normal_and_uniform(context, shape, step, first):
    key = Sequence(SEED, stream("eps"), step, first)
    actual = cuda.normal(key, 3, shape)
    assert (actual.dtype, actual.shape) == ("float32", (3, *shape))
    assert np.abs(cuda.host(actual) - reference.normal(key, 3, shape)).max() <= 1e-6
    assert np.array_equal(cuda.host(cuda.uniform(key, 3, shape)), reference.uniform(key, 3, shape))
    assert np.array_equal(cuda.host(cuda.uniform(key, 300)), reference.uniform(key._replace(first=0), 300)) == (
        not first
    )


@pytest.mark.parametrize(("low", "high"), [(1, 1000), (0, 0), (-5, 4), (-(2**31), 2**31 - 1), (0, 2**31 - 1)])
@pytest.mark.parametrize("first", [0, 5, 2**31])
def test_integers(context, low, high, first):
    key = Sequence(SEED, stream("t"), 4, first)
    actual = cuda.integers(key, 300, low, high)
    assert actual.dtype == "int32"
    assert np.array_equal(cuda.host(actual), reference.integers(key, 300, low, high))


@pytest.mark.parametrize("first", [0, 5])
def test_bernoulli(context, first):
    """Also of rates that the generator gives, which do not exceed themselves, and of those just below."""
    key = Sequence(SEED, stream("null"), 4, first)
    given = [(int(word) + 0.5) * 2.0**-32 for word in bits(key, np.arange(3), 1)[:, 0]]
    for rate in [0.0, 1.0, 0.1, 0.5, *given, *np.nextafter(given, 0).tolist()]:
        actual = cuda.bernoulli(key, 300, rate)
        assert actual.dtype == "int32"
        assert np.array_equal(cuda.host(actual), reference.bernoulli(key, 300, rate))
    dropped = cuda.dropout(context.array(np.ones((300, 1))), 0.25, key)[0]
    assert np.array_equal(cuda.host(cuda.bernoulli(key, 300, 0.25)), cuda.host(dropped)[:, 0] == 0)


@pytest.mark.parametrize("first", [0, 5])
@pytest.mark.parametrize("k", [1, 2, 5, 64, 1000])
def test_categorical(context, first, k):
    """Also of entries that are numbers of the generator themselves, that fall short of 1, and that have no chance."""
    key, rng = Sequence(SEED, stream("t"), 4, first), np.random.default_rng(k)
    weight = rng.exponential(size=k) * (np.arange(k) % 3 != 1)
    drawn = np.sort([*np.ravel(reference.uniform(key, k)), 1])[1:]
    for cumulative in (np.cumsum(weight / weight.sum()), drawn, np.arange(1, k + 1) / (k + 3)):
        actual = cuda.categorical(key, 300, context.array(cumulative))
        assert actual.dtype == "int32"
        assert np.array_equal(cuda.host(actual), reference.categorical(key, 300, cumulative.astype(np.float32)))


@pytest.mark.parametrize("first", [0, 5, 300])
def test_antithetic(context, first):
    """The numbers of one step of 600 samples, of this part of them."""
    key = Sequence(SEED, stream("t"), 4, first)
    assert np.array_equal(cuda.host(cuda.antithetic(key, 300, 600)), reference.antithetic(key, 300, 600))
    for T in (1, 7, 1000):
        actual = cuda.antithetic_steps(key, 300, 600, T)
        assert actual.dtype == "int32"
        assert np.array_equal(cuda.host(actual), reference.antithetic_steps(key, 300, 600, T))


@pytest.mark.parametrize("first", [0, 3, 64])
@pytest.mark.parametrize("on_device", [False, True], ids=["host", "device"])
def test_chosen_samples_of_a_part(context, first, on_device):
    """Sample i is number first + i: a part has the bits that the whole has there, and so have chosen samples of it."""

    def draw(n, first):
        place = context.array(first, "int32") if on_device else first
        key, n = Sequence(SEED, stream("eps"), 7, place), context.array(n, "int32") if np.ndim(n) else n
        drawn = cuda.normal(key, n, (3,)), cuda.uniform(key, n, (5,)), cuda.integers(key, n, 1, 1000)
        drawn += (cuda.categorical(key, n, context.array([0.2, 0.7, 1.0])),)
        return [*map(cuda.host, drawn), cuda.host(cuda.bernoulli(key, n, 0.5))]

    whole, part, chosen = draw(first + 5, 0), draw(5, first), draw([4, 0], first)
    for all_of_it, of_part, of_chosen in zip(whole, part, chosen, strict=True):
        assert np.array_equal(of_part, all_of_it[first:])
        assert np.array_equal(of_chosen, of_part[[4, 0]])
    expected = random.integers(Sequence(SEED, stream("eps"), 7, first), np.array([4, 0]), 1, 1000)
    assert np.array_equal(chosen[2], expected)


def test_samples_far_from_the_first(context):
    key, ids = Sequence(3, stream("step"), 9), np.array([7, 0, 123456, 2**31 - 1])
    actual = cuda.host(cuda.normal(key, context.array(ids, "int32"), (6,)))
    assert np.abs(actual - random.normal(key, ids, (6,))).max() <= 1e-6
    low, high = -(2**31), 2**31 - 1
    actual = cuda.host(cuda.integers(key, context.array(ids, "int32"), low, high))
    assert np.array_equal(actual, random.integers(key, ids, low, high))


def test_a_captured_draw_reads_step_and_first_sample_when_it_runs(context):
    arena, drawn = Context(context.device, Arena(context.device, 1 << 16)), []
    step, first = arena.array(0, "int32"), arena.array(0, "int32")
    key, chances = Sequence(SEED, stream("eps"), step, first), np.linspace(0.1, 1, 10, dtype=np.float32)
    cumulative = {cuda: arena.array(np.ones(10)), reference: chances}

    def draw(engine, key):
        return (
            engine.normal(key, 5, (3,)), engine.uniform(key, 5, (2, 2)), engine.integers(key, 5, 1, 1000),
            engine.bernoulli(key, 5, 0.5), engine.categorical(key, 5, cumulative[engine]),
            engine.antithetic(key, 5, 100), engine.antithetic_steps(key, 5, 100, 9),
        )  # fmt: skip

    def run():
        random_numbers.advance(step)
        drawn[:] = draw(cuda, key)

    run()
    graph = arena.capture(run)
    context.device.write(cumulative[cuda].pointer, chances)
    for numbers in ((2, 0), (3, 64), (4, 2**31 - 1)):
        context.device.write(first.pointer, np.array(numbers[1], np.int32))
        graph.replay()
        normal, *others = map(cuda.host, drawn)
        expected, *exactly = draw(reference, key._replace(step=numbers[0], first=numbers[1]))
        assert np.abs(normal - expected).max() <= 1e-6
        assert all(np.array_equal(a, b) for a, b in zip(others, exactly, strict=True))


def test_what_is_no_sequence_is_refused(context):
    for wrong in ({"step": -1}, {"first": 1 << 32}, {"step": context.array(0.0)}):
        with pytest.raises(AssertionError, match="expected an int"):
            cuda.normal(Sequence(0, 1)._replace(**wrong), 3, (2,))
    with pytest.raises(AssertionError, match="low <= high in int32"):
        cuda.integers(Sequence(0, 1), 3, 0, 2**31)
    for which in (context.array([0.0]), context.array(3, "int32")):
        with pytest.raises(AssertionError, match=r"n: expected how many samples or which, int32 \(N,\)"):
            cuda.normal(Sequence(0, 1), which, (2,))
    with pytest.raises(AssertionError, match="advance: expected an int32 scalar"):
        random_numbers.advance(context.array([0], "int32"))
    for cumulative in (context.array(np.ones((2, 1))), context.array([0, 1], "int32"), context.array(np.ones(0))):
        with pytest.raises(AssertionError, match="categorical: expected"):
            cuda.categorical(Sequence(0, 1), 3, cumulative)
    with pytest.raises(AssertionError, match="a rate in"):
        cuda.bernoulli(Sequence(0, 1), 3, 1.5)
    with pytest.raises(AssertionError, match="antithetic: expected"):
        cuda.antithetic(Sequence(0, 1), 3, 0)
    with pytest.raises(AssertionError, match="antithetic_steps: expected"):
        cuda.antithetic_steps(Sequence(0, 1), 3, 3, 0)
