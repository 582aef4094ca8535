"""Products, sums over a sample and over copies of it, and running sums on the CUDA engine."""

import numpy as np
import pytest
from emulator.agreement import bound, check_agreement

from refdiff.engines import cuda, reference
from refdiff.engines.cuda.runtime.arena import Arena
from refdiff.engines.cuda.runtime.context import Context
from refdiff.testing.measures import relative_error

# Packs that fit and that do not, one element a sample, one sample, several blocks a sample.
SHAPES = [(7,), (5, 1), (3, 5), (2, 4, 4, 8), (1, 24), (2, 9001), (2, 8192)]


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def exact(a):
    return cuda.host(a).astype(np.float64)


@pytest.mark.parametrize("shape", SHAPES)
def test_multiply(context, dtype, shape):
    check_agreement(context, "multiply", (normal(*shape), normal(*shape, seed=1)), dtype=dtype)


@pytest.mark.parametrize("shape", SHAPES[1:])
@pytest.mark.parametrize("of_dy", ["float32", "bfloat16"])
def test_multiply_by_one_number_a_sample(context, dtype, shape, of_dy):
    """It stays float32, and so does its gradient; dy may be of another type than a."""
    a, b, dy = (context.array(normal(*s, seed=i), kind)
                for i, (s, kind) in enumerate([(shape, dtype), (shape[:1], "float32"), (shape, of_dy)]))  # fmt: skip
    y, saved = cuda.multiply(a, b)
    expected, expected_saved = reference.multiply(exact(a), exact(b))
    assert (y.shape, y.dtype) == (shape, dtype)
    assert relative_error(exact(y), expected) <= bound(dtype)
    rounded = cuda.cast(dy, dtype)
    (da, db), wanted = cuda.multiply_backward(dy, saved), reference.multiply_backward(exact(rounded), expected_saved)
    assert (da.dtype, db.dtype, db.shape) == (dtype, "float32", shape[:1])
    assert relative_error(exact(da), wanted[0]) <= bound(dtype)
    parts = np.linalg.norm(exact(rounded) * exact(a))
    assert np.linalg.norm(exact(db) - wanted[1]) <= bound("float32", a.size // shape[0]) * parts
    assert cuda.host(cuda.multiply_backward(dy, saved)[1]).tobytes() == cuda.host(db).tobytes()


def test_a_product_of_two_types(context):
    """As a sum of two types: both are rounded, and each gradient has the type of what it is of."""
    a, b = context.array(normal(3, 8)), context.array(normal(3, 8, seed=1), "bfloat16")
    y, saved = cuda.multiply(a, b)
    assert y.dtype == "bfloat16"
    assert relative_error(exact(y), exact(a) * exact(b)) <= bound("bfloat16")
    da, db = cuda.multiply_backward(y, saved)
    assert (da.dtype, db.dtype) == ("float32", "bfloat16")


@pytest.mark.parametrize("shape", SHAPES)
def test_sample_sum(context, dtype, shape):
    x = context.array(normal(*shape), dtype)
    y, saved = cuda.sample_sum(x)
    expected, expected_saved = reference.sample_sum(exact(x))
    assert (y.shape, y.dtype) == (shape[:1], "float32")
    assert np.linalg.norm(exact(y) - expected) <= bound("float32", x.size // shape[0]) * np.linalg.norm(exact(x))
    assert cuda.host(cuda.sample_sum(x)[0]).tobytes() == cuda.host(y).tobytes()
    dx = cuda.sample_sum_backward(y, saved)
    assert (dx.shape, dx.dtype) == (shape, dtype)
    assert relative_error(exact(dx), reference.sample_sum_backward(exact(y), expected_saved)) <= bound(dtype)


def test_a_large_sample_is_shared_by_several_blocks(context):
    for count, more in ((64, []), (9001, ["sample_means"])):
        context.device.launches.clear()
        cuda.sample_sum(context.array(np.ones((2, count))))
        assert [kernel.name for kernel in context.device.launches] == ["sample_sum", *more]


@pytest.mark.parametrize("shape", [(7,), (5, 1), (3, 5), (2, 4, 4, 8), (1, 33)])
@pytest.mark.parametrize("times", [1, 2, 5, 70])
def test_repeat(context, dtype, shape, times):
    check_agreement(context, "repeat", (normal(*shape),), dtype=dtype, terms=times, times=times)


def test_repeated_integers(context):
    labels = np.array([3, -1, 1 << 30])
    assert cuda.host(cuda.repeat(context.array(labels, "int32"), 3)[0]).tolist() == np.repeat(labels, 3).tolist()


@pytest.mark.parametrize("K", [1, 2, 255, 256, 257, 1000, 4001])
@pytest.mark.parametrize("of", ["normal", "positive"])
def test_cumulative_sum(context, dtype, K, of):
    """Float32 whatever x is; the gradient has the type of x."""
    x = context.array(normal(K) if of == "normal" else np.abs(normal(K)), dtype)
    y, saved = cuda.cumulative_sum(x)
    assert (y.shape, y.dtype) == ((K,), "float32")
    expected, _ = reference.cumulative_sum(exact(x))
    size = 1 if of == "positive" else np.linalg.norm(exact(x))
    each = np.abs(exact(y) - expected) / (expected if of == "positive" else 1)
    assert each.max() <= bound("float32", K) * size
    dy = context.array(normal(K, seed=1))
    dx, again = (cuda.cumulative_sum_backward(dy, saved) for _ in range(2))
    assert dx.dtype == dtype
    assert cuda.host(dx).tobytes() == cuda.host(again).tobytes()
    assert relative_error(exact(dx), reference.cumulative_sum_backward(exact(dy), None)) <= bound(dtype, 16 * K)


def test_the_parts_of_a_split_are_taken_as_they_are(context, dtype):
    x, one = context.array(normal(3, 8), dtype), context.array(normal(3))
    a, b = cuda.split(x, 2)[0]
    left, right = np.split(exact(x), 2, axis=-1)
    assert relative_error(exact(cuda.multiply(a, b)[0]), left * right) <= bound(dtype)
    assert relative_error(exact(cuda.multiply(b, one)[0]), right * exact(one)[:, None]) <= bound(dtype)
    assert relative_error(exact(cuda.sample_sum(b)[0]), right.sum(axis=1)) <= bound("float32")
    assert np.array_equal(exact(cuda.repeat(b, 2)[0]), np.repeat(right, 2, axis=0))
    for name in ("softplus", "expm1", "silu"):
        y, saved = getattr(cuda, name)(b)
        expected, expected_saved = getattr(reference, name)(right)
        assert relative_error(exact(y), expected) <= bound(dtype), name
        actual = getattr(cuda, f"{name}_backward")(a, saved)
        assert relative_error(exact(actual), getattr(reference, f"{name}_backward")(left, expected_saved)) <= bound(
            dtype
        )


def test_captured_sums_follow_what_they_are_given(context, dtype):
    arena, kept = Context(context.device, Arena(context.device, 1 << 16)), []
    index, table = arena.array(np.zeros(3), "int32"), arena.array(normal(5, 4), dtype)

    def run():
        x, _ = cuda.embedding(index, table)
        total, of_sum = cuda.sample_sum(x)
        y, of_product = cuda.multiply(x, total)
        copies, times = cuda.repeat(y, 2)
        kept[:] = (
            y,
            copies,
            *cuda.multiply_backward(cuda.repeat_backward(copies, times), of_product),
            cuda.sample_sum_backward(cuda.cumulative_sum(total)[0], of_sum),
        )

    run()
    graph, weight = arena.capture(run), exact(table)
    for rows in ([1, 2, 3], [4, 4, 0]):
        context.device.write(index.pointer, np.array(rows, np.int32))
        graph.replay()
        x = weight[rows]
        y = x * x.sum(axis=1, keepdims=True)
        expected = y, np.repeat(y, 2, axis=0), *reference.multiply_backward(2 * y, (x, x.sum(axis=1)))
        for actual, wanted in zip(kept, (*expected, np.cumsum(x.sum(axis=1))[:, None] + 0 * x), strict=True):
            assert relative_error(exact(actual), wanted) <= bound(dtype, 16)


def test_what_does_not_fit_is_refused(context):
    a, b = context.array(np.zeros((2, 3))), context.array(np.zeros(3))
    with pytest.raises(AssertionError, match="multiply"):
        cuda.multiply(a, b)
    with pytest.raises(AssertionError, match=r"cumulative_sum: expected \(K,\)"):
        cuda.cumulative_sum(a)
    with pytest.raises(AssertionError, match=r"sample_sum: expected float32 \(2,\)"):
        cuda.sample_sum_backward(b, cuda.sample_sum(a)[1])
