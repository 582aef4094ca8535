"""Sampling with a learned variance: the step, the run, what hands v on and what ignores it, in every precision."""

import math
from functools import partial

import numpy as np
import pytest
from helpers import draws

from refdiff.process import (
    ancestral,
    ancestral_step,
    classifier_shift,
    ddim,
    dpmpp_2m,
    dpmpp_2s,
    dynamic_threshold,
    euler,
    euler_ancestral,
    final,
    from_beta,
    heun,
    learned_log_variance,
    linear,
    posterior_mean,
    posterior_variance,
    predictor,
    step_variance,
)

S = linear(20, 0.02, 0.4)


def model(x, t):
    return np.tanh(x + t / 20), np.sin(3 * x)


def noise(t):
    return draws(t, (4, 3), 1)[0]


@pytest.mark.parametrize("kind", ["x0", "eps", "v"])
@pytest.mark.parametrize("clip", [None, (-0.5, 0.4), dynamic_threshold])
def test_predict_hands_on_what_a_model_says_beside_its_prediction(kind, clip):
    x = noise(0)
    pair = predictor(S, lambda x, t: model(x, t)[0], kind, clip)(x, 7)
    assert len(pair) == 2
    for said in (tuple, list):
        x0_hat, eps_hat, v = predictor(S, lambda x, t, said=said: said(model(x, t)), kind, clip)(x, 7)
        assert np.array_equal(v, np.sin(3 * x))
        assert (x0_hat.tobytes(), eps_hat.tobytes()) == tuple(a.tobytes() for a in pair)
    assert predictor(S, lambda x, t: (model(x, t)[0], None), kind, clip)(x, 7)[2] is None


def test_a_threshold_holds_the_prediction_and_leaves_v():
    x0_hat, _, v = predictor(S, lambda x, t: (9 * x, 9 * x), "x0", (-1, 1))(noise(0), 7)
    assert abs(x0_hat).max() == 1
    assert np.array_equal(v, 9 * noise(0))


def test_every_step_has_the_variance_between_its_own_two():
    x, (a, b) = noise(0), draws(1, (4, 3))
    for t, s in ((20, 19), (20, 3), (7, 2), (2, 1)):
        actual = ancestral_step(S, x, t, s, a, b, "learned", v=np.sin(x))
        variance = np.exp(learned_log_variance(S, np.sin(x), t, s)[0])
        assert np.allclose(actual, posterior_mean(S, x, a, t, s) + np.sqrt(variance) * b, rtol=1e-14, atol=1e-14)
        assert posterior_variance(S, t, s) < variance.min() < variance.max() < step_variance(S, t, s)


def test_a_run_asks_the_model_for_the_variance_of_each_of_its_steps():
    predict, chosen, x = predictor(S, model, "x0"), [2, 5, 11, 20], noise(0)
    for t, (s, actual) in zip(chosen[::-1], ancestral(S, predict, x, chosen, noise, "learned"), strict=True):
        said, v = model(x, t)
        x = ancestral_step(S, x, t, s, said, noise(t), "learned", v=v)
        assert np.array_equal(actual, x)
    other = final(
        ancestral(S, predictor(S, lambda x, t: (model(x, t)[0], np.cos(x)), "x0"), noise(0), chosen, noise, "learned")
    )
    assert not np.allclose(other, x)


def test_the_last_step_adds_no_noise():
    predict = predictor(S, model, "x0")
    one, other = (
        final(ancestral(S, predict, noise(0), [3, 9, 20], n, "learned"))
        for n in (noise, lambda t: noise(t) + 1e3 * (t == 3))
    )
    assert np.array_equal(one, other)


@pytest.mark.parametrize("T", [1, 2])
@pytest.mark.parametrize("end", [0.3, 1.0])
def test_few_steps_and_an_end_without_signal(T, end):
    schedule, x = from_beta([*[0.2] * (T - 1), end]), noise(0)
    predict = predictor(schedule, lambda x, t: (np.tanh(x), np.sin(3 * x)), "v")
    way = dict(ancestral(schedule, predict, x, range(1, T + 1), noise, "learned"))
    assert list(way) == list(range(T))[::-1]
    assert all(np.isfinite(y).all() for y in way.values())
    low, high = posterior_variance(schedule, T, T - 1), step_variance(schedule, T, T - 1)
    sigma = np.sqrt(low) * (high / low) ** (0.25 * (1 + np.sin(3 * x))) if T > 1 else 0
    mean = posterior_mean(schedule, x, predict(x, T)[0], T, T - 1)
    assert way[T - 1] == pytest.approx(mean + sigma * noise(T), rel=1e-13)


@pytest.mark.parametrize(
    "sampler",
    [
        lambda p, x: ddim(S, p, x, [2, 9, 20], noise, 0.7),
        lambda p, x: euler_ancestral(S, p, x, [2, 9, 20], noise),
        lambda p, x: ancestral(S, p, x, [2, 9, 20], noise),
        lambda p, x: ancestral(S, p, x, [2, 9, 20], noise, step_variance),
        *(lambda p, x, f=f: f(S, p, x, [2, 9, 20]) for f in (euler, heun, dpmpp_2m, dpmpp_2s)),
    ],
)
def test_all_that_has_a_variance_of_its_own_ignores_v(sampler):
    said, plain = (predictor(S, m, "v") for m in (model, lambda x, t: model(x, t)[0]))
    for (s, actual), (_, expected) in zip(sampler(said, noise(0)), sampler(plain, noise(0)), strict=True):
        assert np.array_equal(actual, expected), s


def test_a_shift_is_given_the_variance_of_each_element():
    x, (a, b) = noise(0), draws(1, (4, 3))
    for s in (4, 0):
        variance = np.exp(learned_log_variance(S, np.sin(x), 9, s)[0])
        shifted = ancestral_step(S, x, 9, s, a, b, "learned", classifier_shift(lambda x, t: np.cos(x), 2.0), np.sin(x))
        plain = ancestral_step(S, x, 9, s, a, b, "learned", v=np.sin(x))
        assert np.allclose(shifted - plain, 2 * variance * np.cos(x), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(("dtype", "bound"), [(np.float16, 2e-3), (np.float32, 1e-6), (np.float64, 1e-14)])
def test_the_dtype_is_kept_and_a_small_variance_is_not_lost(dtype, bound):
    schedule = from_beta([1e-8] * 5)  # whose roots are numbers of half precision, as they themselves are not
    x, v, eps = (a.astype(dtype) for a in draws(2, (4, 3), 3))
    for vs in (v, -np.ones_like(v), np.ones_like(v)):
        actual = ancestral_step(schedule, 0 * x, 5, 3, 0 * x, eps, "learned", v=vs)
        log_variance, _ = learned_log_variance(schedule, vs.astype(np.float64), 5, 3)
        expected = np.exp(0.5 * log_variance) * eps
        assert actual.dtype == dtype
        assert np.allclose(actual.astype(np.float64), expected, rtol=bound, atol=6e-8 if dtype == np.float16 else 0)
        assert np.all(actual[eps != 0] != 0)


def test_the_best_learned_variance_is_nearer_to_a_gaussian_than_both_fixed_ones():
    # x_0 ~ N(0, c): x0_hat = a c x_t / (a^2 c + s^2), and the reverse step's variance is known in closed form.
    c, chosen = 0.3, [2, 6, 13, 20]
    a2, s2 = S.alpha_bar, S.one_minus_alpha_bar
    steps = list(zip(chosen, [0, *chosen], strict=False))

    def gaussian(x, t):
        s = dict(steps)[t]
        low, high = posterior_variance(S, t, s), step_variance(S, t, s)
        if s == 0:
            return math.sqrt(a2[t]) * c / (a2[t] * c + s2[t]) * x, 0 * x
        best = low + a2[s] * high**2 / s2[t] ** 2 * s2[t] * c / (a2[t] * c + s2[t])
        return math.sqrt(a2[t]) * c / (a2[t] * c + s2[t]) * x, 0 * x + 2 * np.log(best / low) / np.log(high / low) - 1

    def off(variance):
        """The largest error of the variance of x_s, from the gains of each step, s = 2, 6, 13."""
        now, errors = a2[20] * c + s2[20], []
        for t, s in steps[:0:-1]:
            one, zero = np.ones((1, 1)), np.zeros((1, 1))
            x0_hat, v = gaussian(one, t)
            step = partial(ancestral_step, S, t=t, t_prev=s, variance=variance, v=v)
            gain = step(x=one, x0_hat=x0_hat, eps=zero).item()
            now = gain**2 * now + step(x=zero, x0_hat=zero, eps=one).item() ** 2
            errors.append(abs(now / (a2[s] * c + s2[s]) - 1))
        return max(errors)

    assert off("learned") <= 1e-14
    assert min(off(posterior_variance), off(step_variance)) > 0.05
