"""Every operation of the CPU engine against the reference: names, values, gradients, and what it refuses."""

import inspect

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff.engines import cpu, reference
from refdiff.random import Sequence

seeds = st.integers(0, 2**32 - 1)
FUNCTIONS = {name: f for name, f in vars(reference).items() if inspect.isfunction(f) and not name.startswith("_")}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_it_has_every_name_with_the_same_signature(name):
    assert inspect.signature(getattr(cpu, name)) == inspect.signature(FUNCTIONS[name])
    assert len(inspect.getdoc(getattr(cpu, name)) or "") > 10


def normal(seed, *shapes):
    rng = np.random.default_rng(seed)
    return tuple(rng.standard_normal(shape) for shape in shapes)


images = st.tuples(st.integers(1, 9), st.integers(1, 17), st.integers(1, 17))
channels = st.integers(1, 40)


@given(images, channels, channels, seeds)
def test_conv2d_3x3(agree, image, c, k, seed):
    """Winograd, taps, planes or columns, as the shape has it; odd sizes and single pixels too."""
    x, weight, bias = normal(seed, (*image, c), (3, 3, c, k), k)
    agree("conv2d", (x,), {"weight": weight, "bias": bias}, seed=seed, bound=1e-5)


@given(images, st.integers(1, 16), st.integers(1, 9), st.integers(1, 5), st.integers(1, 3), st.booleans(), seeds)
def test_conv2d_of_any_size_stride_and_padding(agree, image, c, k, size, stride, one_sided, seed):
    n, h, w = image[0], image[1] + size, image[2] + size
    x, weight, bias = normal(seed, (n, h, w, c), (size, size, c, k), k)
    padding = (0, size // 2) if one_sided else (size // 2, size // 2)
    terms = max(size * size * max(c, k), n * h * w)
    agree("conv2d", (x,), {"weight": weight, "bias": bias}, seed=seed, terms=terms, bound=0 if size != 3 else 1e-5,
          stride=stride, padding=padding)  # fmt: skip


@pytest.mark.parametrize(
    ("shape", "weight", "stride", "algorithms"),
    [((2, 16, 16, 16), (3, 3, 16, 16), 1, {"winograd 4x4"}), ((2, 12, 12, 16), (3, 3, 16, 16), 1, {"winograd 2x2"}),
     ((4, 4, 4, 16), (3, 3, 16, 16), 1, {"taps"}), ((3, 8, 8, 16), (3, 3, 16, 16), 1, {"winograd 2x2 and taps"}),
     ((2, 16, 16, 16), (3, 3, 16, 16), 2, {"taps"}), ((2, 32, 32, 16), (3, 3, 16, 16), 2, {"columns"}),
     ((2, 16, 16, 3), (3, 3, 3, 16), 1, {"columns"}), ((2, 16, 16, 16), (3, 3, 16, 3), 1, {"planes"}),
     ((2, 16, 16, 16), (5, 5, 16, 16), 1, {"columns"}), ((2, 8, 8, 16), (5, 5, 16, 16), 1, {"columns"}),
     ((2, 12, 12, 16), (3, 3, 16, 16), 3, {"columns"})],
)  # fmt: skip
def test_the_algorithm_of_a_convolution(shape, weight, stride, algorithms):
    """The profile says which one was taken, and both where the shards differ."""
    x, w, b = (a.astype(np.float32) for a in normal(0, shape, weight, weight[3]))
    with cpu.profile() as record:
        _, saved = cpu.conv2d(x, w, b, stride)
        cpu.conv2d_backward(cpu.conv2d(x, w, b, stride)[0], saved)
    assert {line.algorithm for line in record.lines()} == algorithms


@pytest.mark.parametrize(
    ("shape", "c", "k"),
    [((4, 32, 32), 32, 24), ((2, 34, 30), 16, 16), ((3, 31, 33), 12, 10), ((64, 8, 8), 32, 32), ((40, 16, 16), 9, 64),
     ((1, 64, 64), 40, 48), ((2, 8, 8), 96, 160), ((8, 12, 12), 128, 96), ((5, 16, 16), 192, 192), ((4, 4, 4), 192, 320)],
)  # fmt: skip
def test_conv2d_in_pieces(agree, shape, c, k):
    """Images cut in rows, several in a piece, several blocks of a gradient, and products divided among threads."""
    x, weight, bias = normal(0, (*shape, c), (3, 3, c, k), k)
    agree("conv2d", (x,), {"weight": weight, "bias": bias}, seed=0, bound=1e-5)


@given(st.lists(st.integers(1, 40), max_size=3), channels, st.integers(4, 40), seeds)
def test_linear(agree, rest, c, k, seed):
    """At least four numbers come out: a single one may be a sum that cancels."""
    x, weight, bias = normal(seed, (*rest, c), (c, k), k)
    agree("linear", (x,), {"weight": weight, "bias": bias}, seed=seed, terms=max(c, k, x.size // c))


def test_linear_divided_among_threads(agree):
    x, weight, bias = normal(0, (3, 701, 130), (130, 190), 190)
    agree("linear", (x,), {"weight": weight, "bias": bias}, seed=0, terms=2103)


@st.composite
def norms(draw):
    n, groups, size = draw(st.integers(1, 5)), draw(st.integers(1, 8)), draw(st.integers(1, 6))
    positions = draw(st.lists(st.integers(1, 12), max_size=2))
    if size * int(np.prod(positions)) < 8:  # of fewer numbers the gradient is a difference of nearly equal ones
        positions = [*positions, 8]
    shape = (n, *positions, groups * size)
    mean = draw(st.sampled_from([0.0, 1.0, 10.0]))
    return shape, groups, mean, draw(seeds)


@given(norms(), st.sampled_from(["group_norm", "group_norm_silu", "adaptive_group_norm_silu"]))
def test_group_norms(agree, case, name):
    _group_norm(agree, name, *case)


@pytest.mark.parametrize("name", ["group_norm", "group_norm_silu", "adaptive_group_norm_silu"])
@pytest.mark.parametrize(
    ("shape", "groups"), [((2, 32, 32, 96), 32), ((70, 8, 8, 32), 8), ((2, 33, 65, 48), 3)], ids=str
)
def test_group_norms_in_bands(agree, name, shape, groups):
    _group_norm(agree, name, shape, groups, 1.0, 0)


def _group_norm(agree, name, shape, groups, mean, seed):
    c = shape[-1]
    x, weight, bias, scale, shift = normal(seed, shape, c, c, (shape[0], c), (shape[0], c))
    x = x + np.float32(mean)
    inputs = (x, 0.3 * scale, shift) if name.startswith("adaptive") else (x,)
    terms = 4 * max(16, x.size) * max(1, mean) ** 2  # a large mean costs digits of x itself
    agree(name, inputs, {"weight": weight, "bias": bias}, seed=seed, terms=terms, groups=groups)


@given(st.lists(st.integers(1, 40), max_size=2), st.integers(4, 64), seeds)
def test_layer_norm(agree, rest, c, seed):
    x, weight, bias = normal(seed, (*rest, c), c, c)
    agree("layer_norm", (x + 1,), {"weight": weight, "bias": bias}, seed=seed, terms=max(256, x.size))


def test_layer_norm_of_many_rows(agree):
    x, weight, bias = normal(1, (3, 700, 80), 80, 80)
    agree("layer_norm", (x,), {"weight": weight, "bias": bias}, seed=1, terms=2100)


@given(st.integers(1, 5), st.integers(1, 20), st.integers(2, 20), st.integers(1, 4), st.integers(2, 8), seeds)
def test_attention(agree, n, s, length, heads, d, seed):
    q, k, v = normal(seed, (n, s, heads * d), (n, length, heads * d), (n, length, heads * d))
    agree("attention", (0.5 * q, 0.5 * k, v), seed=seed, terms=16 * max(s, length, d), heads=heads)


def test_attention_of_many_samples_and_its_gradients_side_by_side(agree):
    q, k, v = normal(0, *3 * [(9, 144, 24)])
    agree("attention", (0.5 * q, 0.5 * k, v), seed=0, terms=16 * 144, heads=2)
    y, saved = cpu.attention(*(a.astype(np.float32) for a in (q, k, v)))
    parts = cpu.attention_backward(y, saved)
    joined = cpu.split_backward(parts, None)
    np.testing.assert_array_equal(joined, np.concatenate(parts, axis=-1))
    assert joined.flags.c_contiguous
    assert all(np.shares_memory(joined, part) for part in parts)
    turned = parts[1], parts[0], parts[2]
    np.testing.assert_array_equal(cpu.split_backward(turned, None), np.concatenate(turned, axis=-1))


SHAPES = st.lists(st.integers(1, 9), min_size=1, max_size=3).map(lambda shape: (*shape, 8))


@given(
    st.sampled_from(["silu", "gelu", "gelu_tanh", "relu", "softplus", "expm1", "softmax", "dropout"]),
    SHAPES,
    st.sampled_from([0.1, 1, 4]),
    seeds,
)
def test_activations_softmax_and_dropout(agree, name, shape, scale, seed):
    options = {"rate": 0.3, "key": Sequence(seed, 1 << 16, 7)} if name == "dropout" else {}
    if name in (
        "softmax",
        "expm1",
    ):  # where one weight is nearly 1, the gradient is a difference of nearly equal numbers
        scale = min(scale, 1)
    agree(name, (scale * normal(seed, shape)[0],), seed=seed, terms=64, **options)


@pytest.mark.parametrize("name", ["silu", "relu", "softplus", "softmax", "dropout"])
def test_activations_softmax_and_dropout_in_parts(agree, name):
    options = {"rate": 0.3, "key": Sequence(1, 1 << 16, 7)} if name == "dropout" else {}
    agree(name, normal(0, (3, 200, 131)), seed=0, terms=131, **options)


@given(st.sampled_from(["upsample_nearest", "average_pool"]), images, channels, seeds)
def test_resampling(agree, name, image, c, seed):
    n, h, w = image
    agree(name, normal(seed, (n, 2 * h, 2 * w, c)), seed=seed)


@given(images, channels, st.tuples(st.integers(1, 20), st.integers(1, 20)), seeds)
def test_bilinear_and_the_mean_of_all_positions(agree, image, c, size, seed):
    n, h, w = image
    x = normal(seed, (n, h, w, max(c, 4)))  # a single number may be a mean that cancels
    agree("resize_bilinear", x, seed=seed, terms=max(16, 4 * size[0] * size[1] // (h * w)), size=size)
    agree("global_average_pool", x, seed=seed, terms=h * w)


@given(SHAPES, seeds)
def test_structure(agree, shape, seed):
    agree("add", normal(seed, shape, shape), seed=seed)
    agree("broadcast_add", normal(seed, shape, (shape[0], shape[-1])), seed=seed, terms=512)
    agree("add_positions", normal(seed, shape), {"weight": normal(seed + 1, shape[1:])[0]}, seed=seed, terms=16)
    agree("scale", normal(seed, shape), seed=seed, factor=-0.3)
    agree("multiply", normal(seed, shape, shape), seed=seed)
    agree("multiply", normal(seed, shape, shape[0]), seed=seed, terms=512)
    agree("sample_sum", normal(seed, shape), seed=seed, terms=512)
    agree("repeat", normal(seed, shape), seed=seed, times=3)
    agree("cumulative_sum", normal(seed, 8 * shape[0]), seed=seed, terms=80)
    agree("concat", normal(seed, shape, (*shape[:-1], 3)), seed=seed)
    agree("split", normal(seed, shape), seed=seed, parts=4)
    agree("reshape", normal(seed, shape), seed=seed, shape=(-1,))
    parts = [a.astype(np.float32) for a in normal(seed, shape, shape, shape)]
    assert np.array_equal(cpu.accumulate(*parts), reference.accumulate(*parts))
    assert np.array_equal(cpu.accumulate(parts[0]), parts[0])


def test_structure_in_parts(agree):
    shape = (5, 9, 17, 130)
    agree("add", normal(0, shape, shape), seed=0)
    agree("broadcast_add", normal(0, shape, (5, 130)), seed=0, terms=153)
    agree("add_positions", normal(0, shape), {"weight": normal(1, shape[1:])[0]}, seed=0)
    agree("scale", normal(0, shape), seed=0, factor=2**-0.5)
    agree("multiply", normal(0, shape, 5), seed=0, terms=9 * 17 * 130)
    agree("sample_sum", normal(0, shape), seed=0, terms=9 * 17 * 130)
    agree("repeat", normal(0, shape), seed=0, times=4)
    agree("global_average_pool", normal(0, shape), seed=0, terms=153)
    agree("resize_bilinear", normal(0, shape), seed=0, size=(36, 20))
    agree("concat", normal(0, shape, (*shape[:-1], 70)), seed=0)
    agree("upsample_nearest", normal(0, shape), seed=0)
    agree("average_pool", normal(0, (5, 36, 34, 130)), seed=0)


@given(st.integers(1, 9), st.integers(1, 5), seeds)
def test_embedding_and_time(agree, rows, c, seed):
    rng = np.random.default_rng(seed)
    (weight,) = (a.astype(np.float32) for a in normal(seed, (rows, c)))
    y, saved = cpu.embedding(rng.integers(0, rows, 6), weight)
    assert y.dtype == cpu.embedding_backward(y, saved)["weight"].dtype == np.float32
    t = rng.integers(1, 1000, 4)
    assert np.array_equal(cpu.time_embedding(t, 10)[0], reference.time_embedding(t, 10)[0])


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.floats(0, 0.999),
       st.integers(1, 5), st.integers(1, 33), st.integers(0, 2**32 - 5))  # fmt: skip
def test_dropout_drops_what_the_reference_drops(seed, stream, step, rate, n, count, first):
    x, key = np.ones((n, count), np.float32), Sequence(seed, stream, step, first)
    assert np.array_equal(cpu.dropout(x, rate, key)[0], reference.dropout(x, rate, key)[0])


def test_dropout_of_many_blocks_drops_what_the_reference_drops():
    x, key = np.ones((3, 90_001), np.float32), Sequence(2**64 - 1, 5, 2**32 - 1)
    assert np.array_equal(cpu.dropout(x, 0.1, key)[0], reference.dropout(x, 0.1, key)[0])


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.complex64, ">f4"])
def test_another_dtype_is_refused_by_name(dtype):
    x = np.ones((2, 4, 4, 8), dtype)
    for call in (
        lambda: cpu.silu(x),
        lambda: cpu.conv2d(x, np.ones((3, 3, 8, 8), np.float32), np.ones(8, np.float32)),
        lambda: cpu.linear(np.ones((2, 8), np.float32), weight=x[0, 0], bias=np.ones(8, np.float32)),
        lambda: cpu.add_backward(x, None),
    ):
        with pytest.raises(ValueError, match=r"expected arrays of float32.*got .*float|complex.*reference engine"):
            call()
    with pytest.raises(ValueError, match=r"dtype: expected float32.*got float64"):
        cpu.array([1, 2], np.float64)
    assert cpu.array([1, 2]).dtype == cpu.host(cpu.array([1.0])).dtype == np.float32


def test_shapes_that_do_not_fit_are_named():
    x, weight, bias = (np.ones(shape, np.float32) for shape in ((1, 4, 4, 3), (3, 3, 2, 5), 5))
    with pytest.raises(AssertionError, match="weight takes 2 channels, x has 3"):
        cpu.conv2d(x, weight, bias)
    with pytest.raises(AssertionError, match="3 channels do not divide into 2 groups"):
        cpu.group_norm(x, bias[:3], bias[:3], 2)
    with pytest.raises(AssertionError, match="got 3x4"):
        cpu.average_pool(x[:, :3])
    with pytest.raises(AssertionError, match="do not divide into 2 heads"):
        cpu.attention(x[0], x[0], x[0], 2)
