"""How wrong a number is: the one relative error of claims, tests and measurements."""

import numpy as np
import pytest

from refdiff.testing.measures import relative_error


def test_the_relative_error_is_that_of_the_norm():
    assert relative_error(np.array([3.0, 4.5]), np.array([3.0, 4.0])) == pytest.approx(0.1)
    assert relative_error({"a": (np.ones(2), np.zeros(2))}, {"a": (np.ones(2), np.zeros(2))}) == 0
    assert relative_error((np.ones(2), np.ones(2)), (np.ones(2), 2 * np.ones(2))) == pytest.approx(0.5)
    assert relative_error(np.ones(2), np.zeros(2)) == np.inf
    assert np.isnan(relative_error((np.ones(2), np.array([np.nan, 1.0])), (np.ones(2), np.ones(2))))
    for other in (np.ones((1, 2)), np.ones(1), (np.ones(2),)):
        with pytest.raises(ValueError, match="expected the shapes"):
            relative_error(other, np.ones(2))


def test_a_scale_stands_in_for_the_size_of_what_is_expected():
    assert relative_error([1.0, 2.0], [1.0, 1.0], scale=[3.0, 4.0]) == pytest.approx(0.2)
    assert relative_error(1.0, 1.0, scale=0.0) == 0
    assert relative_error(1.0, 2.0, scale=0.0) == np.inf
    assert np.isnan(relative_error(np.nan, 2.0, scale=0.0))


def test_arrays_of_single_precision_are_compared_in_double():
    one, off = np.float32(1), np.nextafter(np.float32(1), np.float32(2))
    assert relative_error(np.full(3, off), np.full(3, one)) == 2.0**-23
    assert relative_error(np.array([3 + 4j]), np.array([3 + 5j])) == pytest.approx(34**-0.5)
