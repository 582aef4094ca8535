"""Up-sampling by repetition and down-sampling by averaging."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff.engines import reference as engine

seeds = st.integers(0, 2**32 - 1)
small = st.integers(1, 4)


@given(small, small, small, small, seeds)
def test_upsample_nearest(check_contract, n, h, w, c, seed):
    x = np.random.default_rng(seed).standard_normal((n, h, w, c))
    check_contract("upsample_nearest", (x,), seed=seed, linear=True)
    y, _ = engine.upsample_nearest(x)
    assert y.shape == (n, 2 * h, 2 * w, c)
    assert all(np.array_equal(y[:, i, j], x[:, i // 2, j // 2]) for i, j in np.ndindex(2 * h, 2 * w))


@given(small, small, small, small, seeds)
def test_average_pool(check_contract, n, h, w, c, seed):
    x = np.random.default_rng(seed).standard_normal((n, 2 * h, 2 * w, c))
    check_contract("average_pool", (x,), seed=seed, linear=True)
    y, _ = engine.average_pool(x)
    assert y.shape == (n, h, w, c)
    for i, j in np.ndindex(h, w):
        block = [x[:, 2 * i + a, 2 * j + b] for a in (0, 1) for b in (0, 1)]
        np.testing.assert_allclose(y[:, i, j], sum(block) / 4, rtol=1e-14, atol=1e-15)


@given(small, small, small, seeds)
def test_each_is_the_adjoint_of_the_other_up_to_4(n, h, w, seed):
    """<up x, y> = 4 <x, pool y>; summing down is the adjoint of up-sampling; and averaging undoes repeating."""
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((n, h, w, 3)), rng.standard_normal((n, 2 * h, 2 * w, 3))
    up, pooled = engine.upsample_nearest(x)[0], engine.average_pool(y)[0]
    scale = np.linalg.norm(up) * np.linalg.norm(y)
    assert abs(np.vdot(up, y) - 4 * np.vdot(x, pooled)) <= 1e-14 * scale
    np.testing.assert_allclose(engine.upsample_nearest_backward(y, None), 4 * pooled, rtol=1e-14, atol=1e-14)
    np.testing.assert_allclose(engine.average_pool_backward(x, None), up / 4, rtol=1e-15)
    np.testing.assert_allclose(engine.average_pool(up)[0], x, rtol=1e-15)


@pytest.mark.parametrize("shape", [(1, 3, 4, 2), (1, 4, 3, 2)])
def test_average_pool_refuses_an_odd_size(shape):
    with pytest.raises(AssertionError, match="even sizes"):
        engine.average_pool(np.ones(shape))
