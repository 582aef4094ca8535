"""The likelihood by the probability-flow ODE: against Gaussians, in other libraries and dtypes, and with probes."""

from functools import partial

import numpy as np
import pytest

from refdiff.process import GaussianMixture, flow_log_likelihood, from_beta, linear, predictor
from refdiff.testing.measures import normal_logpdf

SCHEDULE = linear(400, 0.1 / 400, 20 / 400)
DATA = GaussianMixture([0.4, 0.6], [[0.5, -0.5], [-0.6, 0.2]], [[[0.4, 0.1], [0.1, 0.3]], [[0.3, 0.0], [0.0, 0.5]]])
PREDICT = predictor(SCHEDULE, partial(DATA.eps, SCHEDULE))
POINTS = DATA.sample(6, 3)
ALL = range(1, 401)


def standard_normal(x, t):
    """eps expected at x for data N(0, I)."""
    return float(SCHEDULE.one_minus_alpha_bar[t] ** 0.5) * x


def test_the_likelihood_of_a_mixture():
    wanted = DATA.log_density(SCHEDULE, POINTS, 0)
    prior = lambda x: DATA.log_density(SCHEDULE, x, 400)  # noqa: E731
    errors = [
        abs(flow_log_likelihood(SCHEDULE, PREDICT, POINTS, range(1, 401, gap), prior=prior)[:4] - wanted[:4]).max()
        for gap in (3, 1)
    ]
    assert errors[1] <= 1e-3
    assert errors[1] <= errors[0] / 6  # of second order: a ninth
    came = flow_log_likelihood(SCHEDULE, PREDICT, POINTS, ALL)
    assert came.shape == (6,)
    assert abs(came - wanted).max() <= 0.02  # the start is N(0, 1), which x_T is to e^-5 only


@pytest.mark.parametrize("shape", [(3, 1), (3, 4), (2, 2, 1, 2)])
def test_standard_normal_data_of_any_shape(shape):
    x0 = np.random.default_rng(1).standard_normal(shape)
    x0.flags.writeable = False
    came = flow_log_likelihood(SCHEDULE, predictor(SCHEDULE, standard_normal), x0, ALL)
    wanted = normal_logpdf(x0, 0.0, 1.0).reshape(len(x0), -1).sum(axis=1)
    assert abs(came - wanted).max() <= 3e-4 * x0[0].size


def test_the_divergence_is_a_difference_quotient_of_the_best_step():
    from refdiff.process.flow import _axes, _divergence

    x = np.random.default_rng(3).standard_normal((5, 2))
    came = _divergence(lambda x: np.sin(3 * x), x, _axes(x))
    assert abs(came - 3 * np.cos(3 * x).sum(axis=1)).max() <= 2e-9


def test_a_point_at_zero_has_a_likelihood():
    came = flow_log_likelihood(SCHEDULE, predictor(SCHEDULE, standard_normal), np.zeros((1, 2)), ALL)
    assert came == pytest.approx(-np.log(2 * np.pi), abs=1e-3)


def test_the_average_over_all_signs_is_the_exact_divergence():
    signs = np.array([[1.0, 1.0], [1.0, -1.0]])[:, None, :] * np.ones_like(POINTS)
    few = range(1, 401, 7)
    one, other = (flow_log_likelihood(SCHEDULE, PREDICT, POINTS, few, probes) for probes in (None, signs))
    assert abs(one - other).max() <= 1e-8
    assert abs(one - flow_log_likelihood(SCHEDULE, PREDICT, POINTS, few, signs[:1])).max() > 1e-3  # an estimate


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_arrays_of_another_library_keep_library_and_dtype(library, dtype):
    x0 = np.random.default_rng(2).standard_normal((3, 2)).astype(dtype)
    predict, few = predictor(SCHEDULE, standard_normal), range(1, 401, 19)
    for probes in (None, np.ones((1, 3, 2), dtype)):
        came = flow_log_likelihood(
            SCHEDULE, predict, library.asarray(x0), few, probes if probes is None else library.asarray(probes)
        )
        wanted = flow_log_likelihood(SCHEDULE, predict, x0, few, probes)
        assert type(came) is type(library.asarray(0.0))
        assert wanted.dtype == dtype
        assert np.asarray(came).dtype == dtype
        assert abs(np.asarray(came) - wanted).max() <= 100 * np.finfo(dtype).eps ** (2 / 3)
    double = flow_log_likelihood(SCHEDULE, predict, x0.astype(float), few)
    assert abs(flow_log_likelihood(SCHEDULE, predict, x0, few) - double).max() <= 1e-3


@pytest.mark.parametrize(
    ("x0", "probes", "message"),
    [
        (np.ones(3), None, r"x0, probes: expected samples \(N, ...\), .* got \(3,\)"),
        (np.ones((3, 2)), np.ones((3, 2)), r"probes \(M, N, ...\) or None, got \(\(3, 2\), \(3, 2\)\)"),
        (np.ones((3, 2), int), None, "x: expected floating-point numbers, got int64"),
    ],
)
def test_points_and_probes_that_do_not_fit_are_refused(x0, probes, message):
    with pytest.raises(ValueError, match=message):
        flow_log_likelihood(SCHEDULE, PREDICT, x0, ALL, probes)


def test_infinite_sigma_and_steps_that_do_not_rise_are_refused():
    with pytest.raises(ValueError, match="timesteps: expected steps with alpha_bar > 0"):
        flow_log_likelihood(from_beta([0.1, 1.0]), PREDICT, POINTS, [1, 2])
    with pytest.raises(ValueError, match="timesteps: expected at least one, each larger than the last"):
        flow_log_likelihood(SCHEDULE, PREDICT, POINTS, [3, 2])
