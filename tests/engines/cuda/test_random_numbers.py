"""Random numbers as operations of the CUDA engine: integers and 0 or 1 to the bit, floats to their last digits."""

import numpy as np
import pytest

from refdiff.engines import cuda, reference
from refdiff.engines.cuda.runtime.arena import Arena
from refdiff.engines.cuda.runtime.context import Context
from refdiff.random import Sequence, bits, stream

SEED = (5 << 32) + 0xFFFFFFFF


@pytest.mark.parametrize("shape", [(), (1,), (5, 3), (4, 4, 2), (259,)])
@pytest.mark.parametrize(("step", "first"), [(0, 0), (0xFFFFFFFF, 123456), (7, 0xFFFFFFFC)])
def test_normal_and_uniform(context, shape, step, first):
    key = Sequence(SEED, stream("eps"), step, first)
    came = cuda.normal(key, 3, shape)
    assert (came.dtype, came.shape) == ("float32", (3, *shape))
    assert np.abs(cuda.host(came) - reference.normal(key, 3, shape)).max() <= 1e-6
    assert np.array_equal(cuda.host(cuda.uniform(key, 3, shape)), reference.uniform(key, 3, shape))
    assert np.array_equal(cuda.host(cuda.uniform(key, 300)), reference.uniform(key._replace(first=0), 300)) == (
        not first
    )


@pytest.mark.parametrize(("low", "high"), [(1, 1000), (0, 0), (-5, 4), (-(2**31), 2**31 - 1), (0, 2**31 - 1)])
@pytest.mark.parametrize("first", [0, 5, 2**31])
def test_integers(context, low, high, first):
    key = Sequence(SEED, stream("t"), 4, first)
    came = cuda.integers(key, 300, low, high)
    assert came.dtype == "int32"
    assert np.array_equal(cuda.host(came), reference.integers(key, 300, low, high))


@pytest.mark.parametrize("first", [0, 5])
def test_bernoulli(context, first):
    """Also of rates that the generator gives, which do not exceed themselves, and of those just below."""
    key = Sequence(SEED, stream("null"), 4, first)
    given = [(int(word) + 0.5) * 2.0**-32 for word in bits(key, np.arange(3), 1)[:, 0]]
    for rate in [0.0, 1.0, 0.1, 0.5, *given, *np.nextafter(given, 0).tolist()]:
        came = cuda.bernoulli(key, 300, rate)
        assert came.dtype == "int32"
        assert np.array_equal(cuda.host(came), reference.bernoulli(key, 300, rate))
    dropped = cuda.dropout(context.array(np.ones((300, 1))), 0.25, key)[0]
    assert np.array_equal(cuda.host(cuda.bernoulli(key, 300, 0.25)), cuda.host(dropped)[:, 0] == 0)


def test_a_captured_draw_reads_step_and_first_sample_when_it_runs(context):
    arena, kept = Context(context.device, Arena(context.device, 1 << 16)), []
    step, first = arena.array(0, "int32"), arena.array(0, "int32")
    key = Sequence(SEED, stream("eps"), step, first)

    def draw(engine, key):
        return (
            engine.normal(key, 5, (3,)), engine.uniform(key, 5, (2, 2)), engine.integers(key, 5, 1, 1000),
            engine.bernoulli(key, 5, 0.5),
        )  # fmt: skip

    def run():
        kept[:] = draw(cuda, key)

    run()
    graph = arena.capture(run)
    for numbers in ((1, 0), (2, 64), (3, 2**31 - 1)):
        for at, value in zip((step, first), numbers, strict=True):
            context.device.write(at.pointer, np.array(value, np.int32))
        graph.replay()
        normal, *others = map(cuda.host, kept)
        wanted, *exactly = draw(reference, key._replace(step=numbers[0], first=numbers[1]))
        assert np.abs(normal - wanted).max() <= 1e-6
        assert all(np.array_equal(a, b) for a, b in zip(others, exactly, strict=True))


def test_what_is_no_sequence_is_refused(context):
    for wrong in ({"step": -1}, {"first": 1 << 32}, {"step": context.array(0.0)}):
        with pytest.raises(AssertionError, match="expected an int"):
            cuda.normal(Sequence(0, 1)._replace(**wrong), 3, (2,))
    with pytest.raises(AssertionError, match="low <= high in int32"):
        cuda.integers(Sequence(0, 1), 3, 0, 2**31)
    with pytest.raises(AssertionError, match="a rate in"):
        cuda.bernoulli(Sequence(0, 1), 3, 1.5)
