"""The likelihood by the probability-flow ODE: on every schedule, in other libraries and dtypes, and with probes."""

import warnings
from functools import partial

import numpy as np
import pytest

from refdiff.process import (
    SCHEDULES,
    GaussianMixture,
    cosine,
    flow_log_likelihood,
    from_beta,
    linear,
    ode_likelihood,
    predictor,
    rescale_zero_terminal_snr,
    trailing_steps,
    uniform_steps,
)
from refdiff.process.ode_likelihood import divergence_and_squares, unit_vectors
from refdiff.testing.measures import normal_logpdf
from refdiff.testing.orders import PLANE, even_log_sigma, order

SCHEDULE = linear(400, 0.1 / 400, 20 / 400)
DATA = GaussianMixture([0.4, 0.6], [[0.5, -0.5], [-0.6, 0.2]], [[[0.4, 0.1], [0.1, 0.3]], [[0.3, 0.0], [0.0, 0.5]]])
SPIKE = GaussianMixture([1.0], [[0.3]], [[[0.04]]])
PREDICT = predictor(SCHEDULE, partial(DATA.eps, SCHEDULE))
POINTS = DATA.sample(6, 3)
ALL = range(1, 401)


def standard_normal(x, t):
    """eps expected at x for data N(0, I)."""
    return float(SCHEDULE.one_minus_alpha_bar[t] ** 0.5) * x


def error(schedule, data, x0, timesteps=None, probes=None):
    """Of log p(x_0), the largest over points, from the true density of the last x; eps in x0's dtype."""
    steps = range(1, schedule.T + 1) if timesteps is None else timesteps
    got = flow_log_likelihood(
        schedule,
        lambda x, t: (None, data.eps(schedule, x, t).astype(x.dtype)),
        x0,
        steps,
        probes,
        lambda x: data.log_density(schedule, x, int(steps[-1])).astype(x.dtype),
    )
    assert got.dtype == x0.dtype
    return float(abs(got - data.log_density(schedule, x0, 0)).max())


# --- narrow Gaussian data, for which steps of any length are exact ---

X = np.array([[0.3], [0.1], [0.55], [-0.4], [1.0]])  # up to 3.5 standard deviations away


@pytest.mark.parametrize(("dtype", "bound"), [("float64", 1e-8), ("float32", 1e-3)])
@pytest.mark.parametrize("zero", [False, True], ids=["", "zero terminal SNR"])
@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_narrow_data_on_every_schedule(name, zero, dtype, bound):
    schedule = SCHEDULES[name](1000 if dtype == "float64" else 300)
    schedule = rescale_zero_terminal_snr(schedule) if zero else schedule
    a2, s2 = schedule.alpha_bar.tolist(), schedule.one_minus_alpha_bar.tolist()

    def predict(x, t):
        return None, s2[t] ** 0.5 / (a2[t] * 0.04 + s2[t]) * (x - a2[t] ** 0.5 * 0.3)

    def prior(x):
        return normal_logpdf(x[:, 0], a2[-1] ** 0.5 * 0.3, a2[-1] * 0.04 + s2[-1]).astype(dtype)

    got = flow_log_likelihood(schedule, predict, X.astype(dtype), range(1, schedule.T + 1), prior=prior)
    assert got.dtype == dtype
    assert abs(got - normal_logpdf(X[:, 0], 0.3, 0.04)).max() <= bound


@pytest.mark.parametrize("name", sorted(SCHEDULES))
@pytest.mark.parametrize("T", [1, 2, 3, 20])
def test_narrow_data_on_few_steps(name, T):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # exact it is, but nobody could tell from so few steps
        assert error(SCHEDULES[name](T), SPIKE, X) <= 1e-4
        if T > 1:
            assert error(rescale_zero_terminal_snr(SCHEDULES[name](T)), SPIKE, X) <= 1e-4


@pytest.mark.parametrize("beta", [1e-10, 1e-6])
@pytest.mark.parametrize("T", [1, 2, 40])
def test_the_smallest_beta(beta, T):
    for data in (SPIKE, PLANE):
        x0 = data.sample(5, 2)
        assert error(from_beta(np.full(T, beta)), data, x0) <= 1e-10
        assert error(from_beta(np.full(T, beta)), data, x0.astype(np.float32)) <= 3e-5


def test_respaced_schedules_and_coarse_steps():
    schedule = cosine()
    steps = uniform_steps(1000, 50)  # by a rule in sigma alone, an error of 310 nats
    assert error(schedule, SPIKE, X, steps) <= 1e-8
    assert error(schedule.respaced(steps), SPIKE, X) <= 1e-8


def test_data_that_are_wide_or_of_unequal_widths():
    wide = GaussianMixture([1.0], [[40.0]], [[[900.0]]])
    assert error(cosine(100), wide, wide.sample(5)) <= 1e-6
    unequal = GaussianMixture([1.0], [[0.3, -0.2, 0.1]], [np.diag([0.04, 0.3, 2.0])])
    assert error(cosine(300), unequal, unequal.sample(5)) <= 1e-3


# --- mixtures ---


@pytest.mark.parametrize("zero", [False, True], ids=["", "zero terminal SNR"])
@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_a_mixture_on_every_schedule(name, zero):
    schedule = rescale_zero_terminal_snr(SCHEDULES[name](250)) if zero else SCHEDULES[name](250)
    assert error(schedule, PLANE, PLANE.sample(6, 1)) <= (2e-3 if name == "constant" else 5e-4)  # its sigma_1 is 0.14


def test_the_rule_is_of_second_order():
    schedule, x0 = even_log_sigma(), PLANE.sample(8, 5)
    errors = [error(schedule, PLANE, x0, range(1, 1026, gap)) for gap in (16, 8, 4)]
    assert errors[-1] <= 5e-3
    assert abs(order(errors) - 2) <= 0.2
    errors = [error(cosine(T), PLANE, x0) for T in (100, 200)]
    assert abs(order(errors) - 2) <= 0.2


def test_the_likelihood_of_a_mixture_from_the_normal_prior():
    expected = DATA.log_density(SCHEDULE, POINTS, 0)
    got = flow_log_likelihood(SCHEDULE, PREDICT, POINTS, ALL)
    assert got.shape == (6,)
    assert abs(got - expected).max() <= 0.02  # the start is N(0, 1), which x_T is to e^-5 only


@pytest.mark.parametrize("shape", [(3, 1), (3, 4), (2, 2, 1, 2)])
def test_standard_normal_data_of_any_shape(shape):
    x0 = np.random.default_rng(1).standard_normal(shape)
    x0.flags.writeable = False
    got = flow_log_likelihood(SCHEDULE, predictor(SCHEDULE, standard_normal), x0, ALL)
    expected = normal_logpdf(x0, 0.0, 1.0).reshape(len(x0), -1).sum(axis=1)
    assert abs(got - expected).max() <= 1e-8 * x0[0].size


def test_a_point_at_zero_has_a_likelihood():
    got = flow_log_likelihood(SCHEDULE, predictor(SCHEDULE, standard_normal), np.zeros((1, 2)), ALL)
    assert got == pytest.approx(-np.log(2 * np.pi), abs=1e-8)


# --- probes, libraries, dtypes ---


def test_the_divergence_is_a_difference_quotient_of_the_best_step():
    x = np.random.default_rng(3).standard_normal((5, 2))
    divergence, squares = divergence_and_squares(lambda x: np.sin(3 * x), x, unit_vectors(x))
    assert abs(divergence - 3 * np.cos(3 * x).sum(axis=1)).max() <= 2e-9
    assert abs(squares - 9 * (np.cos(3 * x) ** 2).sum(axis=1)).max() <= 2e-8


def test_the_average_over_all_signs_is_the_exact_divergence():
    signs = np.array([[1.0, 1.0], [1.0, -1.0]])[:, None, :] * np.ones_like(POINTS)
    few = range(1, 401, 7)
    one, other = (flow_log_likelihood(SCHEDULE, PREDICT, POINTS, few, probes) for probes in (None, signs))
    assert abs(one - other).max() <= 1e-8
    assert abs(one - flow_log_likelihood(SCHEDULE, PREDICT, POINTS, few, signs[:1])).max() > 1e-3  # an estimate


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_probes_estimate_without_bias_on_every_schedule(name):
    """In eight dimensions with full covariances: the mean over all 128 choices of signs, each alone."""
    root = 0.3 * np.random.default_rng(4).standard_normal((8, 8))
    data = GaussianMixture([1.0], [np.linspace(-0.5, 0.5, 8)], [root @ root.T + 0.2 * np.eye(8)])
    schedule, x0 = SCHEDULES[name](), np.repeat(data.sample(1, 6), 128, axis=0)
    signs = np.array([[1 - 2 * (i >> bit & 1) for bit in range(8)] for i in range(128)], float)
    steps = np.unique(np.r_[1:12, uniform_steps(1000, 60)])
    predict = predictor(schedule, partial(data.eps, schedule))
    prior = partial(data.log_density, schedule)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        each = flow_log_likelihood(schedule, predict, x0, steps, signs[None], prior=lambda x: prior(x, 1000))
        exact = flow_log_likelihood(schedule, predict, x0[:1], steps, prior=lambda x: prior(x, 1000))
    assert each.std() > 0.1
    assert abs(each.mean() - exact[0]) <= 0.02


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_arrays_of_another_library_keep_library_and_dtype(library, dtype):
    x0 = np.random.default_rng(2).standard_normal((3, 2)).astype(dtype)
    predict, few = predictor(SCHEDULE, standard_normal), range(1, 401, 19)
    for probes in (None, np.ones((1, 3, 2), dtype)):
        got = flow_log_likelihood(
            SCHEDULE, predict, library.asarray(x0), few, probes if probes is None else library.asarray(probes)
        )
        expected = flow_log_likelihood(SCHEDULE, predict, x0, few, probes)
        assert type(got) is type(library.asarray(0.0))
        assert expected.dtype == dtype
        assert np.asarray(got).dtype == dtype
        assert abs(np.asarray(got) - expected).max() <= 100 * np.finfo(dtype).eps ** (2 / 3)
    double = flow_log_likelihood(SCHEDULE, predict, x0.astype(float), few)
    assert abs(flow_log_likelihood(SCHEDULE, predict, x0, few) - double).max() <= 1e-3


# --- steps that are too large ---

TOO_LARGE = "timesteps: expected steps that err by at most 0.01 nats an element, got about .* "


@pytest.mark.parametrize("n", [3, 5, 8, 12])
@pytest.mark.parametrize("select", [uniform_steps, trailing_steps])
def test_too_few_steps_are_warned_of(n, select):
    with pytest.warns(UserWarning, match=TOO_LARGE + "take more steps there"):
        got = error(cosine(), PLANE, PLANE.sample(6, 1), select(1000, n))
    assert got > 0.01


@pytest.mark.parametrize("n", [50, 100, 200])
def test_the_estimated_error_is_the_error(n):
    estimates = []

    class Told(ode_likelihood.ErrorOfSteps):
        def message(self, tolerance):
            said = super().message(tolerance)
            estimates.append(self.sum)
            return said

    x0, schedule, steps = PLANE.sample(6, 1), cosine(), trailing_steps(1000, n)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ode_likelihood, "ErrorOfSteps", Told)
        predict = predictor(schedule, partial(PLANE.eps, schedule))
        got = flow_log_likelihood(schedule, predict, x0, steps, prior=lambda x: PLANE.log_density(schedule, x, 1000))
    true = got - PLANE.log_density(schedule, x0, 0)
    assert abs(estimates[0] - true).max() <= 0.3 * abs(true).max()


def test_the_worst_step_is_named():
    steps = np.r_[1:300, 700:1001]
    with pytest.warns(UserWarning, match=TOO_LARGE + "the step between t = 299 and 700 alone .* take more steps"):
        assert error(cosine(), PLANE, PLANE.sample(6, 1), steps) > 0.1
    with pytest.warns(UserWarning, match="the step between t = 0 and 1 .* take a schedule with smaller steps there"):
        error(cosine(2), PLANE, PLANE.sample(6, 1)[3:4])


def test_a_single_step_is_believed_only_if_small():
    narrow = GaussianMixture([0.5, 0.5], [[-0.4], [0.5]], [[[0.01]], [[0.02]]])
    with pytest.warns(UserWarning, match="step between t = 0 and 1 alone"):
        assert error(from_beta([0.1]), narrow, narrow.sample(6, 1)) > 0.01
    assert error(from_beta([1e-4]), narrow, narrow.sample(6, 1)) <= 1e-3
    with pytest.warns(UserWarning, match="step between t = 1 and 2 alone"):  # to pure noise at once
        assert error(from_beta([1e-4, 1.0]), narrow, narrow.sample(6, 1)) > 0.1


def test_data_without_a_density_have_an_infinite_error():
    point = GaussianMixture([1.0], [[0.3]], [[[0.0]]])
    schedule = cosine(50)
    with pytest.warns(UserWarning, match="got about inf for sample 0, the step between t = 0 and 1 alone inf"):
        flow_log_likelihood(
            schedule, predictor(schedule, partial(point.eps, schedule)), np.full((2, 1), 0.3), range(1, 51)
        )


def test_a_model_that_is_not_finite_is_warned_of():
    with pytest.warns(UserWarning, match="got about inf"):
        flow_log_likelihood(SCHEDULE, lambda x, t: (x, x * (np.nan if t == 20 else 1)), POINTS, range(1, 41))


def test_the_tolerance_is_the_callers():
    steps = uniform_steps(1000, 50)
    schedule, x0 = cosine(), PLANE.sample(6, 1)
    predict = predictor(schedule, partial(PLANE.eps, schedule))
    flow_log_likelihood(schedule, predict, x0, steps)
    with pytest.warns(UserWarning, match="at most 1e-06 nats"):
        flow_log_likelihood(schedule, predict, x0, steps, tolerance=1e-6)


# --- refusals ---


@pytest.mark.parametrize(
    ("x0", "probes", "message"),
    [
        (np.ones(3), None, r"x0, probes: expected samples \(N, ...\), .* got \(3,\)"),
        (np.ones((3, 2)), np.ones((3, 2)), r"probes \(M, N, ...\) or None, got \(\(3, 2\), \(3, 2\)\)"),
        (np.ones((3, 2)), np.ones(()), r"probes \(M, N, ...\) or None, got \(\(3, 2\), \(\)\)"),
        (np.ones((3, 2), int), None, "^x0: expected floating-point numbers, got int64"),
        (np.ones((3, 2), np.float16), None, "x0: expected float32 or float64, .* got float16"),
        (np.ones((3, 2), complex), None, "x0: expected float32 or float64, .* got complex128"),
    ],
)
def test_points_and_probes_that_do_not_fit_are_refused(x0, probes, message):
    with pytest.raises(ValueError, match=message):
        flow_log_likelihood(SCHEDULE, PREDICT, x0, ALL, probes)


def test_noise_alone_and_steps_that_do_not_rise_are_refused():
    with pytest.raises(ValueError, match="timesteps: expected a step with alpha_bar > 0 first, got t = 2"):
        flow_log_likelihood(from_beta([0.1, 1.0]), PREDICT, POINTS, [2])
    with pytest.raises(ValueError, match="timesteps: expected a step with alpha_bar > 0 first, got t = 1"):
        flow_log_likelihood(from_beta([1.0]), PREDICT, POINTS, [1])
    with pytest.raises(ValueError, match="timesteps: expected at least one, each larger than the last"):
        flow_log_likelihood(SCHEDULE, PREDICT, POINTS, [3, 2])


def test_a_prediction_of_another_shape_is_refused():
    with pytest.raises(
        ValueError, match=r"eps_hat: expected the shape \(\d+, 1\) of x_t, got \(1, 1\); nothing is broadcast"
    ):
        flow_log_likelihood(SCHEDULE, lambda x, t: (x, x[:1]), POINTS[:, :1], ALL)
