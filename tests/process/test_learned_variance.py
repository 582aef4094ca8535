"""Learned variances and the hybrid loss beyond their claims: extremes, shapes, dtypes, other libraries, refusals."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.linalg import norm

from refdiff.process import (
    PREDICTIONS,
    bound_terms,
    fixed_log_variance,
    from_beta,
    l_hybrid,
    l_hybrid_backward,
    l_simple,
    learned_log_variance,
    learned_log_variance_backward,
    learned_reverse,
    linear,
    posterior_log_variance,
    posterior_variance,
    q_sample,
    step_log_variance,
    target,
)
from refdiff.testing.strategies import schedules, seeds, shapes, steps


@given(schedules(max_T=100), shapes(), seeds(), st.data())
def test_the_ends_of_v_are_the_two_fixed_variances_at_every_t(schedule, shape, seed, data):
    t = np.array([data.draw(st.just(1) | steps(schedule)) for _ in range(shape[0])])
    ones = np.ones(shape)
    for time in (t, t[0].item()):
        low, _ = learned_log_variance(schedule, -ones, time)
        high, (slope, _) = learned_log_variance(schedule, ones, time)
        assert np.array_equal(low, fixed_log_variance(schedule, ones, time))
        expected = fixed_log_variance(schedule, ones, time, step_log_variance)
        assert norm(high - expected) <= 1e-15 * (norm(low) + norm(expected) + norm(ones))
        assert np.all(np.asarray(slope) >= 0)


def test_a_single_step_has_one_log_variance():
    v = np.array([[-1.0, 0.3, 1.0]])
    actual, (slope, _) = learned_log_variance(from_beta([0.3]), v, 1)
    assert np.array_equal(actual, np.full((1, 3), math.log(0.3)))
    assert slope == 0


def test_between_the_ends_it_is_a_straight_line_and_so_beyond():
    schedule, v = linear(10), np.array([-3.0, -1.0, 0.0, 0.5, 1.0, 2.0])
    for t in (1, 2, 10):
        actual, saved = learned_log_variance(schedule, v, t)
        low, high = posterior_log_variance(schedule, t), step_log_variance(schedule, t)
        assert np.allclose(actual, 0.5 * ((1 + v) * high + (1 - v) * low), rtol=1e-14)
        assert np.array_equal(learned_log_variance_backward(v, saved), v * saved[0])
        assert saved[0] == pytest.approx(0.5 * (high - low), rel=1e-9)


def hybrid_case(rng, shape, schedule, t, kind="eps"):
    x0 = rng.integers(0, 17, shape) / 8 - 1
    eps = rng.standard_normal(shape)
    right = target(schedule, kind, x0, eps, t)
    return x0, eps, np.concatenate([right + 0.1 * rng.standard_normal(shape), rng.uniform(-1, 1, shape)], axis=-1)


@pytest.mark.parametrize("kind", PREDICTIONS)
def test_without_weight_the_hybrid_loss_is_the_simple_one(kind):
    schedule, rng, t = linear(10), np.random.default_rng(2), np.array([1, 5, 10])
    x0, eps, output = hybrid_case(rng, (3, 2, 2), schedule, t, kind)
    actual, saved = l_hybrid(schedule, kind, x0, eps, t, output, 0.0, 17)
    assert actual == l_simple(output[..., :2], target(schedule, kind, x0, eps, t))[0]
    gradient = l_hybrid_backward(np.float64(1), saved)
    assert gradient.shape == output.shape
    assert np.all(gradient[..., 2:] == 0)


def test_the_bounds_part_is_in_proportion_to_its_weight_and_a_thousandth_by_default():
    schedule, rng, t = linear(10), np.random.default_rng(3), np.array([1, 5, 10])
    x0, eps, output = hybrid_case(rng, (3, 2), schedule, t)
    base, once, twice = (l_hybrid(schedule, "eps", x0, eps, t, output, w, 17) for w in (0.0, 1e-3, 2e-3))
    assert twice[0] - base[0] == pytest.approx(2 * (once[0] - base[0]), rel=1e-12)
    assert l_hybrid(schedule, "eps", x0, eps, t, output, bins=17)[0] == once[0]
    a, b = (l_hybrid_backward(np.float64(1), saved)[:, 2:] for _, saved in (once, twice))
    assert norm(2 * a - b) <= 1e-14 * norm(b)


@given(shapes(min_dims=2), seeds())
def test_the_gradient_is_linear_in_dloss(shape, seed):
    schedule, rng = linear(10), np.random.default_rng(seed)
    t = rng.integers(1, 11, shape[0])
    x0, eps, output = hybrid_case(rng, shape, schedule, t)
    _, saved = l_hybrid(schedule, "eps", x0, eps, t, output, bins=17)
    one, many = (l_hybrid_backward(np.float64(d), saved) for d in (1.0, -2.5))
    assert norm(many + 2.5 * one) <= 1e-14 * norm(many)


def test_what_is_not_prediction_and_v_side_by_side_is_refused():
    schedule, x = linear(10), np.zeros((2, 3))
    message = r"output: expected prediction and v side by side on the last axis, \(2, 6\), got \(2, 3\)"
    with pytest.raises(ValueError, match=message):
        l_hybrid(schedule, "eps", x, x, 3, x)
    with pytest.raises(ValueError, match=message):
        learned_reverse(schedule, lambda x, t: x)(x, 3)
    with pytest.raises(ValueError, match=r"output: expected prediction and v side by side.*got \(2,\)"):
        l_hybrid(schedule, "eps", x[:, 0], x[:, 0], 3, x[:, 0])
    with pytest.raises(ValueError, match="one of eps, x0, mu, v, score"):
        l_hybrid(schedule, "noise", x, x, 3, np.zeros((2, 6)))
    with pytest.raises(ValueError, match="t: expected integers from 1 to T = 10, got 11"):
        learned_log_variance(schedule, x, 11)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_dtype_is_kept(dtype):
    schedule, rng, t = linear(10), np.random.default_rng(5), np.array([1, 5, 10])
    arrays = [a.astype(dtype) for a in hybrid_case(rng, (3, 2), schedule, t)]
    for a in arrays:
        a.flags.writeable = False
    x0, eps, output = arrays
    loss, saved = l_hybrid(schedule, "eps", x0, eps, t, output, bins=17)
    exact, _ = l_hybrid(schedule, "eps", x0.astype("f8"), eps.astype("f8"), t, output.astype("f8"), bins=17)
    assert loss.dtype == dtype
    assert loss == pytest.approx(exact, rel=1e3 * float(np.finfo(dtype).eps))
    assert l_hybrid_backward(dtype(1), saved).dtype == dtype
    assert l_hybrid_backward(1.0, saved).dtype == dtype


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("t", [1, 4, [1, 4, 10]])
def test_arrays_of_any_library_give_what_numpy_gives(library, dtype, t):
    schedule = linear(10, 0.1, 0.4)
    arrays = [a.astype(dtype) for a in hybrid_case(np.random.default_rng(6), (3, 2, 2), schedule, np.array(t))]

    def run(x0, eps, output):
        loss, saved = l_hybrid(schedule, "eps", x0, eps, t, output, bins=17)
        yield from (loss, l_hybrid_backward(loss, saved))
        reverse = learned_reverse(schedule, lambda x, t: output, "x0", (-2, 2))
        yield bound_terms(schedule, reverse, x0, lambda t: eps, 17)
        yield from reverse(q_sample(schedule, x0, t, eps), t)

    for actual, expected in zip(run(*(library.asarray(a) for a in arrays)), run(*arrays), strict=True):
        assert type(actual) is type(library.asarray(0.0))
        actual = np.asarray(actual)
        assert actual.dtype == expected.dtype == dtype
        assert norm(actual - expected) <= 64 * np.finfo(dtype).eps * norm(expected)


@pytest.mark.parametrize(
    ("x", "output", "expected"),
    [
        (np.ones((4, 3, 2, 1)), np.ones((4, 3, 2, 1)), r"\(4, 3, 2, 2\), got \(4, 3, 2, 1\)$"),
        (np.ones(()), np.ones(2), r"\(N, ..., 2C\), got \(2,\)$"),
    ],
)
def test_a_prediction_without_its_second_half_is_told_the_shape(x, output, expected):
    message = "^output: expected prediction and v side by side on the last axis, " + expected
    with pytest.raises(ValueError, match=message):
        learned_reverse(linear(5), lambda *_: output)(x, 3)
    with pytest.raises(ValueError, match=r"^v: expected floating-point numbers, got int64"):
        learned_log_variance(linear(5), np.ones((2, 3), int), np.array([1, 2]))


def test_the_hybrid_loss_takes_bytes_unless_told_otherwise():
    rng = np.random.default_rng(4)
    x0 = 2 * rng.integers(0, 256, (3, 2, 1)) / 255 - 1
    eps, output = rng.standard_normal((3, 2, 1)), rng.standard_normal((3, 2, 2))
    given = [l_hybrid(linear(5), "eps", x0, eps, np.array([1, 2, 5]), output, 1.0, *bins)[0] for bins in ((), (256,))]
    assert given[0] == given[1]


def test_a_step_of_any_length_has_the_log_variance_of_the_respaced_schedule():
    schedule, chosen, v = linear(20, 0.02, 0.4), [3, 6, 13, 20], np.array([[-1.0, 0.4, 1.0, 1.7]])
    few = schedule.respaced(chosen)
    for i, (s, t) in enumerate(zip([0, *chosen], chosen, strict=False), 1):
        actual, saved = learned_log_variance(schedule, v, t, s)
        expected, saved_few = learned_log_variance(few, v, i)
        assert actual == pytest.approx(expected, rel=1e-13)  # at s = 0 too, since 6 is twice 3
        assert learned_log_variance_backward(v, saved) == pytest.approx(
            learned_log_variance_backward(v, saved_few), rel=1e-12
        )
    for t in (1, 2, 20):
        one, given = (learned_log_variance(schedule, v, *at)[0] for at in ((t,), (t, t - 1)))
        assert np.array_equal(one, given)
    times = np.array([3, 20, 20]), np.array([0, 0, 7])
    many, _ = learned_log_variance(schedule, np.repeat(v, 3, axis=0), *times)
    assert np.array_equal(
        many, np.concatenate([learned_log_variance(schedule, v, t, s)[0] for t, s in zip(*times, strict=True)])
    )


@pytest.mark.parametrize("T", [1, 2, 3])
def test_a_step_to_the_data_has_a_finite_log_variance(T):
    for end in (0.3, 1.0):
        schedule = from_beta([*[0.2] * (T - 1), end])
        for t in range(1, T + 1):
            low = posterior_log_variance(schedule, t, 0)
            high, later = np.log(schedule.between(0, t)[1]), min(2 * t, T)
            assert low == (pytest.approx(np.log(posterior_variance(schedule, later, t))) if t < T else high)
            actual, _ = learned_log_variance(schedule, np.array([[-1.0, 1.0]]), t, 0)
            assert actual.tolist() == [pytest.approx([low, high], abs=1e-14)]
    with pytest.raises(ValueError, match="t_prev: expected a step before t, got t_prev = 1 with t = 1"):
        learned_log_variance(schedule, np.ones((1, 2)), 1, 1)


def test_between_two_steps_an_end_without_signal_is_as_any_other():
    schedule = from_beta([0.1, 0.5, 1.0])
    for s in (1, 2):
        actual, _ = learned_log_variance(schedule, np.array([[-1.0, 1.0]]), 3, s)
        assert actual.tolist() == [pytest.approx([np.log(schedule.one_minus_alpha_bar[s]), 0.0], abs=1e-15)]
