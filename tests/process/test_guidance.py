"""Guidance and thresholding: arrays of any library, dtypes, and what does not fit. The equations are claims."""

from functools import partial

import numpy as np
import pytest
from numpy.linalg import norm

from refdiff.process import (
    PREDICTIONS,
    GaussianMixture,
    ancestral,
    ancestral_step,
    classifier_free_guidance,
    classifier_guidance,
    classifier_shift,
    convert,
    ddim,
    dynamic_threshold,
    final,
    from_beta,
    linear,
    posterior_mean,
    posterior_variance,
    predictor,
    rescale_zero_terminal_snr,
    rescaled_guidance,
    rescaled_linear,
    step_variance,
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
    expected = convert(SCHEDULE, x, t, eps - 2.5 * s * slope, "eps", kind)
    actual = classifier_guidance(SCHEDULE, x, t, prediction, slope, 2.5, kind)
    assert norm(actual - expected) <= 1e-13 * norm(expected)
    if kind == "eps":
        assert np.array_equal(classifier_guidance(SCHEDULE, x, t, eps, slope), eps - s * slope)


@pytest.mark.parametrize("kind", PREDICTIONS)
def test_a_classifier_says_nothing_of_the_data_where_nothing_is_left_of_them(kind):
    schedule, (x, y, slope) = rescale_zero_terminal_snr(SCHEDULE), draws()
    for t in (10, np.array([1, 10, 3, 10])):
        if kind in ("eps", "score"):
            assert np.isfinite(classifier_guidance(schedule, x, t, y, slope, 2.0, kind)).all()
            continue
        with pytest.raises(
            ValueError, match=rf"got t = 10, where it is 0 and a classifier says nothing of {kind}; guide by"
        ):
            classifier_guidance(schedule, x, t, y, slope, 2.0, kind)


@pytest.mark.parametrize("variance", [posterior_variance, step_variance])
@pytest.mark.parametrize(("t", "s"), [(7, 3), (2, 1), (3, 0)])
def test_a_shift_is_added_to_the_mean_of_the_step(variance, t, s):
    x, x0_hat, slope, z = draws(4)
    seen = []

    def gradient(x_t, t):
        seen.append((x_t, t))
        return slope

    actual = ancestral_step(SCHEDULE, x, t, s, x0_hat, z, variance, classifier_shift(gradient, 3.0))
    sigma2 = variance(SCHEDULE, t, s)
    mean = posterior_mean(SCHEDULE, x, x0_hat, t, s) + 3.0 * sigma2 * slope
    expected = mean + np.sqrt(sigma2) * z if s else mean
    assert norm(actual - expected) <= 1e-15 * norm(expected)
    assert [(one is x, at) for one, at in seen] == [(True, t)]
    assert np.array_equal(classifier_shift(gradient)(x, t, x, 0.25), 0.25 * slope)


def test_a_shift_is_given_the_step_and_comes_after_thresholding():
    x, x0 = draws(2)
    asked = []

    def shift(x_t, t, mean, variance):
        asked.append((t, mean, variance))
        return 5 + 0 * mean

    predict = predictor(SCHEDULE, lambda x, t: 9 * x0, "x0", (-1, 1))
    way = [x, *(x for _, x in ancestral(SCHEDULE, predict, x, [2, 6, 10], lambda t: 0 * x0, shift=shift))]
    for (t, mean, variance), s, before, after in zip(asked, [6, 2, 0], way, way[1:], strict=False):
        assert norm(mean - posterior_mean(SCHEDULE, before, (9 * x0).clip(-1, 1), t, s)) <= 1e-15 * norm(mean)
        assert variance == posterior_variance(SCHEDULE, t, s)
        assert np.array_equal(after, mean + 5)
    assert [t for t, _, _ in asked] == [10, 6, 2]


def test_shifts_by_the_perfect_classifier_bring_the_samples_of_its_class():
    """Of two classes at -1 and 1, in 400 steps: first order in the step is then enough for two digits."""
    means, weights, spread = np.array([[-1.0], [1.0]]), np.array([0.5, 0.5]), 0.04
    both = GaussianMixture(weights, means, np.full((2, 1, 1), spread))
    schedule, n = rescaled_linear(400), 4000
    rng = np.random.default_rng(1)
    x, noise = rng.standard_normal((n, 1)), {t: rng.standard_normal((n, 1)) for t in range(400, 0, -1)}

    def gradient(x_t, t):
        """Of log p(second class | x_t) = -log(1 + exp(-k x_t))."""
        a = np.sqrt(schedule.alpha_bar[t])
        k = 2 * a / (a**2 * spread + schedule.one_minus_alpha_bar[t])
        return k / (1 + np.exp(k * x_t))

    predict = predictor(schedule, partial(both.eps, schedule))
    ends = {
        scale: final(
            ancestral(schedule, predict, x, range(1, 401), noise.get, step_variance, classifier_shift(gradient, scale))
        )
        for scale in (0.0, 1.0)
    }
    assert abs(ends[0.0].mean()) < 5 / np.sqrt(n)
    assert abs(ends[1.0].mean() - 1) < 0.02
    assert abs(ends[1.0].std() - 0.2) < 0.02
    assert (ends[1.0] < 0).mean() < 0.002


def test_classifier_free_guidance_exaggerates_the_difference():
    _, one, other = draws()
    assert norm(classifier_free_guidance(one, other, 3.0) - (3 * one - 2 * other)) <= 1e-14 * norm(one)
    assert np.array_equal(classifier_free_guidance(one, other, 0.0), other)


def test_rescaling_gives_a_guided_sample_the_contrast_of_the_conditional_one():
    """The standard deviation over all elements of each sample, by the library's own; mixed with what it was."""
    conditional, guided = draws(2, (3, 4, 5, 2)) * np.array([1.0, 2.0, 0.5])[:, None, None, None] + 7
    guided = 3 * guided
    own = [c.std() / g.std() for c, g in zip(conditional, guided, strict=True)]
    for phi in (0.3, 1.0):
        actual = rescaled_guidance(conditional, guided, phi)
        for g, r, y in zip(guided, own, actual, strict=True):
            assert norm(y - (phi * g * r + (1 - phi) * g)) <= 1e-14 * norm(g)
    assert rescaled_guidance(conditional, guided, 0.0) is guided
    np.testing.assert_allclose(rescaled_guidance(conditional, conditional, 0.8), conditional, rtol=1e-15)
    flat = np.full((3, 4), 0.25)
    assert np.array_equal(rescaled_guidance(draws(1, (3, 4))[0], flat, 0.9), flat)


@pytest.mark.parametrize("phi", [-0.1, 1.1, np.nan])
def test_a_rescaling_out_of_range_is_refused(phi):
    with pytest.raises(ValueError, match="phi: expected a number from 0 to 1, got"):
        rescaled_guidance(np.ones((2, 3)), np.ones((2, 3)), phi)


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_the_contrast_of_a_single_number_is_refused(shape):
    with pytest.raises(ValueError, match=r"conditional: expected samples of several elements \(N, ...\), got shape"):
        rescaled_guidance(np.ones(shape), np.ones(shape), 0.5)


def test_predictions_of_two_shapes_are_refused():
    with pytest.raises(ValueError, match=r"conditional: expected the shape \(1, 5\) of uncond.*, got \(4, 5\)"):
        classifier_free_guidance(np.ones((4, 5)), np.ones((1, 5)), 2.0)


def test_thresholds_are_a_samples_own():
    x0 = draws(1)[0] * np.array([0.1, 1.0, 3.0, 9.0])[:, None]
    actual = dynamic_threshold(x0, 0.7)
    for x, y in zip(x0, actual, strict=True):
        limit = max(1.0, np.quantile(abs(x), 0.7))
        assert norm(y - x.clip(-limit, limit) / limit) <= 1e-15 * norm(y)
    assert np.array_equal(actual[0], x0[0])
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
        lambda x, y, z: rescaled_guidance(x, 3 * y, 0.7),
        lambda x, y, z: dynamic_threshold(3 * x, 0.9),
        lambda x, y, z: predictor(SCHEDULE, lambda x, t: y, "x0", dynamic_threshold)(x, 4)[1],
    ):
        actual, expected = f(*map(library.asarray, (x, y, z))), f(x, y, z)
        assert type(actual) is type(library.asarray(0.0))
        assert expected.dtype == dtype
        assert norm(np.asarray(actual) - expected) <= 4 * np.finfo(dtype).eps * norm(expected)


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

    actual = final(ddim(schedule, predictor(schedule, v, "v"), x, range(1, 21)))
    assert norm(actual - x0) <= 1e-13 * norm(x0)
