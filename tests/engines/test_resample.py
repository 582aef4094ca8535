"""Up-sampling by repetition, down-sampling by averaging, bilinear interpolation, and the mean of all positions."""

import math
from fractions import Fraction

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


@given(small, st.lists(small, max_size=2), small, seeds)
def test_global_average_pool(check_contract, n, positions, c, seed):
    x = np.random.default_rng(seed).standard_normal((n, *positions, c))
    check_contract("global_average_pool", (x,), seed=seed, linear=True)
    y, _ = engine.global_average_pool(x)
    assert y.shape == (n, c)
    for i, j in np.ndindex(n, c):
        values = np.ravel(x[i, ..., j])
        assert abs(y[i, j] - math.fsum(values) / values.size) <= 1e-15 * np.abs(values).sum()


sizes = st.tuples(st.integers(1, 9), st.integers(1, 9))


@given(small, sizes, sizes, small, seeds)
def test_resize_bilinear(check_contract, n, before, after, c, seed):
    """Any size to any other. Each place between two pixel centres, in rational numbers."""
    x = np.random.default_rng(seed).standard_normal((n, *before, c))
    check_contract("resize_bilinear", (x,), seed=seed, linear=True, size=after)
    y, _ = engine.resize_bilinear(x, after)
    assert y.shape == (n, *after, c)

    def taps(i, small, large):
        place = min(max(Fraction(2 * i + 1, 2) * Fraction(small, large) - Fraction(1, 2), 0), small - 1)
        low = math.floor(place)
        return [(low, float(1 - place + low)), (min(low + 1, small - 1), float(place - low))]

    for i, j in np.ndindex(*after):
        expected = sum(
            a * b * x[:, h, w] for h, a in taps(i, before[0], after[0]) for w, b in taps(j, before[1], after[1])
        )
        np.testing.assert_allclose(y[:, i, j], expected, rtol=1e-13, atol=1e-14)


def test_two_pixels_become_four():
    """As PyTorch's interpolate has it with align_corners=False: the edges are held, in between 3/4 and 1/4."""
    x = np.array([10.0, 20.0]).reshape(1, 1, 2, 1)
    assert engine.resize_bilinear(x, (1, 4))[0].ravel().tolist() == [10, 12.5, 17.5, 20]
    assert engine.resize_bilinear(x.reshape(1, 2, 1, 1), (4, 1))[0].ravel().tolist() == [10, 12.5, 17.5, 20]
    both = engine.resize_bilinear(np.array([[0.0, 16.0], [32.0, 48.0]]).reshape(1, 2, 2, 1), (4, 4))[0][0, ..., 0]
    assert both.tolist() == [[0, 4, 12, 16], [8, 12, 20, 24], [24, 28, 36, 40], [32, 36, 44, 48]]


@given(sizes, sizes, seeds)
def test_bilinear_keeps_constants_its_own_size_and_what_lies_between(before, after, seed):
    x = np.random.default_rng(seed).standard_normal((1, *before, 2))
    assert np.array_equal(engine.resize_bilinear(x, before)[0], x)
    y, _ = engine.resize_bilinear(x, after)
    assert x.min() - 1e-15 <= y.min() <= y.max() <= x.max() + 1e-15
    np.testing.assert_allclose(engine.resize_bilinear(np.full((1, *before, 2), 0.7), after)[0], 0.7, rtol=4e-16)


def test_half_the_size_by_bilinear_is_the_mean_of_blocks():
    x = np.random.default_rng(0).standard_normal((2, 6, 4, 3))
    np.testing.assert_allclose(engine.resize_bilinear(x, (3, 2))[0], engine.average_pool(x)[0], rtol=1e-14, atol=1e-15)
