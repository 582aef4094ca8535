"""Convolution on the CUDA engine: each tile, strides, paddings, filters, channels of less than a pack, split sums."""

import numpy as np
import pytest
from emulator.agreement import check_agreement

from refdiff.engines import cuda
from refdiff.engines.cuda import product


def check(context, dtype, x, weight, **options):
    """x and weight are shapes."""
    rng = np.random.default_rng(x[1])
    parameters = {"weight": rng.standard_normal(weight), "bias": rng.standard_normal(weight[3])}
    terms = max(int(np.prod(weight[:3])), int(np.prod(x[:3])), weight[0] * weight[1] * weight[3])
    check_agreement(context, "conv2d", (rng.standard_normal(x),), parameters, dtype=dtype, terms=terms, **options)


def test_more_than_one_of_each_tile(context, dtype, monkeypatch):
    for tile in product.TILES[dtype]:
        monkeypatch.setitem(product.TILES, dtype, (tile,))
        context.device.launches.clear()
        check(context, dtype, (3, 9, 7, 24), (3, 3, 24, 136))
        parts = [kernel.name for kernel in context.device.launches].count("add_partials")
        assert parts == 3, "expected the weight gradient to be split, in each backward"


def test_data_in_float32_are_rounded_to_the_weights_type(context):
    rng = np.random.default_rng(0)
    x, bias = context.array(rng.standard_normal((2, 4, 4, 3))), context.array(rng.standard_normal(5))
    weight = context.array(rng.standard_normal((3, 3, 3, 5)), "bfloat16")
    (y, saved), (expected, _) = cuda.conv2d(x, weight, bias), cuda.conv2d(cuda.cast(x, "bfloat16"), weight, bias)
    assert y.dtype == "bfloat16"
    assert np.array_equal(cuda.host(y), cuda.host(expected))
    dx, g = cuda.conv2d_backward(y, saved)
    assert (dx.dtype, g["weight"].dtype) == ("bfloat16", "float32")
    again, of_float32 = cuda.conv2d_backward(cuda.cast(y, "float32"), saved)
    assert np.array_equal(cuda.host(again), cuda.host(dx))
    assert np.array_equal(cuda.host(of_float32["weight"]), cuda.host(g["weight"]))


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (1, 2)], ids=str)
@pytest.mark.parametrize("padding", [(1, 1), (0, 2)], ids=str)
def test_stride_two(context, dtype, size, padding):
    check(context, dtype, (2, *size, 8), (3, 3, 8, 16), stride=2, padding=padding)


@pytest.mark.parametrize("channels", [(1, 3), (3, 8), (8, 3), (5, 7)], ids=str)
def test_any_channels(context, dtype, channels):
    check(context, dtype, (2, 6, 5, channels[0]), (3, 3, *channels))


@pytest.mark.parametrize(
    ("filter", "options"),
    [
        ((1, 1), {}),
        ((1, 1), {"stride": 2, "padding": (0, 0)}),  # pixels that no filter sees
        ((5, 5), {}),
        ((2, 4), {"stride": 3, "padding": (2, 1)}),
        ((3, 3), {"stride": 2, "padding": (0, 1)}),  # DDPM's down-sampling
        ((3, 2), {"padding": (0, 0)}),
    ],
    ids=str,
)
def test_any_filter(context, dtype, filter, options):
    check(context, dtype, (1, 7, 8, 8), (*filter, 8, 8), **options)
