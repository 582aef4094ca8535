"""Guidance and thresholding: arrays of any library, dtypes, and what does not fit. The equations are claims."""

from functools import partial

import numpy as np
import pytest
from numpy.linalg import norm

from refdiff.process import (
    PREDICTIONS,
    classifier_free_guidance,
    classifier_guidance,
    convert,
    ddim,
    dynamic_threshold,
    final,
    from_beta,
    linear,
    predictor,
    rescale_zero_terminal_snr,
)

SCHEDULE = linear(10, 0.05, 0.3)


def draws(n=3, shape=(4, 5)):
    return np.random.default_rng(9).standard_normal((n, *shape))


@pytest.mark.parametrize("kind", PREDICTIONS)
@pytest.mark.parametrize("t", [3, np.array([1, 4, 10, 2])])
def test_classifier_guidance_subtracts_its_gradient_from_eps(kind, t):
    x, eps, slope = draws()
    prediction = convert(SCHEDULE, x, t, eps, "eps", kind)
    s = np.sqrt(SCHEDULE.one_minus_alpha_bar[t])
    s = s if np.ndim(s) == 0 else s[:, None]
    wanted = convert(SCHEDULE, x, t, eps - 2.5 * s * slope, "eps", kind)
    came = classifier_guidance(SCHEDULE, x, t, prediction, slope, 2.5, kind)
    assert norm(came - wanted) <= 1e-13 * norm(wanted)
    if kind == "eps":
        assert np.array_equal(classifier_guidance(SCHEDULE, x, t, eps, slope), eps - s * slope)


def test_classifier_free_guidance_exaggerates_the_difference():
    _, one, other = draws()
    assert norm(classifier_free_guidance(one, other, 3.0) - (3 * one - 2 * other)) <= 1e-14 * norm(one)
    assert np.array_equal(classifier_free_guidance(one, other, 0.0), other)


def test_predictions_of_two_shapes_are_refused():
    with pytest.raises(ValueError, match=r"conditional: expected the shape .* \(1, 5\), got \(4, 5\)"):
        classifier_free_guidance(np.ones((4, 5)), np.ones((1, 5)), 2.0)


def test_thresholds_are_a_samples_own():
    x0 = draws(1)[0] * np.array([0.1, 1.0, 3.0, 9.0])[:, None]
    came = dynamic_threshold(x0, 0.7)
    for x, y in zip(x0, came, strict=True):
        limit = max(1.0, np.quantile(abs(x), 0.7))
        assert norm(y - x.clip(-limit, limit) / limit) <= 1e-15 * norm(y)
    assert np.array_equal(came[0], x0[0])
    assert np.array_equal(dynamic_threshold(x0), dynamic_threshold(x0, 0.995))
    assert norm(dynamic_threshold(x0, 1.0) - x0 / abs(x0).max(axis=1, keepdims=True).clip(1)) <= 1e-15 * norm(x0)
    assert np.array_equal(
        dynamic_threshold(x0[:, :1]), x0[:, :1].clip(-abs(x0[:, :1]).clip(1)) / abs(x0[:, :1]).clip(1)
    )


@pytest.mark.parametrize("quantile", [-0.1, 1.1, np.nan])
def test_a_quantile_out_of_range_is_refused(quantile):
    with pytest.raises(ValueError, match="quantile: expected a number from 0 to 1, got"):
        dynamic_threshold(np.ones((2, 3)), quantile)


def test_samples_of_one_number_are_refused():
    with pytest.raises(ValueError, match=r"x0_hat: expected samples of several elements \(N, ...\), got shape \(3,\)"):
        dynamic_threshold(np.ones(3))


def test_a_function_clips_a_prediction_and_its_noise_agrees():
    x, v = draws(2)
    predict = predictor(SCHEDULE, lambda x, t: 3 * v, "v", partial(dynamic_threshold, quantile=0.5))
    x0_hat, eps_hat = predict(x, 7)
    assert np.array_equal(x0_hat, dynamic_threshold(convert(SCHEDULE, x, 7, 3 * v, "v", "x0"), 0.5))
    assert abs(x0_hat).max() <= 1
    a, s = np.sqrt(SCHEDULE.alpha_bar[7]), np.sqrt(SCHEDULE.one_minus_alpha_bar[7])
    assert norm(a * x0_hat + s * eps_hat - x) <= 1e-14 * norm(x)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_arrays_of_another_library_keep_library_dtype_and_values(library, dtype):
    x, y, z = draws(3, (4, 3, 2)).astype(dtype)
    for f in (
        lambda x, y, z: classifier_guidance(SCHEDULE, x, 3, y, z, 2.0, "v"),
        lambda x, y, z: classifier_free_guidance(x, y, 2.0),
        lambda x, y, z: dynamic_threshold(3 * x, 0.9),
        lambda x, y, z: predictor(SCHEDULE, lambda x, t: y, "x0", dynamic_threshold)(x, 4)[1],
    ):
        came, wanted = f(*map(library.asarray, (x, y, z))), f(x, y, z)
        assert type(came) is type(library.asarray(0.0))
        assert wanted.dtype == dtype
        assert norm(np.asarray(came) - wanted) <= 4 * np.finfo(dtype).eps * norm(wanted)


def test_rescaling_keeps_the_names_of_the_steps_and_needs_two():
    respaced = linear().respaced([1, 400, 1000])
    rescaled = rescale_zero_terminal_snr(respaced)
    assert rescaled.timestep.tolist() == [0, 1, 400, 1000]
    assert rescaled.beta[1] == respaced.beta[1]
    assert not rescaled.beta.flags.writeable
    with pytest.raises(ValueError, match=r"schedule: expected at least two steps.* got T = 1"):
        rescale_zero_terminal_snr(from_beta([0.5]))


def test_a_run_over_a_rescaled_schedule_starts_from_pure_noise():
    schedule, (x, x0) = rescale_zero_terminal_snr(linear(20, 0.01, 0.3)), draws(2)

    def v(x, t):
        return (np.sqrt(schedule.alpha_bar[t]) * x - x0) / np.sqrt(schedule.one_minus_alpha_bar[t])

    came = final(ddim(schedule, predictor(schedule, v, "v"), x, range(1, 21)))
    assert norm(came - x0) <= 1e-13 * norm(x0)
