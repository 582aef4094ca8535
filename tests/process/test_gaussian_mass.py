"""Tails and short intervals of the normal distribution against mpmath: logarithms of masses, and means over them."""

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff.process.gaussian_mass import interval, real, scaled_tail, tail

mpmath.mp.dps = 50


def above(z):
    return mpmath.erfc(z / mpmath.sqrt(2)) / 2


def density(z):
    return mpmath.exp(-z * z / 2) / mpmath.sqrt(2 * mpmath.pi)


def close(actual, expected, bound, scale=0.0):
    error = abs(mpmath.mpf(float(actual)) - expected)
    assert error <= bound * (abs(expected) + scale) + 1e-300, (actual, expected)


@given(st.floats(0, 12) | st.floats(0, 1e-3) | st.floats(12, 500))
def test_the_scaled_tail_is_mpmaths(x):
    expected = mpmath.exp(mpmath.mpf(x) ** 2) * mpmath.erfc(x)
    close(scaled_tail(np.array([x]))[0], expected, 1e-15)


def test_the_scaled_tail_falls_like_its_asymptote_far_out():
    x = np.array([1e4, 1e30, 1e120])
    assert np.abs(scaled_tail(x) * x * np.sqrt(np.pi) - 1).max() < 1e-8  # 1 - 1 / (2 x^2)


@given(st.floats(-8, 30) | st.floats(30, 1000))
def test_a_tails_log_mass_and_means_are_mpmaths(a):
    z = mpmath.mpf(a)
    mass = above(z) if a > -3 else 1 - above(-z)
    log_mass, mean, square = (part[0] for part in tail(np.array([a])))
    # The exponent of a tail all but 1 is a^2 / 2, of which a last digit is lost.
    close(log_mass, mpmath.log(mass), 1e-14)
    close(mean, density(z) / mass, 1e-14)
    close(square, z * density(z) / mass, 1e-14)


@given(st.floats(0, 30), st.floats(-9, 3))
def test_an_intervals_log_mass_and_means_are_mpmaths(c, log_width):
    w = float(np.exp(log_width))
    a, b = c - w, c + w
    low, high = mpmath.mpf(a), mpmath.mpf(b)
    mass = above(low) - above(high)
    mean = (density(low) - density(high)) / mass
    square = (low * density(low) - high * density(high)) / mass
    actual = [part[0] for part in interval(np.array([a]), np.array([b]), np.array([w]))]
    # b - a is 2 w to rounding only, which counts as log mass where the interval is short.
    rounding = (1 + c) / w
    close(actual[0], mpmath.log(mass), 1e-15, 10 * rounding)
    close(actual[1], mean, 1e-15, 10 * (1 + c) * (1 + rounding))
    close(actual[2], square, 1e-15, 10 * (1 + c) ** 2 * (1 + rounding))


@pytest.mark.parametrize("c", [0.0, 0.3, 2.0, 40.0])
@pytest.mark.parametrize("w", [1e-3, 0.4, 1.4, 1.42, 3.0])
def test_an_interval_is_right_on_both_sides_of_every_seam(c, w):
    # Dyadic ends, so that nothing is rounded on the way in.
    w, c = round(w * 1024) / 1024 or 1 / 1024, round(c * 1024) / 1024
    low, high = mpmath.mpf(c - w), mpmath.mpf(c + w)
    mass = above(low) - above(high)
    actual = [part[0] for part in interval(np.array([c - w]), np.array([c + w]), np.array([w]))]
    close(actual[0], mpmath.log(mass), 2e-15, 1)
    close(actual[1], (density(low) - density(high)) / mass, 2e-15, w)
    close(actual[2], (low * density(low) - high * density(high)) / mass, 2e-15, 1)


def test_both_are_analytic():
    # The derivative of log mass by its ends is the density over the mass.
    a, b, h = np.array([-1.3, 0.2, 2.0, 5.0]), np.array([2.0, 0.4, 9.0, 5.1]), 1e-30
    for edge, da, db in ((a, 1, 0), (b, 0, 1)):
        w = (b + db * 1j * h - a - da * 1j * h) / 2
        derivative = interval(a + da * 1j * h, b + db * 1j * h, w)[0].imag / h
        log_mass = interval(a, b, (b - a) / 2)[0]
        expected = (db - da) * np.exp(-0.5 * edge**2 - 0.5 * np.log(2 * np.pi) - log_mass)
        assert np.abs(derivative - expected).max() <= 1e-13 * np.abs(expected).max()
    derivative = tail(a + 1j * h)[0].imag / h
    assert np.abs(derivative + tail(a)[1]).max() < 1e-14


def test_a_real_part_of_a_real_array_is_the_array():
    x = np.array([1.0, -2.0])
    assert real(x) is x
    assert np.array_equal(real(x + 3j), x)


def test_nothing_is_nan_where_numbers_get_huge_or_tiny():
    z = np.array([0.0, 1e-300, 1e-10, 1.0, 1e5, 1e100, 1e140])
    for part in (*tail(z), *tail(-z[:5])):
        assert np.isfinite(part).all()
    for a in z:
        for w in (1e-200, 1e-3, 1.0, 1e3, 1e140):
            for part in interval(np.array([a - w]), np.array([a + w]), np.array([w])):
                assert not np.isnan(part).any()
