"""The posterior against Bayes' rule done numerically, against 50 digits, and against the process it must give back."""

import mpmath
import numpy as np
import pytest
from helpers import exact
from hypothesis import given
from hypothesis import strategies as st
from numpy.linalg import norm

from refdiff.process import (
    from_beta,
    linear,
    posterior_log_variance,
    posterior_mean,
    posterior_mean_coefficients,
    posterior_mean_from_eps,
    posterior_variance,
    q_sample,
    step_variance,
)
from refdiff.testing.strategies import pairs, schedules, seeds, shapes, steps

mpmath.mp.dps = 50


def alpha_exact(schedule):
    """1 - beta in 50 digits; where beta is near 1, alpha as it is, of which a respaced schedule has more digits."""
    return np.where(schedule.beta > 0.5, exact(schedule.alpha), 1 - exact(schedule.beta))


def bayes(log_density, low, high):
    """Mean and variance of the density whose logarithm, up to a constant, is given, by the trapezoidal rule.

    The interval closes in on where the density lies; nothing is known beforehand but that it lies in (low, high).
    """
    for _ in range(8):
        x = np.linspace(low, high, 2001)
        logs = log_density(x)
        inside = x[logs > logs.max() - 60]
        low, high = inside[0] - (x[1] - x[0]), inside[-1] + (x[1] - x[0])
    weight = np.exp(logs - logs.max())  # for a density that vanishes at both ends the rule converges beyond all powers
    mean = (weight * x).sum() / weight.sum()
    return mean, (weight * (x - mean) ** 2).sum() / weight.sum()


@given(schedules(max_T=200, terminal=True).filter(lambda schedule: schedule.T > 1), seeds(), st.data())
def test_mean_and_variance_are_bayes_rule_by_quadrature(schedule, seed, data):
    s, t = data.draw(pairs(schedule, strict=True).filter(lambda pair: pair[0] > 0))
    alpha = alpha_exact(schedule)
    alpha_bar_s, alpha_ts = mpmath.fprod(alpha[: s + 1]), mpmath.fprod(alpha[s + 1 : t + 1])
    a0, v0, a, v = (float(x) for x in (mpmath.sqrt(alpha_bar_s), 1 - alpha_bar_s, mpmath.sqrt(alpha_ts), 1 - alpha_ts))
    rng = np.random.default_rng(seed)
    x0 = 2 * rng.standard_normal()
    x_t = a * a0 * x0 + np.sqrt(a**2 * v0 + v) * rng.standard_normal()

    prior, width = a0 * x0, 15 * np.sqrt(v0)
    mean, variance = bayes(
        lambda x: -((x - prior) ** 2) / (2 * v0) - (x_t - a * x) ** 2 / (2 * v), prior - width, prior + width
    )
    actual = posterior_mean(schedule, np.array(x_t), np.array(x0), t, s)
    assert abs(actual - mean) <= 1e-9 * np.sqrt(variance) + 1e-14 * (abs(x0) + abs(x_t))
    assert abs(posterior_variance(schedule, t, s) - variance) <= 1e-9 * variance


@given(schedules(terminal=True), st.data())
def test_coefficients_and_variances_are_equation_7_in_50_digits(schedule, data):
    s, t = data.draw(pairs(schedule, strict=True))
    alpha = alpha_exact(schedule)
    alpha_bar_s, alpha_ts = mpmath.fprod(alpha[: s + 1]), mpmath.fprod(alpha[s + 1 : t + 1])
    alpha_bar_t = alpha_bar_s * alpha_ts
    beta_ts = 1 - alpha_ts
    of_x0 = mpmath.sqrt(alpha_bar_s) * beta_ts / (1 - alpha_bar_t)
    of_xt = mpmath.sqrt(alpha_ts) * (1 - alpha_bar_s) / (1 - alpha_bar_t)
    variance = (1 - alpha_bar_s) / (1 - alpha_bar_t) * beta_ts
    expected = [of_x0, of_xt, variance, beta_ts]
    actual = [
        *posterior_mean_coefficients(schedule, t, s),
        posterior_variance(schedule, t, s),
        step_variance(schedule, t, s),
    ]
    for value, number in zip(actual, expected, strict=True):
        assert abs(mpmath.mpf(float(value)) - number) <= 1e-14 * number
    if s == t - 1 and s > 0:
        assert (
            abs(posterior_log_variance(schedule, t) - mpmath.log(variance)) <= 1e-14 * abs(mpmath.log(variance)) + 1e-15
        )


@given(schedules(terminal=True), st.data())
def test_the_step_before_is_meant_when_none_is_named(schedule, data):
    t = data.draw(steps(schedule))
    x_t, x0 = np.random.default_rng(t).standard_normal((2, 3))
    assert np.array_equal(posterior_mean(schedule, x_t, x0, t), posterior_mean(schedule, x_t, x0, t, t - 1))
    assert posterior_variance(schedule, t) == posterior_variance(schedule, t, t - 1)
    assert step_variance(schedule, t) == step_variance(schedule, t, t - 1)
    assert posterior_mean_coefficients(schedule, t) == posterior_mean_coefficients(schedule, t, t - 1)
    if schedule.alpha[t] > 0:
        before = posterior_mean_from_eps(schedule, x_t, x0, t, t - 1)
        assert np.array_equal(posterior_mean_from_eps(schedule, x_t, x0, t), before)


@given(schedules(terminal=True), st.data())
def test_from_noise_by_the_posterior_one_is_back_in_the_forward_process(schedule, data):
    """E over q(x_t|x_0) of q(x_s|x_t,x_0) is q(x_s|x_0): the factor of x_0 and the variance, both to 1e-14."""
    s, t = data.draw(pairs(schedule, strict=True))
    of_x0, of_xt = posterior_mean_coefficients(schedule, t, s)
    alpha_bar, one_minus = schedule.alpha_bar, schedule.one_minus_alpha_bar
    factor = of_x0 + of_xt * np.sqrt(alpha_bar[t])
    variance = posterior_variance(schedule, t, s) + of_xt**2 * one_minus[t]
    assert abs(factor - np.sqrt(alpha_bar[s])) <= 1e-14 * np.sqrt(alpha_bar[s])
    assert abs(variance - one_minus[s]) <= 1e-14 * one_minus[s]


@given(schedules(terminal=True), st.data())
def test_two_posterior_steps_are_one(schedule, data):
    """q(x_s|x_t,x_0) is q(x_s|x_m,x_0) averaged over q(x_m|x_t,x_0), for s < m < t."""
    t = data.draw(st.integers(min(2, schedule.T), schedule.T))
    if t < 2:
        return
    m = data.draw(st.integers(1, t - 1))
    s = data.draw(st.integers(0, m - 1))
    (x0_tm, xt_tm), (x0_ms, xm_ms) = (posterior_mean_coefficients(schedule, *p) for p in ((t, m), (m, s)))
    x0_ts, xt_ts = posterior_mean_coefficients(schedule, t, s)
    assert abs(x0_ms + xm_ms * x0_tm - x0_ts) <= 1e-14 * x0_ts
    assert abs(xm_ms * xt_tm - xt_ts) <= 1e-14 * xt_ts
    variance = posterior_variance(schedule, m, s) + xm_ms**2 * posterior_variance(schedule, t, m)
    assert abs(variance - posterior_variance(schedule, t, s)) <= 1e-14 * variance


@given(schedules(), shapes(), seeds(), st.data())
def test_the_mean_from_the_noise_is_the_mean_from_the_data(schedule, shape, seed, data):
    s, t = data.draw(pairs(schedule, strict=True))
    x0, eps = np.random.default_rng(seed).standard_normal((2, *shape))
    x_t = q_sample(schedule, x0, t, eps)
    from_x0, from_eps = posterior_mean(schedule, x_t, x0, t, s), posterior_mean_from_eps(schedule, x_t, eps, t, s)
    # From eps the mean is (x_t - beta/s eps) / sqrt(alpha): the rounding of both terms, magnified by the division.
    terms = (norm(x_t) + norm(eps)) / np.sqrt(schedule.between(s, t)[0])
    assert norm(from_x0 - from_eps) <= 1e-14 * terms
    if s == 0:
        assert norm(from_x0 - x0) <= 1e-14 * norm(x0)


@given(schedules(terminal=True))
def test_the_variance_lies_between_nothing_and_the_steps_own(schedule):
    t = np.arange(1, schedule.T + 1)
    variance, step = posterior_variance(schedule, t), step_variance(schedule, t)
    assert np.all((variance >= 0) & (variance <= step))
    assert variance[0] == 0
    assert not np.signbit(variance[0])
    assert np.all(variance[1:] > 0)
    assert np.all(posterior_variance(schedule, t, 0) == 0)
    assert np.all(abs(step - schedule.beta[1:]) <= 1e-14 * step)


@given(schedules(terminal=True))
def test_the_log_variance_borrows_its_first_value_from_the_second(schedule):
    T = schedule.T
    t = np.arange(1, T + 1)
    logs = posterior_log_variance(schedule, t)
    assert np.all(np.isfinite(logs))
    if T == 1:
        assert logs == np.log(schedule.beta[1])
        return
    assert logs[0] == logs[1]
    assert np.all(abs(np.exp(logs[1:]) - posterior_variance(schedule, t[1:])) <= 1e-14 * np.exp(logs[1:]))
    for i in {1, 2, T}:
        assert posterior_log_variance(schedule, i) == logs[i - 1]


def test_the_figure_known_of_the_second_step():
    assert abs(posterior_variance(linear(), 2) / 5.45319e-5 - 1) <= 1e-6
    assert abs(posterior_log_variance(linear(), 1) - np.log(5.45319e-5)) <= 1e-6


@given(st.integers(2, 100), st.data(), seeds())
def test_where_alpha_bar_is_zero_the_noise_says_nothing_and_the_posterior_is_the_forward_process(T, data, seed):
    schedule = from_beta([*np.full(T - 1, 0.01), 1.0])
    s = data.draw(st.integers(0, T - 1))
    x_t, x0 = np.random.default_rng(seed).standard_normal((2, 4))
    assert norm(posterior_mean(schedule, x_t, x0, T, s) - np.sqrt(schedule.alpha_bar[s]) * x0) <= 1e-15 * norm(x0)
    assert posterior_variance(schedule, T, s) == schedule.one_minus_alpha_bar[s]
    assert step_variance(schedule, T, s) == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
@given(schedules(), shapes(), seeds(), st.data())
def test_a_step_a_sample_mixes_the_results_of_each_and_keeps_the_dtype(dtype, schedule, shape, seed, data):
    x_t, other = np.random.default_rng(seed).standard_normal((2, *shape)).astype(dtype)
    if dtype is np.complex128:
        x_t, other = x_t + 0.3j * other, other - 0.7j * x_t
    chosen = [data.draw(pairs(schedule, strict=True)) for _ in range(shape[0])]
    s, t = np.array(chosen).T
    for function in (posterior_mean, posterior_mean_from_eps):
        mixed = function(schedule, x_t, other, t, s)
        assert mixed.dtype == dtype
        for i, (s_i, t_i) in enumerate(chosen):
            alone = function(schedule, x_t[i : i + 1], other[i : i + 1], t_i, s_i)
            assert alone.dtype == dtype
            terms = (norm(x_t[i]) + norm(other[i])) / np.sqrt(schedule.between(s_i, t_i)[0])
            assert norm(mixed[i] - alone[0]) <= 4 * np.finfo(dtype).eps * terms
    for coefficient in (posterior_variance, step_variance, lambda *a: posterior_mean_coefficients(*a)[0]):
        assert np.array_equal(coefficient(schedule, t, s), [coefficient(schedule, b, a) for a, b in chosen])
        assert np.asarray(coefficient(schedule, t, s)).dtype == np.float64


@given(schedules(max_T=50).filter(lambda schedule: schedule.T > 2))
def test_one_of_the_two_times_may_be_the_same_for_all_samples(schedule):
    T = schedule.T
    x_t, x0 = np.random.default_rng(T).standard_normal((2, 2, 3))
    late, early = np.array([T, T - 1]), np.array([1, 0])
    for function in (posterior_mean, posterior_mean_from_eps):
        for t, s, both in (
            (late, 1, (late, np.array([1, 1]))),
            (T, early, (np.array([T, T]), early)),
        ):
            assert np.array_equal(function(schedule, x_t, x0, t, s), function(schedule, x_t, x0, *both))


@pytest.mark.parametrize(
    "call",
    [
        lambda s, x, *time: posterior_mean(s, x, x, *time),
        lambda s, x, *time: posterior_mean_from_eps(s, x, x, *time),
        lambda s, x, *time: posterior_mean_coefficients(s, *time),
        lambda s, x, *time: posterior_variance(s, *time),
        lambda s, x, *time: step_variance(s, *time),
    ],
)
@pytest.mark.parametrize(
    ("time", "message"),
    [
        ((0,), "t: expected integers from 1 to T = 10, got 0"),
        ((11,), "t: expected integers from 1 to T = 10, got 11"),
        ((np.array([3, 12]),), "t: expected integers from 1 to T = 10, got 12"),
        ((5, 5), "t_prev: expected a step before t, got t_prev = 5 with t = 5"),
        ((5, 7), "t_prev: expected a step before t, got t_prev = 7 with t = 5"),
        ((5, -1), "t_prev: expected integers from 0 to T = 10, got -1"),
        ((np.array([5, 3]), np.array([4, 3])), "t_prev: expected a step before t"),
        ((5.0,), "t: expected an integer or one a sample"),
        ((5, 4.0), "t_prev: expected an integer or one a sample"),
    ],
)
def test_a_wrong_time_is_refused_by_name(call, time, message):
    with pytest.raises(ValueError, match=message):
        call(linear(10), np.random.default_rng(0).standard_normal((2, 3)), *time)


@pytest.mark.parametrize("t", [0, 11, 2.0])
def test_the_log_variance_refuses_a_wrong_time(t):
    with pytest.raises(ValueError, match="t: expected"):
        posterior_log_variance(linear(10), t)


def test_what_is_not_floating_point_is_refused_by_name():
    x, whole = np.array([0.5, 1.5]), np.array([1, 2])
    for call, name in (
        (lambda: posterior_mean(linear(10), x, whole, 3), "x0"),
        (lambda: posterior_mean(linear(10), whole, x, 3), "x_t"),
        (lambda: posterior_mean_from_eps(linear(10), x, whole, 3), "eps"),
    ):
        with pytest.raises(ValueError, match=f"{name}: expected floating-point numbers, got int64"):
            call()
