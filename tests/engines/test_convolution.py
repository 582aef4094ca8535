"""Two-dimensional convolution."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff.engines import reference as engine
from refdiff.testing.measures import relative_error

seeds = st.integers(0, 2**32 - 1)
channels = st.integers(1, 3)
strides = st.integers(1, 3)


@st.composite
def cases(draw):
    """x, weight and bias; stride and padding: filters of 1 to 5, sizes from the least that fits."""
    kh, kw = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    padding = draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    h, w = (max(1, k - sum(padding)) + draw(st.integers(0, 4)) for k in (kh, kw))
    rng = np.random.default_rng(draw(seeds))
    c_in, c_out = draw(channels), draw(channels)
    x = rng.standard_normal((draw(st.integers(1, 2)), h, w, c_in))
    weight, bias = rng.standard_normal((kh, kw, c_in, c_out)), rng.standard_normal(c_out)
    return x, weight, bias, draw(strides), padding


def defined(x, weight, bias, stride, padding):
    """y[n,h,w,o] = b[o] + sum_{i,j,c} x[n, h s + i - p, w s + j - p, c] W[i,j,c,o], one number at a time."""
    (n, h, w, c_in), (kh, kw, _, c_out) = x.shape, weight.shape
    size = [(length + sum(padding) - k) // stride + 1 for length, k in ((h, kh), (w, kw))]
    y = np.empty((n, *size, c_out))
    for m, row, column, o in np.ndindex(y.shape):
        y[m, row, column, o] = bias[o]
        for i, j, c in np.ndindex(kh, kw, c_in):
            r, s = row * stride + i - padding[0], column * stride + j - padding[0]
            if 0 <= r < h and 0 <= s < w:
                y[m, row, column, o] += x[m, r, s, c] * weight[i, j, c, o]
    return y


def agrees(y, x, weight, bias, stride, padding):
    """Is y the definition? Each number to rounding, of which the sum of the magnitudes of its terms is the measure."""
    size = defined(abs(x), abs(weight), abs(bias), stride, padding)
    return bool(np.all(np.abs(y - defined(x, weight, bias, stride, padding)) <= 1e-15 * size))


@given(cases(), seeds)
def test_conv2d(check_contract, case, seed):
    x, weight, bias, stride, padding = case
    check_contract("conv2d", (x,), {"weight": weight, "bias": bias}, seed=seed, stride=stride, padding=padding)


@given(cases())
def test_conv2d_is_its_definition(case):
    assert agrees(engine.conv2d(*case)[0], *case)


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(6, 8), (5, 7), (1, 2)])
def test_conv2d_without_padding_given(check_contract, k, stride, size):
    """An odd filter then sees the same number of zeros on both sides, and at stride 1 keeps the size."""
    rng = np.random.default_rng(k)
    x, weight, bias = (rng.standard_normal(shape) for shape in ((2, *size, 3), (k, k, 3, 2), (2,)))
    check_contract("conv2d", (x,), {"weight": weight, "bias": bias}, seed=k, stride=stride)
    y, _ = engine.conv2d(x, weight, bias, stride)
    assert y.shape[1:3] == tuple(-(-length // stride) for length in size)
    assert agrees(y, x, weight, bias, stride, (k // 2, k // 2))


@pytest.mark.parametrize("size", [2, 4, 6])
def test_conv2d_halves_an_even_size_as_ddpm_does(size):
    """Stride 2 with zeros after the last row and column alone: the first window begins at the first pixel."""
    rng = np.random.default_rng(size)
    x, weight, bias = (rng.standard_normal(shape) for shape in ((1, size, size, 2), (3, 3, 2, 2), (2,)))
    y, _ = engine.conv2d(x, weight, bias, stride=2, padding=(0, 1))
    assert y.shape == (1, size // 2, size // 2, 2)
    grown = np.concatenate([x, np.full((1, size, 1, 2), 0.0)], axis=2)
    grown = np.concatenate([grown, np.full((1, 1, size + 1, 2), 0.0)], axis=1)
    assert agrees(y, grown, weight, bias, 2, (0, 0))


@given(cases())
def test_conv2d_adjoint(case):
    """Without its bias the convolution is linear in x, and in the weight."""
    x, weight, bias, stride, padding = case
    ax, saved = engine.conv2d(x, weight, 0 * bias, stride, padding)
    y = np.random.default_rng(x.size).standard_normal(ax.shape)
    dx, g = engine.conv2d_backward(y, saved)
    scale = np.linalg.norm(x) * np.linalg.norm(weight) * np.linalg.norm(y)
    assert abs(np.vdot(ax, y) - np.vdot(x, dx)) <= 1e-14 * scale
    assert abs(np.vdot(ax, y) - np.vdot(weight, g["weight"])) <= 1e-14 * scale
    assert abs(y.sum() - g["bias"].sum()) <= 1e-13 * np.abs(y).sum()


@given(cases(), st.integers(0, 3), st.integers(0, 3))
def test_conv2d_is_translation_equivariant(case, down, right):
    """Where no zeros are seen, moving x by a stride of pixels moves y by one."""
    x, weight, bias, stride, _ = case
    kh, kw, *_ = weight.shape
    x = np.random.default_rng(x.size).standard_normal((2, kh + 12, kw + 12, x.shape[3]))
    y, _ = engine.conv2d(x, weight, bias, stride, (0, 0))
    moved, _ = engine.conv2d(x[:, down * stride :, right * stride :], weight, bias, stride, (0, 0))
    assert relative_error(moved, y[:, down:, right:]) <= 1e-13


@given(cases())
def test_conv2d_of_stride_s_is_every_sth_of_stride_1(case):
    x, weight, bias, stride, padding = case
    y, _ = engine.conv2d(x, weight, bias, 1, padding)
    assert relative_error(engine.conv2d(*case)[0], y[:, ::stride, ::stride]) <= 1e-12


def test_conv2d_refuses_what_does_not_fit():
    x = np.random.default_rng(0).standard_normal((1, 4, 4, 2))
    with pytest.raises(AssertionError, match="3 channels, x has 2"):
        engine.conv2d(x, np.ones((3, 3, 3, 1)), np.ones(1))
    for shape in ((2, 2, 2, 1), (3, 1, 2, 1), (4, 4, 2, 1)):
        with pytest.raises(AssertionError, match="padding must be given"):
            engine.conv2d(x, np.ones(shape), np.ones(1))
