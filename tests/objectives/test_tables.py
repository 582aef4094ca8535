"""What a denoising objective looks up, held against the functions of `process` on data instead of units."""

import numpy as np
import pytest

from refdiff import process
from refdiff.objectives import WEIGHTINGS, ScheduleConfig, noise_table, variational_table

SCHEDULES = [ScheduleConfig("linear", 50), ScheduleConfig("cosine", 12), ScheduleConfig("constant", 1, {"beta": 0.3})]
PREDICTIONS = ["eps", "x0", "v", "mu"]


def columns(table, t):
    return [column[:, None] for column in table[t].T]


def data(schedule, n=3):
    """x0, eps and every t.   -> (T, n), (T, n), (T,)"""
    t = np.arange(1, schedule.T + 1)
    return *np.random.default_rng(0).standard_normal((2, schedule.T, n)), t


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_columns_make_x_t_and_its_target(schedule, prediction):
    s, (x0, eps, t) = schedule.build(), data(schedule)
    table = noise_table(schedule, prediction, "simple")
    a, b, c, d, weight = columns(table, t)
    np.testing.assert_allclose(a * x0 + b * eps, process.q_sample(s, x0, t, eps), rtol=1e-14, atol=1e-14)
    np.testing.assert_allclose(c * x0 + d * eps, process.target(s, prediction, x0, eps, t), rtol=1e-13, atol=1e-13)
    assert np.all(weight == 1)
    assert table.shape == (schedule.T + 1, 5)
    assert table.dtype == np.float64
    assert np.all(table[0] == 0)
    assert not table.flags.writeable
    assert noise_table(schedule, prediction, "simple") is table


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_last_column_is_the_weighting(schedule, prediction):
    s, t = schedule.build(), np.arange(1, schedule.T + 1)
    snr = s.alpha_bar[t] / s.one_minus_alpha_bar[t]
    scale = process.error_scale(s, t, prediction)  # a squared error of eps, of one of this prediction
    for weighting, of_eps in (("min_snr", np.minimum(1, 5 / snr)), ("p2", 1 / (1 + snr))):
        np.testing.assert_allclose(noise_table(schedule, prediction, weighting)[1:, 4], scale * of_eps, rtol=1e-12)
    with pytest.raises(ValueError, match=r"objective.weighting: .*'mean'"):
        noise_table(schedule, prediction, "mean")


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_weighting_by_the_bound_is_a_divergence(schedule, prediction):
    """|kind - kind_hat|^2 w_t = |mu - mu_hat|^2 / (2 sigma_t^2), sigma_t^2 the posterior's variance, and beta_1 at t = 1."""
    s, (x0, eps, t) = schedule.build(), data(schedule)
    x_t, other = process.q_sample(s, x0, t, eps), np.random.default_rng(1).standard_normal(eps.shape)
    says = process.target(s, prediction, x0, eps, t)
    x0_hat = process.convert(s, x_t, t, other, prediction, "x0")
    distance = ((process.posterior_mean(s, x_t, x0, t) - process.posterior_mean(s, x_t, x0_hat, t)) ** 2).sum(axis=1)
    variance = np.concatenate([s.beta[1:2], process.posterior_variance(s, t[1:])])
    weight = noise_table(schedule, prediction, "vlb")[1:, 4]
    np.testing.assert_allclose(weight * ((says - other) ** 2).sum(axis=1), distance / (2 * variance), rtol=1e-8)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_columns_of_the_bound_make_the_reverse_step(schedule, prediction):
    s, (x0, eps, t) = schedule.build(), data(schedule)
    x_t, says = process.q_sample(s, x0, t, eps), np.random.default_rng(1).standard_normal(eps.shape)
    table = variational_table(schedule, prediction, 0.25)
    a, b, c, d, log_variance, half_gap, first, one, scale = columns(table, t)
    mean = process.convert(s, x_t, t, says, prediction, "mu")
    np.testing.assert_allclose(a * x_t + b * says, mean, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(c * x0 + d * x_t, process.posterior_mean(s, x_t, x0, t), rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(log_variance[:, 0], process.posterior_log_variance(s, t), rtol=1e-14)
    for v in (-1.0, 0.3, 1.0):
        expected = process.learned_log_variance(s, np.full(x_t.shape, v), t)[0]
        np.testing.assert_allclose(log_variance + (1 + v) * half_gap + 0 * x_t, expected, rtol=1e-12, atol=1e-12)
    assert np.all(first[:, 0] == (t == 1))
    assert np.all(one == 1)
    assert np.all(scale == 0.25 * schedule.T)
    assert table.shape == (schedule.T + 1, 9)
    assert table.dtype == np.float64
    assert np.all(table[0] == 0)
    assert not table.flags.writeable
    assert variational_table(schedule, prediction, 0.25) is table


def test_the_weightings_are_those_that_are_documented():
    assert WEIGHTINGS == ("simple", "vlb", "min_snr", "p2")
