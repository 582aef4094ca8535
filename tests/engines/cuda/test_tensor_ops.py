"""Sums, multiples, joins, splits, shapes, fan-out and dropout on the CUDA engine."""

import numpy as np
import pytest
from emulator.agreement import check_agreement

from refdiff.engines import cuda, reference
from refdiff.engines.cuda import tensor_ops
from refdiff.engines.cuda.runtime.arena import Arena
from refdiff.engines.cuda.runtime.context import Array, Context
from refdiff.random import Sequence

SHAPES = [(1,), (3, 5), (2, 3, 3, 8), (1, 7, 9, 24), (2, 513)]


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def rounded(context, x, dtype):
    """x on the device and the very same numbers as NumPy's."""
    x = context.array(x, dtype)
    return x, cuda.host(x)


@pytest.mark.parametrize("shape", SHAPES)
def test_add(context, dtype, shape):
    check_agreement(context, "add", (normal(*shape), normal(*shape, seed=1)), dtype=dtype)


@pytest.mark.parametrize(
    "shape", [(3, 5), (2, 4, 8), (1, 7, 9, 24), (2, 5, 7, 3), (2, 9, 8, 72), (1, 1, 1, 1), (2, 33, 65)]
)
def test_broadcast_add(context, dtype, shape):
    x, e = normal(*shape), normal(shape[0], shape[-1], seed=1)
    check_agreement(context, "broadcast_add", (x, e), dtype=dtype, terms=int(np.prod(shape[1:-1])))


@pytest.mark.parametrize("shape", [(3, 5), (2, 4, 8), (1, 7, 9, 24), (70, 3, 3), (1, 1), (2, 33, 65), (9, 16, 40)])
def test_add_positions(context, dtype, shape):
    weight = {"weight": normal(*shape[1:], seed=1)}
    check_agreement(context, "add_positions", (normal(*shape),), weight, dtype=dtype, terms=shape[0])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("factor", [2**-0.5, -3, 0.0])
def test_scale(context, dtype, shape, factor):
    if factor:
        check_agreement(context, "scale", (normal(*shape),), dtype=dtype, factor=factor)
    else:
        assert not cuda.host(cuda.scale(context.array(normal(*shape), dtype), factor)[0]).any()


@pytest.mark.parametrize(("shape", "more"), [((3, 5), 2), ((2, 3, 3, 8), 16), ((2, 3, 8), 4), ((1,), 1), ((5, 1), 3)])
def test_concat(context, dtype, shape, more):
    a, b = normal(*shape), normal(*shape[:-1], more, seed=1)
    check_agreement(context, "concat", (a, b), dtype=dtype)
    assert [k.name for k in context.device.launches].count("concat_backward") == 2  # one a backward


@pytest.mark.parametrize(("shape", "parts"), [((3, 15), 3), ((2, 4, 48), 3), ((2, 3, 7), 1), ((10,), 5)])
def test_split(context, dtype, shape, parts):
    check_agreement(context, "split", (normal(*shape),), dtype=dtype, parts=parts)


def test_split_and_its_backward_move_nothing_where_the_parts_lie_side_by_side(context, dtype):
    x = context.array(normal(2, 5, 24), dtype)
    pieces, saved = cuda.split(x, 3)
    dx = cuda.split_backward(pieces, saved)
    assert not context.device.launches
    assert (dx.pointer, dx.shape, dx.dense) == (x.pointer, x.shape, True)
    a, b, c = pieces
    swapped = cuda.split_backward((b, a, c), saved)
    assert context.device.launches
    parts = np.split(cuda.host(x), 3, axis=-1)
    assert np.array_equal(cuda.host(swapped), np.concatenate([parts[1], parts[0], parts[2]], axis=-1))


def test_reshape_is_a_view(context, dtype):
    x, wanted = rounded(context, normal(3, 4, 2), dtype)
    y, saved = cuda.reshape(x, (4, 6))
    assert np.array_equal(cuda.host(y), wanted.reshape(4, 6))
    assert np.array_equal(cuda.host(cuda.reshape_backward(y, saved)), wanted)
    assert not context.device.launches


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8])
def test_fan_out(context, dtype, count):
    dys = [rounded(context, normal(3, 11, seed=i), dtype) for i in range(count)]
    dx = cuda.host(cuda.accumulate(*(a for a, _ in dys)))
    wanted = sum(a.astype(np.float64) for _, a in dys)
    assert np.linalg.norm(dx - wanted) <= (1e-2 if dtype == "bfloat16" else 2e-7) * np.linalg.norm(wanted)
    assert len(context.device.launches) == -(-(count - 1) // 3)


def test_gradients_of_two_types_are_added_in_bfloat16(context):
    a, b = context.array(normal(3, 8)), context.array(normal(3, 8, seed=1), "bfloat16")
    for dys in ((a, b), (b, a)):
        dx = cuda.accumulate(*dys)
        assert dx.dtype == "bfloat16"
        assert np.array_equal(cuda.host(dx), cuda.host(cuda.accumulate(cuda.cast(a, "bfloat16"), b)))


def test_fan_out_reads_the_parts_of_a_split(context, dtype):
    x, values = rounded(context, normal(3, 10), dtype)
    (a, b), _ = cuda.split(x, 2)
    ones = context.array(np.ones((3, 5)), dtype)
    one = cuda.host(cuda.accumulate(a, ones))
    assert np.array_equal(one, cuda.host(cuda.array(context.array(values[:, :5] + 1, "float32"), dtype)))
    assert isinstance(b, Array)
    assert not b.dense
    assert np.array_equal(cuda.host(tensor_ops.dense(b)), values[:, 5:])


@pytest.mark.parametrize("n", [1, 7, 8, 4097])
def test_array_cast_and_zeros(context, dtype, n):
    x = normal(n).astype(np.float32)
    on_device = cuda.array(x)
    came = cuda.array(on_device, dtype)
    assert came.dtype == dtype
    assert np.array_equal(cuda.host(came), cuda.host(context.array(x, dtype)))  # the host rounds as the device
    assert np.array_equal(cuda.host(tensor_ops.cast(came, "float32")), cuda.host(came))
    assert cuda.array(came, dtype) is came
    assert np.array_equal(cuda.host(tensor_ops.zeros((n, 2), dtype)), np.zeros((n, 2)))


# ---- dropout


@pytest.mark.parametrize("shape", [(3, 5), (2, 3, 3, 8), (4,), (3, 7, 1, 3)])
@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.999999])
def test_dropout(context, dtype, shape, rate):
    key = Sequence((7 << 32) + 11, (1 << 16) + 3, 5, first=2)
    check_agreement(context, "dropout", (normal(*shape),), dtype=dtype, rate=rate, key=key)
    x = np.ones(shape, np.float32)
    came = cuda.host(cuda.dropout(context.array(x, "float32"), rate, key)[0])
    assert np.array_equal(came, reference.dropout(x, rate, key)[0])


@pytest.mark.parametrize("first", [0, 3, 64])
@pytest.mark.parametrize("on_device", [False, True], ids=["host", "device"])
def test_dropout_of_a_shard(context, dtype, first, on_device):
    """Sample i is number first + i, where step and first lie on the device too."""
    x, values = rounded(context, normal(3, 2, 7), dtype)
    key = Sequence(11, 1 << 16, 5, first)
    given = key._replace(step=context.array(5, "int32"), first=context.array(first, "int32")) if on_device else key
    y, saved = cuda.dropout(x, 0.5, given)
    assert np.array_equal(cuda.host(y), reference.dropout(values, 0.5, key)[0])
    assert np.array_equal(cuda.host(cuda.dropout_backward(x, saved)), cuda.host(y))


def test_data_in_float32_are_rounded_to_a_networks_bfloat16(context):
    rng = np.random.default_rng(0)
    x, data = context.array(rng.standard_normal((2, 3, 4)), "bfloat16"), context.array(rng.standard_normal((2, 3, 4)))
    e, rows = (context.array(rng.standard_normal((2, 4)), dtype) for dtype in ("float32", "bfloat16"))
    rounded, e_rounded = cuda.cast(data, "bfloat16"), cuda.cast(e, "bfloat16")
    weight = context.array(rng.standard_normal((3, 4)))
    weight_rounded = cuda.cast(weight, "bfloat16")
    for name, given, same in [
        ("add", (x, data), (x, rounded)), ("concat", (data, x), (rounded, x)),
        ("broadcast_add", (x, e), (x, e_rounded)), ("broadcast_add", (data, rows), (rounded, rows)),
        ("add_positions", (x, weight), (x, weight_rounded)),
        ("add_positions", (data, weight_rounded), (rounded, weight_rounded)),
    ]:  # fmt: skip
        actual, expected = getattr(cuda, name)(*given)[0], getattr(cuda, name)(*same)[0]
        assert actual.dtype == "bfloat16"
        assert np.array_equal(cuda.host(actual), cuda.host(expected))


def test_dropout_cuts_where_the_reference_does(context):
    """At a rate that is itself one of the uniform numbers, and one bit to either side of it."""
    from refdiff.random import uniform

    key = Sequence(3, 1 << 16, 2)
    x = np.ones((1, 64), np.float32)
    for drawn in uniform(key, np.arange(1), (64,))[0, :4]:
        for rate in (np.nextafter(drawn, 0), drawn, np.nextafter(drawn, 1)):
            came = cuda.host(cuda.dropout(context.array(x), float(rate), key)[0])
            assert np.array_equal(came, reference.dropout(x, float(rate), key)[0])


def test_a_captured_dropout_draws_anew_each_replay(context, dtype):
    """The step lies on the device, so a replay after a write to it is a run with the next step."""
    arena = Context(context.device, Arena(context.device, 1 << 16))
    x, values = rounded(arena, normal(2, 6, 8), dtype)
    step, key, kept = arena.array(0, "int32"), Sequence(9, 1 << 16, 0), []

    def run():
        y, saved = cuda.dropout(x, 0.5, key._replace(step=step))
        kept[:] = y, cuda.dropout_backward(y, saved)

    run()
    graph = arena.capture(run)
    assert graph.launches == 2
    seen = set()
    for number in (1, 2):
        context.device.write(step.pointer, np.array(number, np.int32))
        graph.replay()
        y, dx = map(cuda.host, kept)
        assert np.array_equal(y, reference.dropout(values, 0.5, key._replace(step=number))[0])
        assert np.array_equal(dx, 2 * y)
        seen.add(dx.tobytes())
    assert len(seen) == 2
