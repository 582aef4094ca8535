"""One number a sample, on the CPU engine: the reference's numbers, the same bits captured, and alone or in a batch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff.engines import cpu, reference
from refdiff.process import linear

seeds = st.integers(0, 2**32 - 1)
shapes = st.lists(st.integers(1, 5), min_size=1, max_size=4)
TABLE = np.stack([np.sqrt(linear(50).alpha_bar), np.sqrt(linear(50).one_minus_alpha_bar), np.arange(51.0)], axis=1)
TABLE.flags.writeable = False


def draw(rng, *shape):
    return rng.standard_normal(shape, dtype=np.float32)


@given(shapes, st.booleans(), seeds)
def test_squared_error(agree, shape, weighted, seed):
    rng = np.random.default_rng(seed)
    x, target = draw(rng, 2, *shape)
    options = {"weight": rng.uniform(0.1, 3, shape[0]).astype(np.float32)} if weighted else {}
    agree("squared_error", (x,), seed=seed, terms=x.size // len(x), target=target, **options)
    _, saved = cpu.squared_error(x, target, **options)
    for dloss in (0.3, np.float64(0.3)):
        dx = cpu.squared_error_backward(dloss, saved)
        each = cpu.squared_error_backward(np.full(shape[0], 0.3, np.float32), saved)
        assert (dx.dtype, dx.tobytes()) == (np.float32, each.tobytes())


@pytest.mark.parametrize("shape", [(1,), (9,), (8, 8, 1), (33, 47, 3)])
def test_a_sample_has_the_same_bits_alone_and_in_a_batch(shape):
    rng = np.random.default_rng(0)
    x, target, weight = draw(rng, 7, *shape), draw(rng, 7, *shape), draw(rng, 7)
    loss, saved = cpu.squared_error(x, target, weight)
    dx = cpu.squared_error_backward(0.25, saved)
    for part in (slice(0, 1), slice(3, 5), slice(4, 7)):
        again, saved = cpu.squared_error(x[part], target[part], weight[part])
        assert again.tobytes() == loss[part].tobytes()
        assert cpu.squared_error_backward(0.25, saved).tobytes() == dx[part].tobytes()


@given(shapes, seeds)
def test_columns_affine_and_where_have_the_bits_of_the_reference(shape, seed):
    rng = np.random.default_rng(seed)
    x, y = draw(rng, 2, *shape)
    t, yes = rng.integers(0, 51, shape[0]), rng.integers(0, 2, shape[0])
    ours, theirs = cpu.columns(TABLE, t), reference.columns(TABLE, t)
    assert [a.tobytes() for a in ours] == [a.astype(np.float32).tobytes() for a in theirs]
    assert cpu.affine(ours[0], x, ours[1], y).tobytes() == reference.affine(theirs[0], x, theirs[1], y).tobytes()
    for condition in (yes, yes.astype(bool), yes.astype(np.float32)):
        for a, b in ((x, y), (3, y), (t, t + 1), (0, t)):
            actual, expected = cpu.where(condition, a, b), reference.where(condition, a, b)
            assert (actual.dtype, actual.tobytes()) == (expected.dtype, expected.tobytes())
    assert cpu.stop(x) is x
    assert cpu.less(x, y).tobytes() == reference.less(x, y).tobytes()
    found = cpu.gather(x.ravel(), t % x.size)
    assert (found.dtype, found.tobytes()) == (np.float32, reference.gather(x.ravel(), t % x.size).tobytes())


def test_what_would_be_cast_in_silence_is_refused():
    x, one = np.ones((3, 2), np.float32), np.ones(3, np.float32)
    with pytest.raises(AssertionError, match="float64 among int64"):
        cpu.where(one, 0.5, np.ones(3, np.int64))
    with pytest.raises(AssertionError, match="expected float32 or integers, got float64"):
        cpu.where(one, x, x.astype(np.float64))
    with pytest.raises(AssertionError, match="coefficients of int64"):
        cpu.affine(np.ones(3, np.int64), x, one, x)
    with pytest.raises(ValueError, match="affine: expected arrays of float32"):
        cpu.affine(one.astype(np.float64), x, one, x)
    with pytest.raises(AssertionError, match="read-only float64 table"):
        cpu.columns(TABLE.copy(), np.array([1]))
    with pytest.raises(AssertionError, match="expected rows from 0 to 50"):
        cpu.columns(TABLE, np.array([51]))


@pytest.mark.parametrize("weighted", [False, True])
def test_a_draw_and_its_loss_have_the_same_bits_captured(use_threads, weighted):
    """Coefficients of t, x_t, some of them replaced, the loss a sample and its gradient; t changes from call to call."""
    use_threads(1)

    def f(x0, eps, t, dropped):
        a, b, weight = cpu.columns(TABLE, t)
        x_t = cpu.affine(a, x0, b, cpu.stop(eps))
        x_t = cpu.where(dropped, 0.0, cpu.where(dropped, x0, cpu.add(x_t, cpu.less(x0, eps))[0]))
        label = cpu.where(dropped, 10, t)
        again, _, _ = cpu.columns(TABLE, label)
        loss, saved = cpu.squared_error(x_t, eps, weight if weighted else None)
        dx = cpu.squared_error_backward(again, saved)
        half = cpu.squared_error_backward(0.5, saved)
        rows, _ = cpu.reshape(cpu.add(dx, half)[0], (len(x0), -1))
        column, _ = cpu.reshape(loss, (-1, 1))
        y, _ = cpu.concat(rows, column)
        return y

    rng, graph = np.random.default_rng(0), cpu.Captured(f)
    for call in range(5):
        x0, eps = draw(rng, 2, 6, 4, 4, 2)
        arguments = x0, eps, rng.integers(0, 51, 6), rng.integers(0, 2, 6)
        expected = f(*arguments)
        assert graph(*arguments).tobytes() == expected.tobytes(), call
        assert np.isfinite(expected).all()


def test_a_row_that_is_not_there_is_found_in_a_capture_too(use_threads):
    use_threads(1)
    graph = cpu.Captured(lambda t: cpu.columns(TABLE, t)[0], after=1)
    assert np.array_equal(graph(np.array([3])), cpu.columns(TABLE, np.array([3]))[0])
    for _ in range(2):
        assert np.array_equal(graph(np.array([4])), cpu.columns(TABLE, np.array([4]))[0])
    with pytest.raises(AssertionError, match="expected rows from 0 to 50"):
        graph(np.array([51]))
