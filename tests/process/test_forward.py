"""The closed form against single steps, by exact recursion and by Monte Carlo, and steps that compose."""

import numpy as np
import pytest
from helpers import draws
from hypothesis import given
from hypothesis import strategies as st
from numpy.linalg import norm

from refdiff.process import (
    ancestral_step,
    classifier_guidance,
    classifier_shift,
    from_beta,
    linear,
    q_between,
    q_between_moments,
    q_moments,
    q_sample,
    q_step,
    q_step_moments,
    step_variance,
    target,
)
from refdiff.random import Sequence, normal
from refdiff.testing.strategies import pairs, schedules, seeds, shapes, steps


@given(schedules(max_T=200, terminal=True), st.data())
def test_the_closed_form_has_the_moments_of_t_single_steps(schedule, data):
    t = data.draw(steps(schedule))
    mean, variance = 1.0, 0.0  # of x_0 = 1, through x_s = sqrt(alpha_s) x + sqrt(beta_s) eps
    for s in range(1, t + 1):
        factor, added = q_step_moments(schedule, np.ones(1), s)
        mean, variance = factor.item() * mean, factor.item() ** 2 * variance + added
    closed_mean, closed_variance = q_moments(schedule, np.ones(1), t)
    # t roundings of either kind, each half an epsilon.
    assert abs(closed_mean.item() - mean) <= (1e-14 + t * 2.3e-16) * mean
    assert abs(closed_variance - variance) <= (1e-14 + t * 2.3e-16) * variance


@given(schedules(max_T=200, terminal=True), st.data())
def test_one_step_scales_by_the_root_of_one_minus_beta_and_adds_beta(schedule, data):
    t = data.draw(steps(schedule))
    (x,) = draws(data.draw(seeds()), (3, 2), 1)
    mean, variance = q_step_moments(schedule, x, t)
    assert abs(variance - schedule.beta[t]) <= 1e-15 * schedule.beta[t]
    # A respaced schedule knows alpha to more digits than 1 - beta has.
    bound = 4e-16 / np.sqrt(max(1 - schedule.beta[t], 1e-16))
    assert norm(mean - np.sqrt(1 - schedule.beta[t]) * x) <= bound * norm(x)


@given(schedules(terminal=True), shapes(), seeds(), st.data())
def test_samples_are_mean_plus_deviation_times_noise(schedule, shape, seed, data):
    k, t = data.draw(pairs(schedule, strict=True))
    x, eps = draws(seed, shape)
    for (mean, variance), sample in (
        (q_step_moments(schedule, x, t), q_step(schedule, x, t, eps)),
        (q_moments(schedule, x, t), q_sample(schedule, x, t, eps)),
        (q_between_moments(schedule, x, k, t), q_between(schedule, x, k, t, eps)),
    ):
        assert norm(sample - (mean + np.sqrt(variance) * eps)) <= 1e-15 * (norm(mean) + norm(eps))


@given(schedules(terminal=True), shapes(), seeds(), st.data())
def test_steps_between_compose(schedule, shape, seed, data):
    k, t = data.draw(pairs(schedule))
    m = data.draw(st.integers(k, t))
    (x,) = draws(seed, shape, 1)
    at_m, variance_m = q_between_moments(schedule, x, k, m)
    mean, added = q_between_moments(schedule, at_m, m, t)
    factor, _ = q_between_moments(schedule, np.ones(1), m, t)
    at_t, variance_t = q_between_moments(schedule, x, k, t)
    assert norm(mean - at_t) <= 1e-14 * norm(at_t)
    assert abs(factor.item() ** 2 * variance_m + added - variance_t) <= 1e-14 * variance_t


@given(schedules(terminal=True), shapes(), seeds(), st.data())
def test_steps_between_are_one_step_or_the_closed_form_at_the_ends(schedule, shape, seed, data):
    t = data.draw(steps(schedule))
    x, eps = draws(seed, shape)
    for near, far in (
        (q_between(schedule, x, t - 1, t, eps), q_step(schedule, x, t, eps)),
        (q_between(schedule, x, 0, t, eps), q_sample(schedule, x, t, eps)),
    ):
        assert norm(near - far) <= 1e-14 * norm(far)
    assert np.array_equal(q_between(schedule, x, t, t, eps), x)


@given(schedules(terminal=True), shapes(), seeds())
def test_at_time_zero_a_sample_is_the_data(schedule, shape, seed):
    x, eps = draws(seed, shape)
    assert np.array_equal(q_sample(schedule, x, 0, eps), x)
    assert np.array_equal(q_sample(schedule, x, np.zeros(shape[0], int), eps), x)
    mean, variance = q_moments(schedule, x, 0)
    assert np.array_equal(mean, x)
    assert variance == 0


@given(st.integers(1, 200), shapes(), seeds())
def test_where_alpha_bar_is_zero_a_sample_is_the_noise(T, shape, seed):
    x, eps = draws(seed, shape)
    schedule = from_beta([*np.full(T - 1, 0.01), 1.0])
    for t in (T, np.full(shape[0], T)):
        assert np.array_equal(q_sample(schedule, x, t, eps), eps)
        assert np.array_equal(q_step(schedule, x, t, eps), eps)


# Everything the file offers, as functions of the same (schedule, x, eps, k, t) with values of x's shape.
SAMPLES = {
    "q_step": lambda schedule, x, eps, k, t: q_step(schedule, x, t, eps),
    "q_sample": lambda schedule, x, eps, k, t: q_sample(schedule, x, t, eps),
    "q_between": lambda schedule, x, eps, k, t: q_between(schedule, x, k, t, eps),
    "mean": lambda schedule, x, eps, k, t: q_moments(schedule, x, t)[0],
    "variance": lambda schedule, x, eps, k, t: q_moments(schedule, x, t)[1] + 0 * x,
    "step variance": lambda schedule, x, eps, k, t: q_step_moments(schedule, x, t)[1] + 0 * x,
    "variance between": lambda schedule, x, eps, k, t: q_between_moments(schedule, x, k, t)[1] + 0 * x,
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
@pytest.mark.parametrize("name", sorted(SAMPLES))
@given(schedules(terminal=True), shapes(), seeds(), st.data())
def test_a_step_a_sample_mixes_the_results_of_each_and_keeps_the_dtype(name, dtype, schedule, shape, seed, data):
    x, eps = draws(seed, shape).astype(dtype)
    if dtype is np.complex128:
        x, eps = x + 0.3j * eps, eps - 0.7j * x
    chosen = [data.draw(pairs(schedule, strict=True)) for _ in range(shape[0])]
    k, t = np.array(chosen).T
    mixed = SAMPLES[name](schedule, x, eps, k, t)
    assert mixed.dtype == dtype
    assert mixed.shape == shape
    for i, (k_i, t_i) in enumerate(chosen):
        alone = SAMPLES[name](schedule, x[i : i + 1], eps[i : i + 1], k_i, t_i)
        assert alone.dtype == dtype
        assert norm(mixed[i] - alone[0]) <= 4 * np.finfo(dtype).eps * (norm(alone[0]) + norm(x[i]) + norm(eps[i]))


@given(schedules(), seeds(), st.data())
def test_numpys_integers_of_every_width_name_the_same_step(schedule, seed, data):
    t = data.draw(st.integers(1, min(schedule.T, 127)))
    x, eps = draws(seed, (2, 3))
    expected = q_between(schedule, x, t - 1, t, eps)
    for kind in (np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64):
        assert np.array_equal(q_between(schedule, x, kind(t - 1), kind(t), eps), expected)
        assert norm(q_between(schedule, x, t - 1, np.full(2, t, kind), eps) - expected) <= 1e-15 * norm(expected)


@given(schedules(terminal=True), shapes(), seeds(), st.data())
def test_read_only_inputs_will_do_for_nothing_is_written_into_them(schedule, shape, seed, data):
    k, t = data.draw(pairs(schedule, strict=True))
    x, eps = draws(seed, shape)
    x.flags.writeable = eps.flags.writeable = False
    for function in SAMPLES.values():
        function(schedule, x, eps, k, t)


def test_t_single_steps_sample_the_closed_form():
    """20,000 paths of 50 steps: the mean within 5 standard errors, and the variance, whose error is sqrt(2/n) of it."""
    schedule, n, T = linear(50, 1e-3, 0.2), 20_000, 50
    x0 = 1.7
    x = np.full(n, x0)
    for t in range(1, T + 1):
        x = q_step(schedule, x, t, normal(Sequence(3, 5, t), np.arange(n), dtype=np.float64))
        if t in (1, 7, T):
            mean, variance = q_moments(schedule, np.array(x0), t)
            assert abs(x.mean() - mean) <= 5 * np.sqrt(variance / n)
            assert abs(x.var() - variance) <= 5 * np.sqrt(2 / n) * variance


def test_a_small_beta_gives_its_noise_in_half_precision_whatever_t_is():
    x, eps = np.zeros((2, 3), np.float16), np.ones((2, 3), np.float16)
    schedule = linear(1000, 1e-8, 0.02)
    for t in (1, np.array([1, 1])):
        for noise in (
            q_step(schedule, x, t, eps),
            q_sample(schedule, x, t, eps),
            q_between(schedule, x, 0 * t, t, eps),
        ):
            assert np.all(noise == np.float16(1e-4))
        assert np.all(target(schedule, "v", eps, x, t) == -np.float16(1e-4))
        assert np.all(classifier_guidance(schedule, x, t, x, eps) == -np.float16(1e-4))
    gradient = np.full((2, 3), 2e4, np.float16)
    shift = classifier_shift(lambda x, t: gradient, 2.0)
    shifted = ancestral_step(schedule, x, 1, 0, x, eps, step_variance, shift)
    assert np.all(np.abs(shifted - 4e-4) <= 2.0**-10 * 4e-4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s, x: q_sample(s, x, -1, x), "t: expected integers from 0 to T = 10, got -1"),
        (lambda s, x: q_sample(s, x, 11, x), "t: expected integers from 0 to T = 10, got 11"),
        (lambda s, x: q_sample(s, x, np.array([1, 11, 3]), x), "t: expected integers from 0 to T = 10, got 11"),
        (lambda s, x: q_step(s, x, 0, x), "t: expected integers from 1 to T = 10, got 0"),
        (lambda s, x: q_step_moments(s, x, np.array([3, 0, 1])), "t: expected integers from 1 to T = 10, got 0"),
        (lambda s, x: q_between(s, x, 5, 4, x), "k: expected a step no later than t, got k = 5 with t = 4"),
        (lambda s, x: q_between(s, x, -1, 4, x), "k: expected integers from 0 to T = 10, got -1"),
        (lambda s, x: q_sample(s, x, 2.0, x), "t: expected an integer or one a sample"),
        (lambda s, x: q_sample(s, x, True, x), "t: expected an integer or one a sample"),
        (lambda s, x: q_sample(s, x, np.ones((3, 1), int), x), r"t: expected an integer .* got shape \(3, 1\)"),
        (lambda s, x: q_sample(s, x, np.ones(2, int), x), r"t: expected one step a sample of x0 \(3, 2\), got \(2,\)"),
        (
            lambda s, x: q_sample(s, np.array(1.5), np.ones(1, int), np.array(0.5)),
            r"t: expected one step a sample of x0 \(\)",
        ),
        (lambda s, x: q_sample(s, x.astype(int), 3, x), "^x0: expected floating-point numbers, got int64"),
        (lambda s, x: q_sample(s, x.tolist(), 3, x), "expected an array .* got list"),
        (lambda s, x: q_sample(s, 1.5, 3, x), "^x0: expected an array .* got float"),
    ],
)
def test_a_wrong_time_or_array_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call(linear(10), np.random.default_rng(0).standard_normal((3, 2)))
