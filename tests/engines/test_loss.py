"""The mean squared error."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff.engines import reference as engine

seeds = st.integers(0, 2**32 - 1)
shapes = st.lists(st.integers(1, 5), min_size=1, max_size=4)


@given(shapes, seeds)
def test_mean_squared_error(check_contract, shape, seed):
    x, target = np.random.default_rng(seed).standard_normal((2, *shape))
    check_contract("mean_squared_error", (x,), seed=seed, target=target)
    loss, _ = engine.mean_squared_error(x, target)
    assert loss == pytest.approx(math.fsum(((x - target) ** 2).ravel()) / x.size, rel=1e-14)


@given(shapes, seeds)
def test_mean_squared_error_of_equals_is_zero_and_so_is_its_gradient(shape, seed):
    x = np.random.default_rng(seed).standard_normal(shape)
    loss, saved = engine.mean_squared_error(x, x)
    assert loss == 0
    assert not engine.mean_squared_error_backward(1.0, saved).any()


def test_one_as_a_number_of_python_keeps_float32():
    x, target = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
    loss, saved = engine.mean_squared_error(x, target)
    dx = engine.mean_squared_error_backward(1.0, saved)
    assert loss.dtype == dx.dtype == np.float32
    np.testing.assert_allclose(dx, (x - target) / 6, rtol=1e-6)


def test_mean_squared_error_refuses_to_broadcast():
    with pytest.raises(AssertionError, match="mean_squared_error"):
        engine.mean_squared_error(np.ones((3, 1)), np.ones((3, 3)))
