"""SiLU, the two forms of GELU, ReLU, softplus and exp(x) - 1."""

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff.engines import reference as engine
from refdiff.engines.reference.activation import sigmoid

seeds = st.integers(0, 2**32 - 1)
shapes = st.lists(st.integers(1, 4), max_size=3).map(lambda shape: (*shape, 8))
scales = st.sampled_from([0.01, 1.0, 4.0])
SMOOTH = ["silu", "gelu", "gelu_tanh"]
names = st.sampled_from(SMOOTH)

mpmath.mp.dps = 50


def silu(x):
    return x / (1 + mpmath.exp(-x))


def gelu(x):
    return x * (1 + mpmath.erf(x / mpmath.sqrt(2))) / 2


def gelu_tanh(x):
    return x * (1 + mpmath.tanh(mpmath.sqrt(2 / mpmath.pi) * (x + mpmath.mpf("0.044715") * x**3))) / 2


EXACT = {"silu": silu, "gelu": gelu, "gelu_tanh": gelu_tanh}


@given(st.sampled_from([*SMOOTH, "relu"]), shapes, scales, seeds)
def test_activation(check_contract, name, shape, scale, seed):
    check_contract(name, (scale * np.random.default_rng(seed).standard_normal(shape),), seed=seed)


@given(st.sampled_from(["softplus", "expm1"]), shapes, scales, seeds)
def test_softplus_and_expm1(check_contract, name, shape, scale, seed):
    check_contract(name, (scale * np.random.default_rng(seed).standard_normal(shape),), seed=seed)


RELATIVE = {
    "softplus": lambda x: mpmath.log1p(mpmath.exp(x)),
    "expm1": mpmath.expm1,
}


@pytest.mark.parametrize("name", RELATIVE)
def test_small_values_have_all_their_digits(name):
    """Each value and each derivative relative to itself, of arguments from 1e-12 to 700 on both sides of 0."""
    x = np.concatenate([sign * np.logspace(-12, np.log10(700), 60) for sign in (-1, 1)])
    y, saved = getattr(engine, name)(x)
    dx = getattr(engine, f"{name}_backward")(np.ones_like(x), saved)
    slopes = {"softplus": lambda x: 1 / (1 + mpmath.exp(-x)), "expm1": mpmath.exp}
    for x_i, y_i, dx_i in zip(map(mpmath.mpf, x.tolist()), y.tolist(), dx.tolist(), strict=True):
        assert abs(y_i / RELATIVE[name](x_i) - 1) <= 2e-15 * (1 + abs(x_i) / 100)
        if name != "expm1" or x_i > -30:  # its y + 1 is absolute
            assert abs(dx_i / slopes[name](x_i) - 1) <= (4e-15 if name != "expm1" else 4e-16 * (1 + mpmath.exp(-x_i)))


@given(scales, seeds)
def test_softplus_and_the_sigmoid_have_their_mirror_images(scale, seed):
    """s(x) + s(-x) = 1;  softplus(x) - softplus(-x) = x;  s = exp(-softplus(-x));  the derivative of softplus is s."""
    x = scale * np.random.default_rng(seed).standard_normal(50)
    s, (plus, saved), (minus, _) = sigmoid(x), engine.softplus(x), engine.softplus(-x)
    np.testing.assert_allclose(s + sigmoid(-x), 1, rtol=1e-15)
    np.testing.assert_allclose(plus - minus, x, rtol=1e-14, atol=1e-15)
    np.testing.assert_allclose(np.exp(-minus), s, rtol=1e-14)
    assert np.array_equal(engine.softplus_backward(np.ones_like(x), saved), s)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_softplus_of_large_numbers_neither_overflows_nor_warns(dtype):
    x = np.array([1e4, 700, -700, -1e4], dtype)
    plus, saved = engine.softplus(x)
    np.testing.assert_allclose(plus, np.maximum(x, 0), rtol=1e-6, atol=1e-300)
    np.testing.assert_allclose(engine.softplus_backward(np.ones_like(x), saved), x > 0, atol=1e-300)
    for name in RELATIVE:
        assert np.isnan(getattr(engine, name)(np.array([np.nan], dtype))[0]).all()


@given(names, st.sampled_from([0.01, 1, 3, 10]), seeds)
def test_values_and_derivatives_against_50_digits(name, scale, seed):
    """Values and derivatives are exact but for rounding; 1e-14 of an x of up to about 30."""
    f = EXACT[name]
    x = scale * np.random.default_rng(seed).standard_normal(10)
    y, saved = getattr(engine, name)(x)
    dx = getattr(engine, f"{name}_backward")(np.ones_like(x), saved)
    for x_i, y_i, dx_i in zip(map(mpmath.mpf, x.tolist()), y.tolist(), dx.tolist(), strict=True):
        assert abs(y_i - f(x_i)) <= 1e-14 * max(1, abs(x_i))
        assert abs(dx_i - mpmath.diff(f, x_i)) <= 1e-14 * max(1, abs(x_i))


def test_erf_is_right_and_smooth_where_it_is_cut_off():
    """GELU's error function is an integral below |x| / sqrt 2 = 6, and 1 beyond."""
    edge = 6 * 2**0.5
    x = np.concatenate(
        [np.linspace(-10, 10, 401), edge + np.linspace(-1e-6, 1e-6, 21), -edge + np.linspace(-1e-6, 1e-6, 21)]
    )
    y, _ = engine.gelu(x)
    exact = np.array([float(gelu(mpmath.mpf(x_i))) for x_i in x.tolist()])
    assert np.max(np.abs(y - exact) / np.maximum(1, np.abs(x))) <= 2e-15


@pytest.mark.parametrize("name", [*SMOOTH, "relu"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_numbers_neither_overflows_nor_warns(name, dtype):
    """x for x far above 0, 0 far below; derivatives 1 and 0. (A warning is an error in these tests.)"""
    x = np.array([1e4, 700, 89, -89, -700, -1e4], dtype)
    y, saved = getattr(engine, name)(x)
    dx = getattr(engine, f"{name}_backward")(np.ones_like(x), saved)
    np.testing.assert_allclose(y, np.maximum(x, 0), rtol=1e-6, atol=1e-30)
    np.testing.assert_allclose(dx, x > 0, rtol=1e-6, atol=1e-30)


@given(seeds)
def test_they_are_x_less_their_mirror_image(seed):
    """f(x) - f(-x) = x, since the factor of x is a distribution function symmetric about 0, ReLU's a step."""
    x = 3 * np.random.default_rng(seed).standard_normal(50)
    for name in [*EXACT, "relu"]:
        f = getattr(engine, name)
        np.testing.assert_allclose(f(x)[0] - f(-x)[0], x, rtol=1e-14, atol=1e-14)


def test_the_two_forms_of_gelu_are_near_but_not_the_same():
    x = np.linspace(-4, 4, 201)
    difference = np.max(np.abs(engine.gelu(x)[0] - engine.gelu_tanh(x)[0]))
    assert 1e-4 < difference < 1e-3


def test_nan_stays_nan():
    for name in [*EXACT, "relu"]:
        assert np.isnan(getattr(engine, name)(np.array([np.nan, 1.0]))[0]).tolist() == [True, False]


def test_relu_is_what_it_says_and_a_second_one_changes_nothing():
    """At 0 the derivative is 0, as is that of what is already 0; no gradient is multiplied by what it does not pass."""
    x = np.array([-np.inf, -2.0, -1e-300, -0.0, 0.0, 1e-300, 0.5, np.inf])
    y, saved = engine.relu(x)
    assert y.tolist() == [0, 0, 0, 0, 0, 1e-300, 0.5, np.inf]
    assert not np.signbit(y).any()
    assert np.array_equal(engine.relu(y)[0], y)
    assert engine.relu_backward(np.full(8, np.inf), saved).tolist() == [0] * 5 + [np.inf] * 3
