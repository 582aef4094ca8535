"""The linear layer on the CUDA engine, with each tile: shapes of more than one tile, of less than a pack, and split sums."""

import numpy as np
import pytest
from emulator.agreement import bound, check_agreement

from refdiff.engines import cuda, reference
from refdiff.engines.cuda import product
from refdiff.engines.cuda.runtime.context import Array
from refdiff.testing.measures import relative_error


def check(context, dtype, lead, inputs, outputs):
    rng = np.random.default_rng(inputs)
    x = rng.standard_normal((*lead, inputs))
    parameters = {"weight": rng.standard_normal((inputs, outputs)), "bias": rng.standard_normal(outputs)}
    terms = max(int(np.prod(lead)), inputs, outputs)
    check_agreement(context, "linear", (x,), parameters, dtype=dtype, terms=terms)


def test_more_than_one_of_each_tile(context, dtype, monkeypatch):
    for tile in product.TILES[dtype]:
        monkeypatch.setitem(product.TILES, dtype, (tile,))
        context.device.launches.clear()
        check(context, dtype, (2, 100), 168, 136)
        parts = [kernel.name for kernel in context.device.launches].count("add_partials")
        assert parts == 3, "expected the weight gradient to be split, in each backward"


@pytest.mark.parametrize("shape", [((), 1, 1), ((3,), 5, 8), ((2, 1, 7), 8, 3), ((70,), 67, 70)], ids=str)
def test_any_shape(context, dtype, shape):
    check(context, dtype, *shape)


def test_data_in_float32_are_rounded_to_the_weights_type(context):
    rng = np.random.default_rng(0)
    x, bias = context.array(rng.standard_normal((3, 6))), context.array(rng.standard_normal(5))
    weight = context.array(rng.standard_normal((6, 5)), "bfloat16")
    (y, saved), (expected, _) = cuda.linear(x, weight, bias), cuda.linear(cuda.cast(x, "bfloat16"), weight, bias)
    assert y.dtype == "bfloat16"
    assert np.array_equal(cuda.host(y), cuda.host(expected))
    dx, g = cuda.linear_backward(y, saved)
    assert (dx.dtype, g["weight"].dtype) == ("bfloat16", "float32")
    again, of_float32 = cuda.linear_backward(cuda.cast(y, "float32"), saved)
    assert np.array_equal(cuda.host(again), cuda.host(dx))
    assert np.array_equal(cuda.host(of_float32["weight"]), cuda.host(g["weight"]))


@pytest.mark.parametrize("width", [16, 5])
def test_parts_of_a_split(context, dtype, width):
    """x and dy with rows apart, as split leaves them."""
    rng = np.random.default_rng(width)
    shape, which = (2, 9, width), 1
    whole, dwhole = (context.array(rng.standard_normal((2, 9, 3 * width)), dtype) for _ in range(2))
    x, dy = (Array(a.buffer, shape, dtype, which * width, 3 * width) for a in (whole, dwhole))
    weight, bias = context.array(rng.standard_normal((width, width)), dtype), context.array(rng.standard_normal(width))
    y, saved = cuda.linear(x, weight, bias)
    dx, gradients = cuda.linear_backward(dy, saved)

    part = (..., slice(which * width, (which + 1) * width))
    x64, dy64 = (cuda.host(a).astype(np.float64)[part] for a in (whole, dwhole))
    wanted, wanted_saved = reference.linear(x64, cuda.host(weight).astype(np.float64), cuda.host(bias))
    wanted_dx, wanted_gradients = reference.linear_backward(dy64, wanted_saved)
    for actual, right in [(y, wanted), (dx, wanted_dx), *((gradients[k], wanted_gradients[k]) for k in gradients)]:
        assert relative_error(cuda.host(actual).astype(np.float64), right) <= bound(dtype, 18)
