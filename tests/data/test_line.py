"""The mixture on the line: a function of seed and index, mean 0, variance 1, and the density that it says it has."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff.data import (
    MIXTURE_1D_DEVIATIONS,
    MIXTURE_1D_MEANS,
    MIXTURE_1D_WEIGHTS,
    Dataset,
    load,
    mixture_1d,
)


@given(n=st.integers(1, 40), start=st.integers(0, 40), seed=st.integers(0, 2**64 - 1))
def test_a_point_depends_on_seed_and_index_alone(n, start, seed):
    x = mixture_1d(n, seed, start)
    assert x.shape == (n, 1)
    assert x.dtype == np.float32
    assert np.array_equal(x, mixture_1d(start + n, seed)[start:])
    assert not np.array_equal(x, mixture_1d(n, (seed + 1) % 2**64, start))


def test_load_gives_disjoint_parts():
    data = load("mixture-1d")
    assert (data.x.shape, data.held_out.shape, data.labels, data.shape) == ((8192, 1), (2048, 1), None, (1,))
    assert np.array_equal(np.concatenate([data.x, data.held_out]), mixture_1d(10240))


def test_mean_is_zero_and_variance_one():
    mean = MIXTURE_1D_WEIGHTS @ MIXTURE_1D_MEANS
    square = MIXTURE_1D_WEIGHTS @ (MIXTURE_1D_MEANS**2 + MIXTURE_1D_DEVIATIONS**2)
    assert abs(mean) < 1e-15
    assert abs(square - 1) < 1e-15
    assert MIXTURE_1D_WEIGHTS.sum() == 1


def test_the_points_have_the_distribution():
    """The largest difference of the two distribution functions is by chance beyond 1.95 / sqrt(n) once in a thousand."""
    x, n = np.sort(mixture_1d(20_000, seed=3)[:, 0].astype(np.float64)), 20_000
    z = (x[:, None] - MIXTURE_1D_MEANS) / MIXTURE_1D_DEVIATIONS
    below = 0.5 + 0.5 * np.vectorize(math.erf)(z / 2**0.5)
    assert np.abs(below @ MIXTURE_1D_WEIGHTS - (np.arange(n) + 0.5) / n).max() < 1.95 / n**0.5


@pytest.mark.parametrize("n", [0, -1, 2.5])
def test_no_points(n):
    with pytest.raises(ValueError, match="n: expected a positive integer"):
        mixture_1d(n)


def test_points_have_any_dimension_but_none():
    for d in (1, 2, 7):
        x = np.random.default_rng(d).standard_normal((5, d)).astype(np.float32)
        assert Dataset("points", x, None, x[:2], None).shape == (d,)
    with pytest.raises(ValueError, match=r"x: expected images .*, or points \(N, D\), got shape \(5, 0\); reshape it"):
        Dataset("points", x[:, :0], None, x[:2, :0], None)
