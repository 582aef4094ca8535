"""One number a sample, on the CUDA engine."""

import gc

import numpy as np
import pytest
from emulator.agreement import bound

from refdiff.engines import cpu, cuda, reference
from refdiff.engines.cuda import per_sample
from refdiff.engines.cuda.runtime.arena import Arena
from refdiff.engines.cuda.runtime.context import Context
from refdiff.process import linear
from refdiff.testing.measures import relative_error

# Packs that fit and that do not, one sample, one element, several blocks a sample.
SHAPES = [(3, 5), (2, 4, 4, 8), (1, 24), (7,), (2, 5, 7, 3), (2, 9001), (3, 8192)]


def table_of(rows=51):
    schedule = linear(rows - 1)
    table = np.stack([np.sqrt(schedule.alpha_bar), np.sqrt(schedule.one_minus_alpha_bar), np.arange(rows)], axis=1)
    table.flags.writeable = False
    return table


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weighted", [False, True])
def test_squared_error(context, dtype, shape, weighted):
    rng, n = np.random.default_rng(len(shape)), shape[0]
    x, target = (context.array(rng.standard_normal(shape), dtype) for _ in range(2))
    weight = context.array(rng.uniform(0.1, 3, n)) if weighted else None
    loss, saved = cuda.squared_error(x, target, weight)
    x64, target64, weight64 = (a and cuda.host(a).astype(np.float64) for a in (x, target, weight))
    expected, expected_saved = reference.squared_error(x64, target64, weight64)
    assert (loss.shape, loss.dtype) == ((n,), "float32")
    assert relative_error(cuda.host(loss), expected) <= bound("float32", x.size // n)
    assert cuda.host(cuda.squared_error(x, target, weight)[0]).tobytes() == cuda.host(loss).tobytes()

    each = rng.standard_normal(n).astype(np.float32)
    for dloss, given in ((0.3, 0.3), (each.astype(np.float64), context.array(each))):
        dx = cuda.squared_error_backward(given, saved)
        assert (dx.dtype, dx.shape) == (dtype, shape)
        expected = reference.squared_error_backward(dloss, expected_saved)
        assert relative_error(cuda.host(dx).astype(np.float64), expected) <= bound(dtype)


def test_a_large_sample_is_shared_by_several_blocks(context):
    cuda.squared_error(*(context.array(np.ones((2, 9001))) for _ in range(2)))
    assert [kernel.name for kernel in context.device.launches] == ["sample_squares", "sample_means"]
    context.device.launches.clear()
    cuda.squared_error(*(context.array(np.ones((2, 64))) for _ in range(2)))
    assert [kernel.name for kernel in context.device.launches] == ["sample_squares"]


@pytest.mark.parametrize("shape", SHAPES)
def test_affine(context, dtype, shape):
    """In float32 to the bit; in bfloat16 the rounded sum, of coefficients that are not."""
    rng, n = np.random.default_rng(len(shape)), shape[0]
    (x, y), (a, b) = (
        [context.array(rng.standard_normal(s), kind) for _ in range(2)]
        for s, kind in ((shape, dtype), ((n,), "float32"))
    )
    actual = cuda.affine(a, x, b, y)
    expected = cpu.affine(*map(cuda.host, (a, x, b, y)))
    assert actual.dtype == dtype
    assert np.array_equal(cuda.host(actual), cuda.host(context.array(expected, dtype)))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["int32", "float32"])
def test_where(context, dtype, shape, kind):
    rng, n = np.random.default_rng(len(shape)), shape[0]
    condition = context.array(rng.integers(0, 2, n), kind)
    for b_kind in (dtype, "int32"):
        a, b = (context.array(100 * rng.standard_normal(shape), b_kind) for _ in range(2))
        for first in (a, 7, -3):
            actual = cuda.where(condition, first, b)
            of_host = cuda.host(a) if first is a else first
            assert actual.dtype == b_kind
            assert np.array_equal(cuda.host(actual), reference.where(cuda.host(condition), of_host, cuda.host(b)))
    half = cuda.where(condition, -0.5, context.array(np.ones(shape), dtype))
    assert np.array_equal(cuda.host(half), reference.where(cuda.host(condition), -0.5, np.ones(shape)))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kinds", [("float32", "float32"), ("bfloat16", "bfloat16"), ("float32", "bfloat16")])
def test_less(context, shape, kinds):
    """A uniform number is compared as it is with a probability of the network's type."""
    rng = np.random.default_rng(0)
    a, b = (context.array(rng.random(shape), kind) for kind in kinds)
    bits = cuda.less(a, b)
    assert (bits.shape, bits.dtype) == (shape, kinds[1])
    assert np.array_equal(cuda.host(bits), reference.less(cuda.host(a), cuda.host(b)))
    assert not cuda.host(cuda.less(a, a)).any()
    part, _ = cuda.split(context.array(rng.random((3, 8))), 2)
    assert np.array_equal(cuda.host(cuda.less(*part)), reference.less(*map(cuda.host, part)))


def test_the_parts_of_a_split_are_taken_as_they_are(context, dtype):
    x, one = context.array(np.random.default_rng(0).standard_normal((3, 8)), dtype), context.array(np.ones(3))
    (a, b), _ = cuda.split(x, 2)
    left, right = np.split(cuda.host(x), 2, axis=-1)
    assert np.array_equal(cuda.host(cuda.where(context.array([1, 0, 1], "int32"), a, b)),
                          reference.where(np.array([1, 0, 1]), left, right))  # fmt: skip
    assert relative_error(cuda.host(cuda.affine(one, a, one, b)), left + right) <= bound(dtype)
    expected, _ = reference.squared_error(left.astype(np.float64), right.astype(np.float64))
    assert relative_error(cuda.host(cuda.squared_error(a, b)[0]), expected) <= bound("float32", 4)
    assert cuda.stop(a) is a


@pytest.mark.parametrize("on_device", [False, True])
def test_columns(context, on_device):
    table, t = table_of(), np.array([1, 50, 0, 7, 7])
    found = cuda.columns(table, context.array(t, "int32") if on_device else t)
    for column, expected in zip(found, reference.columns(table, t), strict=True):
        assert (column.dtype, column.shape) == ("float32", (5,))
        assert np.array_equal(cuda.host(column), expected.astype(np.float32))


@pytest.mark.parametrize("on_device", [False, True])
def test_gather(context, on_device):
    values, index = np.random.default_rng(0).random(300, dtype=np.float32), np.array([1, 299, 0, 7, 7])
    found = cuda.gather(context.array(values), context.array(index, "int32") if on_device else index)
    assert (found.dtype, found.shape) == ("float32", (5,))
    assert np.array_equal(cuda.host(found), reference.gather(values, index))


def test_a_table_goes_to_the_device_once_and_leaves_with_its_object(context, monkeypatch):
    sent = []
    write = context.device.write
    monkeypatch.setattr(context.device, "write", lambda pointer, a: (sent.append(a.shape), write(pointer, a)))
    table, t = table_of(), context.array([1, 2], "int32")
    sent.clear()
    for _ in range(3):
        cuda.columns(table, t)
    assert sent == [(51, 3)]
    cuda.columns(other := table_of(), t)
    assert sent == [(51, 3)] * 2
    assert len(per_sample.copies_of(context.device)) == 2
    del table, other
    gc.collect()
    assert not per_sample.copies_of(context.device)


def test_a_captured_draw_follows_t(context):
    """Coefficients, x_t, labels that are dropped, and the loss: nothing of it comes from the host."""
    arena, kept, table = Context(context.device, Arena(context.device, 1 << 16)), [], table_of()
    rng = np.random.default_rng(0)
    values = rng.standard_normal((2, 5, 4, 2)).astype(np.float32)
    x0, eps = (arena.array(a) for a in values)
    t, dropped = (arena.array(np.zeros(5), "int32") for _ in range(2))

    def run():
        a, b, weight = cuda.columns(table, t)
        x_t = cuda.affine(a, x0, b, eps)
        loss, saved = cuda.squared_error(x_t, eps, weight)
        kept[:] = x_t, cuda.where(dropped, 10, t), loss, cuda.squared_error_backward(loss, saved)

    run()
    graph = arena.capture(run)
    for seed in (1, 2):
        rng = np.random.default_rng(seed)
        steps, yes = rng.integers(1, 51, 5).astype(np.int32), rng.integers(0, 2, 5).astype(np.int32)
        context.device.write(t.pointer, steps)
        context.device.write(dropped.pointer, yes)
        graph.replay()
        x_t, label, loss, dx = map(cuda.host, kept)
        a, b, weight = cpu.columns(table, steps)
        assert np.array_equal(x_t, cpu.affine(a, values[0], b, values[1]))
        assert np.array_equal(label, np.where(yes, 10, steps))
        expected, saved = reference.squared_error(*(a.astype(np.float64) for a in (x_t, values[1], weight)))
        assert relative_error(loss, expected) <= 1e-6
        assert relative_error(dx, reference.squared_error_backward(loss.astype(np.float64), saved)) <= 1e-6


def test_data_in_float32_meet_a_network_in_bfloat16(context):
    """The squared error rounds its target, which is compared with what was rounded; a sum of both is as exact as can be."""
    rng = np.random.default_rng(0)
    x, data = context.array(rng.standard_normal((3, 20)), "bfloat16"), context.array(rng.standard_normal((3, 20)))
    rounded, exact = cuda.cast(data, "bfloat16"), cuda.cast(x, "float32")
    (loss, saved), (expected, expected_saved) = cuda.squared_error(x, data), cuda.squared_error(x, rounded)
    assert cuda.host(loss).tobytes() == cuda.host(expected).tobytes()
    dx = cuda.squared_error_backward(0.5, saved)
    assert dx.dtype == "bfloat16"
    assert np.array_equal(cuda.host(dx), cuda.host(cuda.squared_error_backward(0.5, expected_saved)))
    a, b = context.array([0.5, 2, -1]), context.array([1, 0.25, 3])
    for pair, same in (((x, data), (exact, data)), ((data, x), (data, exact))):
        actual, expected = cuda.affine(a, pair[0], b, pair[1]), cuda.affine(a, same[0], b, same[1])
        assert actual.dtype == "float32"
        assert np.array_equal(cuda.host(actual), cuda.host(expected))


def test_what_does_not_fit_is_refused(context):
    x, one = context.array(np.ones((3, 4))), context.array(np.ones(3))
    with pytest.raises(AssertionError, match="squared_error"):
        cuda.squared_error(x, context.array(np.ones((3, 3))))
    with pytest.raises(AssertionError, match=r"expected float32 \(3,\)"):
        cuda.squared_error(x, x, context.array(np.ones(4)))
    with pytest.raises(AssertionError, match=r"expected float32 \(3,\)"):
        cuda.affine(context.array(np.ones(3), "int32"), x, one, x)
    with pytest.raises(AssertionError, match="cast: expected float32 and bfloat16"):
        cuda.affine(one, x, one, context.array(np.ones((3, 4)), "int32"))
    with pytest.raises(AssertionError, match="among int32"):
        cuda.where(one, 0.5, context.array(np.ones(3), "int32"))
    with pytest.raises(AssertionError, match="where"):
        cuda.where(one, one, x)
    with pytest.raises(AssertionError, match="read-only float64 table"):
        cuda.columns(np.ones((3, 2)), np.array([1]))
    with pytest.raises(AssertionError, match="expected integers from 0 to 50"):
        cuda.columns(table_of(), np.array([51]))
    with pytest.raises(AssertionError, match="expected integers from 0 to 2"):
        cuda.gather(one, np.array([3]))
    with pytest.raises(AssertionError, match=r"gather: expected values \(K,\)"):
        cuda.gather(x, np.array([0]))
    with pytest.raises(AssertionError, match=r"gather: expected index \(N,\)"):
        cuda.gather(one, np.array([[0]]))
