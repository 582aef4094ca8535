"""The linear layer."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from refdiff.engines import reference as engine
from refdiff.testing.measures import relative_error

seeds = st.integers(0, 2**32 - 1)
small = st.integers(1, 6)


def case(seed, *shape, out):
    rng = np.random.default_rng(seed)
    return rng.standard_normal(shape), rng.standard_normal((shape[-1], out)), rng.standard_normal(out)


@given(st.lists(small, min_size=1, max_size=4), small, seeds)
def test_linear(check_contract, shape, out, seed):
    x, weight, bias = case(seed, *shape, out=out)
    check_contract("linear", (x,), {"weight": weight, "bias": bias}, seed=seed)
    y, _ = engine.linear(x, weight, bias)
    for place in np.ndindex(y.shape):
        terms = [bias[place[-1]], *x[place[:-1]] * weight[:, place[-1]]]
        assert abs(y[place] - math.fsum(terms)) <= 1e-15 * sum(map(abs, terms))


@given(st.lists(small, min_size=2, max_size=4), small, seeds)
def test_linear_adjoint(shape, out, seed):
    """Without its bias the layer is linear in x, and in the weight."""
    x, weight, bias = case(seed, *shape, out=out)
    ax, saved = engine.linear(x, weight, 0 * bias)
    y = np.random.default_rng(seed + 1).standard_normal(ax.shape)
    dx, g = engine.linear_backward(y, saved)
    scale = np.linalg.norm(x) * np.linalg.norm(weight) * np.linalg.norm(y)
    assert abs(np.vdot(ax, y) - np.vdot(x, dx)) <= 1e-14 * scale
    assert abs(np.vdot(ax, y) - np.vdot(weight, g["weight"])) <= 1e-14 * scale


@given(small, small, small, seeds)
def test_linear_on_an_image_is_the_1x1_convolution(n, size, out, seed):
    x, weight, bias = case(seed, n, size, size + 1, 3, out=out)
    y, _ = engine.conv2d(x, weight[None, None], bias)
    assert relative_error(engine.linear(x, weight, bias)[0], y) <= 1e-13
