"""What each kind of network should say, in 50 digits, and the loss: its value and its gradient by a complex step."""

from math import fsum

import mpmath
import numpy as np
import pytest
from helpers import exact
from hypothesis import given
from hypothesis import strategies as st
from numpy.linalg import norm

from refdiff.process import (
    PREDICTIONS,
    convert,
    l_simple,
    l_simple_backward,
    l_weighted,
    l_weighted_backward,
    linear,
    predictor,
    q_sample,
    target,
)
from refdiff.testing.derivatives import check_backward
from refdiff.testing.strategies import schedules, seeds, shapes, steps

mpmath.mp.dps = 50


@pytest.mark.parametrize("kind", PREDICTIONS)
@given(schedules(max_T=200, terminal=True), seeds(), st.data())
def test_the_target_is_its_definition_by_data_and_noise_in_50_digits(kind, schedule, seed, data):
    t = data.draw(steps(schedule))
    x0, eps = np.random.default_rng(seed).standard_normal((2, 4))
    beta = exact(schedule.beta)
    # 1 - beta; where beta is near 1, alpha as it is, of which a respaced schedule has more digits.
    alpha = np.where(schedule.beta > 0.5, exact(schedule.alpha), 1 - beta)
    before = mpmath.fprod(alpha[:t])
    a, s = mpmath.sqrt(before * alpha[t]), mpmath.sqrt(1 - before * alpha[t])
    c_0, c_t = mpmath.sqrt(before) * (1 - alpha[t]) / s**2, mpmath.sqrt(alpha[t]) * (1 - before) / s**2  # [DDPM] eq. 7
    of_x0, of_eps = {
        "x0": (1, 0),
        "eps": (0, 1),
        "v": (-s, a),
        "score": (0, -1 / s),
        "mu": (c_0 + c_t * a, c_t * s),
    }[kind]
    expected = of_x0 * exact(x0) + of_eps * exact(eps)
    terms = abs(of_x0) * norm(x0) + abs(of_eps) * norm(eps)
    for time in (t, np.full(4, t)):
        assert mpmath.norm(exact(target(schedule, kind, x0, eps, time)) - expected) <= 1e-14 * terms


@pytest.mark.parametrize("kind", PREDICTIONS)
@given(schedules(), shapes(), seeds(), st.data())
def test_whoever_meets_the_target_knows_data_and_noise(kind, schedule, shape, seed, data):
    t = np.array([data.draw(steps(schedule)) for _ in range(shape[0])])
    x0, eps = np.random.default_rng(seed).standard_normal((2, *shape))
    expected = target(schedule, kind, x0, eps, t)
    x_t = q_sample(schedule, x0, t, eps)
    assert expected.shape == shape
    x0_hat, eps_hat = predictor(schedule, lambda x, t: expected, kind)(x_t, t)
    for i, t_i in enumerate(t.tolist()):
        # Dividing by a, s or the posterior's factors magnifies the rounding of x_t: by 1 / a and 1 / beta at most.
        magnified = 1e-14 / (np.sqrt(schedule.alpha_bar[t_i]) * schedule.beta[t_i])
        assert norm(x0_hat[i] - x0[i]) <= magnified * (norm(x0[i]) + norm(eps[i]))
        assert norm(eps_hat[i] - eps[i]) <= magnified * (norm(x0[i]) + norm(eps[i]))


@pytest.mark.parametrize("kind", PREDICTIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_targets_keep_the_dtype_and_leave_their_inputs(kind, dtype):
    x0, eps = np.random.default_rng(1).standard_normal((2, 3, 2)).astype(dtype)
    x0.flags.writeable = eps.flags.writeable = False
    for t in (7, np.array([1, 7, 10])):
        expected = target(linear(10), kind, x0, eps, t)
        assert expected.dtype == dtype
        again = convert(linear(10), q_sample(linear(10), x0, t, eps), t, eps, "eps", kind)
        assert norm(expected - again) <= 100 * np.finfo(dtype).eps * (norm(expected) + norm(again))


def test_data_and_noise_as_targets_are_passed_on_as_they_are():
    x0, eps = np.random.default_rng(0).standard_normal((2, 3, 4))
    schedule, t = linear(10), np.array([1, 5, 10])
    assert target(schedule, "x0", x0, eps, t) is x0
    assert target(schedule, "eps", x0, eps, t) is eps


def test_an_unknown_kind_is_refused_by_name():
    with pytest.raises(ValueError, match=r"target: expected one of .*eps, x0, mu, v, score.*'noise'"):
        target(linear(10), "noise", np.ones(2) / 3, np.ones(2) / 7, 3)


@given(shapes(min_dims=0), seeds())
def test_the_loss_is_the_mean_square_of_the_difference(shape, seed):
    prediction, target = np.random.default_rng(seed).standard_normal((2, *shape))
    loss, difference = l_simple(prediction, target)
    squares = [(p - w) ** 2 for p, w in zip(prediction.flat, target.flat, strict=True)]
    assert np.shape(loss) == ()
    assert abs(loss - fsum(squares) / len(squares)) <= 1e-15 * len(squares) * loss
    assert np.array_equal(difference, prediction - target)


@given(shapes(min_dims=0), seeds())
def test_the_losss_gradient_is_its_complex_step_derivative(shape, seed):
    rng = np.random.default_rng(seed)
    prediction, target = (np.array(rng.standard_normal(shape)) for _ in range(2))
    check_backward(lambda p: l_simple(p, target), l_simple_backward, (prediction,), rng, bound=1e-13)


@given(shapes(), seeds())
def test_the_gradient_is_linear_in_dloss_and_leaves_what_was_saved(shape, seed):
    prediction, target = np.random.default_rng(seed).standard_normal((2, *shape))
    _, difference = l_simple(prediction, target)
    difference.flags.writeable = False
    gradient = l_simple_backward(np.float64(1.0), difference)
    assert norm(l_simple_backward(np.float64(-2.5), difference) + 2.5 * gradient) <= 1e-15 * norm(gradient) * 2.5
    assert norm(gradient - 2 * difference / difference.size) <= 1e-15 * norm(gradient)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_loss_keeps_the_dtype(dtype):
    prediction, target = np.random.default_rng(2).standard_normal((2, 5, 3)).astype(dtype)
    loss, difference = l_simple(prediction, target)
    assert loss.dtype == difference.dtype == dtype
    assert l_simple_backward(dtype(1), difference).dtype == dtype
    assert l_simple_backward(1.0, difference).dtype == dtype


def test_predictions_of_another_shape_are_refused_and_not_broadcast():
    with pytest.raises(ValueError, match=r"prediction: expected the shape \(2, 3\) of target, got \(3,\)"):
        l_simple(np.ones(3) / 3, np.ones((2, 3)) / 7)


@given(shapes(), seeds())
def test_the_weighted_loss_weighs_each_samples_mean_square(shape, seed):
    rng = np.random.default_rng(seed)
    (prediction, target), weight = rng.standard_normal((2, *shape)), rng.uniform(0, 3, shape[0])
    loss, _ = l_weighted(prediction, target, weight)
    each = [l_simple(p, w)[0] for p, w in zip(prediction, target, strict=True)]
    assert abs(loss - np.mean(weight * each)) <= 1e-15 * 8 * loss
    for one in (2.5, np.float64(2.5), np.array(2.5)):
        assert abs(l_weighted(prediction, target, one)[0] - 2.5 * np.mean(each)) <= 1e-15 * 8 * np.mean(each)
    assert l_weighted(prediction, target, 1.0)[0] == l_simple(prediction, target)[0]


@given(shapes(), seeds())
def test_the_weighted_losss_gradient_is_its_complex_step_derivative(shape, seed):
    rng = np.random.default_rng(seed)
    (prediction, target), weight = rng.standard_normal((2, *shape)), rng.uniform(0, 3, shape[0])
    for w in (weight, 0.3):
        check_backward(lambda p: l_weighted(p, target, w), l_weighted_backward, (prediction,), rng)  # noqa: B023


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_weighted_loss_keeps_the_dtype_under_float64_weights(dtype):
    prediction, target = np.random.default_rng(2).standard_normal((2, 5, 3)).astype(dtype)
    loss, saved = l_weighted(prediction, target, np.arange(5) / 7)
    assert loss.dtype == dtype
    assert l_weighted_backward(dtype(1), saved).dtype == dtype


def test_the_weighted_loss_takes_arrays_of_any_library(library):
    prediction, target = np.random.default_rng(2).standard_normal((2, 5, 3))
    for weight in (0.5, np.arange(5) / 7):
        loss, saved = l_weighted(library.asarray(prediction), library.asarray(target), weight)
        expected, here = l_weighted(prediction, target, weight)
        assert abs(float(loss) - expected) <= 1e-14 * expected
        gradient = np.asarray(l_weighted_backward(loss, saved))
        assert norm(gradient - l_weighted_backward(expected, here)) <= 1e-14 * norm(gradient)


def test_weights_that_are_no_weights_are_refused():
    x = np.ones((2, 3)) / 7
    for weight in (-1.0, np.nan, np.inf, np.array([1.0, -0.1])):
        with pytest.raises(ValueError, match="weight: expected finite numbers from 0 on, got"):
            l_weighted(x, x, weight)
    with pytest.raises(ValueError, match=r"^weight: expected one number a sample of target \(2, 3\), got \(3,\)"):
        l_weighted(x, x, np.ones(3))
    with pytest.raises(ValueError, match=r"prediction: expected the shape \(2, 3\) of target"):
        l_weighted(x[0], x, 1.0)
