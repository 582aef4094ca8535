"""The hierarchies on the mixture on the line: where they begin, their exact density, and that a bound stays above it."""

import numpy as np
import pytest

from benchmarks.gallery.hierarchy import (
    LEFT,
    bounds_by_levels,
    first_state,
    hierarchy,
    log_density,
    true_log_density,
)
from refdiff.data import load
from refdiff.process import GaussianMixture, linear
from refdiff.testing.measures import normal_logpdf
from refdiff.training import State, system_model


def test_the_encoders_begin_as_the_forward_process():
    for levels in (1, 2, 4):
        p = first_state(hierarchy(levels)).trees["p"]
        mean, variance = 1.0, 0.0
        for l in range(1, levels + 1):
            layer = p[f"encoder{l}"]["linear0"]
            (root, slope), (shift, log_beta) = layer["weight"][0], layer["bias"]
            assert (slope, shift) == (0, 0)
            assert root**2 + np.exp(log_beta) == pytest.approx(1, abs=1e-6)
            mean, variance = root * mean, root**2 * variance + np.exp(log_beta)
        assert (mean**2, variance) == pytest.approx((LEFT, 1 - LEFT), abs=1e-6)


@pytest.mark.parametrize("levels", [1, 2, 4])
def test_the_density_of_linear_decoders_is_the_gaussian_that_it_is(levels):
    """Each z_{l-1} = a z_l + b + e^(c/2) eps."""
    config, rng = hierarchy(levels, hidden=()), np.random.default_rng(levels)
    weights, mean, variance = State.first(config).trees["p"], 0.0, 1.0
    for l in range(levels, 0, -1):
        a, b, c = rng.uniform(0.5, 1), rng.normal(), rng.uniform(-2, 0)
        parts = [(a, b)] if l == 1 else [(a, b), (0.0, c)]
        layer = {"weight": np.float32([[w for w, _ in parts]]), "bias": np.float32([s for _, s in parts])}
        weights[f"decoder{l}"] = {"linear0": layer}
        mean, variance = a * mean + b, a**2 * variance + (np.exp(c) if l > 1 else np.exp(-3))
    model = system_model(config, State.first(config, weights))
    x = np.linspace(-3, 3, 11)[:, None]
    assert np.abs(log_density(model, x) - normal_logpdf(x[:, 0], mean, variance)).max() < 1e-5


def test_the_density_of_the_mixture_is_the_one_that_is_drawn_from():
    from refdiff.data import MIXTURE_1D_DEVIATIONS, MIXTURE_1D_MEANS, MIXTURE_1D_WEIGHTS

    x = load("mixture-1d").x[:100].astype(np.float64)
    covariances = MIXTURE_1D_DEVIATIONS[:, None, None] ** 2
    exact = GaussianMixture(MIXTURE_1D_WEIGHTS, MIXTURE_1D_MEANS[:, None], covariances)
    assert np.abs(true_log_density(x) - exact.log_density(linear(10), x, 0)).max() < 1e-12


def test_a_bound_is_above_the_models_own_density_and_that_above_the_entropy():
    found = bounds_by_levels((2,), hidden=(8,), steps=5)
    of = found["2"]
    assert of["bound"] - 4 * of["bound_error"] > of["minus_log_p"] > found["true"]
    assert of["gap"] == pytest.approx(of["bound"] - of["minus_log_p"], abs=1e-12)
