"""Noise at a learned level: what z_0 and z_1 cost, a network that only rises, Fourier features, a step of learned beta.
The contracts of these operations are tested with those of `test_likelihood_ops`, from one table."""

import mpmath
import numpy as np
import pytest
from engines.likelihood_cases import LEVELS, levels
from helpers import normal
from hypothesis import given
from hypothesis import strategies as st

from refdiff.engines import reference as engine
from refdiff.engines.reference.activation import sigmoid
from refdiff.process import (
    linear,
    posterior_log_variance,
    posterior_mean_coefficients,
)
from refdiff.testing.measures import relative_error
from refdiff.testing.strategies import schedules

seeds = st.integers(0, 2**32 - 1)
shapes = st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple)
sizes = st.sampled_from([0.1, 1.0, 5.0, 20.0])


@given(shapes, sizes, seeds)
def test_diffuse_keeps_the_variance_and_its_ratio_is_gamma(shape, size, seed):
    gamma = size * np.random.default_rng(seed).uniform(-1, 1, shape[0])
    one, none = np.ones(shape), np.zeros(shape)
    alpha, sigma = engine.diffuse(one, none, gamma)[0], engine.diffuse(none, one, gamma)[0]
    np.testing.assert_allclose(alpha**2 + sigma**2, 1, rtol=1e-14)
    np.testing.assert_allclose(2 * np.log(sigma / alpha), gamma.reshape(-1, *[1] * (one.ndim - 1)) + none, rtol=1e-13)
    x, eps = normal(seed, 2, *shape)
    assert relative_error(engine.diffuse(x, eps, gamma)[0], alpha * x + sigma * eps) <= 1e-15


@given(shapes, sizes, seeds)
def test_prior_kl_is_the_divergence_of_what_diffuse_draws(shape, size, seed):
    gamma = size * np.random.default_rng(seed).uniform(-1, 1, shape[0])
    x = normal(seed, *shape)
    mean, log_variance = engine.diffuse(x, 0 * x, gamma)[0], -engine.softplus(-gamma)[0]
    y, _ = engine.prior_kl(x, gamma)
    expected, _ = engine.gaussian_kl(mean, log_variance)
    scale = 1 + expected + sigmoid(-gamma) * x.size
    assert relative_error(y, expected, scale) <= 1e-14
    assert (y > 0).all()


@given(st.integers(1, 4), st.integers(1, 5), sizes, seeds)
def test_the_likelihoods_of_all_levels_of_one_z_add_up_to_one(n, count, size, seed):
    """z_0 stays where it is while x goes through the levels of the first element: eps makes up for it."""
    rng = np.random.default_rng(seed)
    x, eps = levels(rng, (n, count)), rng.standard_normal((n, count))
    gamma = size * rng.uniform(-1, 1, n)
    others, _ = engine.levels_log_likelihood(x[:, 1:], eps[:, 1:], gamma, LEVELS) if count > 1 else (0.0, None)
    total = 0.0
    for level in np.linspace(-1, 1, LEVELS):
        moved, noise = x.copy(), eps.copy()
        moved[:, 0] = level
        noise[:, 0] += (x[:, 0] - level) * np.exp(-0.5 * gamma)
        y, _ = engine.levels_log_likelihood(moved, noise, gamma, LEVELS)
        assert (y <= 0).all()
        total = total + np.exp(y - others)
    np.testing.assert_allclose(total, 1, rtol=1e-9)


def weights(seed, units, size):
    rng = np.random.default_rng(seed)
    return rng.standard_normal(1) + 3, *(size * rng.standard_normal((3, units)))


@given(st.integers(0, 30), sizes, seeds)
def test_monotone_is_0_and_1_at_its_ends_and_rises(units, size, seed):
    """Whatever the signs of its parameters."""
    t = np.linspace(0, 1, 101)
    (f, slope), _ = engine.monotone(t, *weights(seed, units, size))
    assert (f[0], f[-1]) == (0, 1)
    assert (np.diff(f) > 0).all()
    assert (slope > 0).all()
    if units == 0:
        np.testing.assert_allclose(f, t, rtol=1e-15)
        np.testing.assert_allclose(slope, 1, rtol=1e-15)


@given(st.integers(1, 30), st.sampled_from([0.1, 1.0, 3.0]), seeds)
def test_the_slope_of_monotone_is_its_derivative(units, size, seed):
    """f(b) - f(a) is the integral of f' from a to b, by 24 nodes of Gauss and Legendre."""
    a, b = np.sort(np.random.default_rng(seed).uniform(0, 1, 2))
    nodes, share = np.polynomial.legendre.leggauss(24)
    p = weights(seed, units, size)
    (_, slope), _ = engine.monotone(a + (b - a) * (nodes + 1) / 2, *p)
    (f, _), _ = engine.monotone(np.array([a, b]), *p)
    assert f[1] - f[0] == pytest.approx((b - a) / 2 * (share @ slope), abs=1e-13)


@given(shapes, seeds)
def test_fourier_features_of_integers_are_0_and_1(shape, seed):
    """And of halves, sin(pi / 2) and so on: what they say is where between two integers a number lies."""
    x = np.random.default_rng(seed).integers(-8, 9, (*shape, 2)).astype(np.float64)
    c, (y, _) = 2, engine.fourier_features(x, (0, 1, 7))
    assert y.shape == (*shape, 14)
    assert np.array_equal(y[..., :c], x)
    np.testing.assert_allclose(y[..., c : 4 * c], 0, atol=1e-12)
    np.testing.assert_allclose(np.abs(y[..., 4 * c :]), 1, rtol=1e-12)
    assert np.array_equal(y[..., 4 * c : 5 * c] > 0, x % 2 == 0)
    shifted, _ = engine.fourier_features(x + 0.5, (0,))
    np.testing.assert_allclose(np.abs(shifted[..., c : 2 * c]), 1, rtol=1e-12)
    np.testing.assert_allclose(shifted[..., 2 * c :], 0, atol=1e-12)
    assert np.array_equal(engine.fourier_features(x, ())[0], x)


@given(schedules(max_T=60, terminal=False, respaced=False))
def test_posterior_step_is_the_posterior_of_a_schedule_of_these_betas(schedule):
    beta = schedule.beta[2:]
    if not len(beta):
        return
    t, log_alpha_bar = np.arange(2, schedule.T + 1), np.cumsum(np.log1p(-schedule.beta[1:]))[:-1]
    logit = np.log(beta) - np.log1p(-beta)
    (gamma, c0, ct, log_variance, root_alpha, root_beta), _ = engine.posterior_step(log_alpha_bar, logit)
    expected_0, expected_t = posterior_mean_coefficients(schedule, t)
    np.testing.assert_allclose(np.exp(gamma), schedule.one_minus_alpha_bar[t] / schedule.alpha_bar[t], rtol=1e-11)
    np.testing.assert_allclose(c0, expected_0, rtol=1e-11)
    np.testing.assert_allclose(ct, expected_t, rtol=1e-11)
    np.testing.assert_allclose(log_variance, posterior_log_variance(schedule, t), rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(root_alpha**2, 1 - beta, rtol=1e-12)
    np.testing.assert_allclose(root_beta**2, beta, rtol=1e-12)


GAMMA = np.array([-20.0, -5, 0, 5, 20])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_levels_of_noise_from_e_to_the_minus_20_to_e_to_the_20(dtype):
    """Finite, and the limits: where there is no noise x is certain, where there is nothing else all levels are alike."""
    rng, eps = np.random.default_rng(0), 64 * np.finfo(dtype).eps
    x, noise = levels(rng, (5, 6)).astype(dtype), rng.standard_normal((5, 6)).astype(dtype)
    gamma = GAMMA.astype(dtype)
    z, saved = engine.diffuse(x, noise, gamma)
    kl, saved_kl = engine.prior_kl(x, gamma)
    log, saved_log = engine.levels_log_likelihood(x, noise, gamma, LEVELS)
    gradients = [
        engine.diffuse_backward(np.ones_like(z), saved), engine.prior_kl_backward(1.0, saved_kl),
        engine.levels_log_likelihood_backward(1.0, saved_log),
    ]  # fmt: skip
    assert all(np.isfinite(a).all() and a.dtype == dtype for a in (z, kl, log, *gradients))
    assert abs(log[0]) <= 1e-6
    assert log[-1] == pytest.approx(-6 * np.log(LEVELS), rel=1e-3)
    with mpmath.workdps(50):
        for n, g in enumerate(map(mpmath.mpf, GAMMA.tolist())):
            alpha2, sigma2 = 1 / (1 + mpmath.exp(g)), 1 / (1 + mpmath.exp(-g))
            square = mpmath.fsum(mpmath.mpf(float(a)) ** 2 for a in x[n])
            exact = (alpha2 * square + 6 * (sigma2 - 1 - mpmath.log(sigma2))) / 2
            assert abs(kl[n] - exact) <= eps * (1 + abs(g)) * alpha2 * (square + 6) + eps * abs(exact)


@pytest.mark.parametrize("logit", [-20.0, -5.0, 0.0, 5.0, 20.0])
def test_a_step_of_extreme_beta(logit):
    """Also where almost nothing, or almost everything, was there before."""
    log_alpha_bar = np.array([-1e-8, -1e-3, -1.0, -40.0])
    y, saved = engine.posterior_step(log_alpha_bar, np.full(4, logit))
    assert all(np.isfinite(a).all() for a in y)
    assert all(np.isfinite(a).all() for a in engine.posterior_step_backward(tuple(map(np.ones_like, y)), saved))
    with mpmath.workdps(50):
        beta = 1 / (1 + mpmath.exp(-mpmath.mpf(logit)))
        for n, log in enumerate(map(mpmath.mpf, log_alpha_bar.tolist())):
            before, now = mpmath.exp(log), mpmath.exp(log) * (1 - beta)
            expected = (
                mpmath.log((1 - now) / now), mpmath.sqrt(before) * beta / (1 - now),
                mpmath.sqrt(1 - beta) * (1 - before) / (1 - now), mpmath.log(beta * (1 - before) / (1 - now)),
                mpmath.sqrt(1 - beta), mpmath.sqrt(beta),
            )  # fmt: skip
            for actual, exact in zip(y, expected, strict=True):
                assert abs(actual[n] - exact) <= 2e-14 * (abs(exact) + (actual is y[0]) + (actual is y[3]))


def test_a_gradient_by_logit_moves_the_whole_schedule():
    """beta_t by a small step: the derivatives of posterior_step and the sum of logarithms before it, in one chain."""
    schedule = linear(12)
    logit = np.log(schedule.beta[1:]) - np.log1p(-schedule.beta[1:])

    def total(logit):
        sums, of_sums = engine.cumulative_sum(engine.scale(engine.softplus(logit)[0], -1.0)[0])
        y, of_y = engine.posterior_step(sums[:-1], logit[1:])
        return sum(a.sum() for a in y), of_sums, of_y, y

    _, of_sums, of_y, y = total(logit)
    dsums, dlogit = engine.posterior_step_backward(tuple(map(np.ones_like, y)), of_y)
    minus = engine.cumulative_sum_backward(np.append(dsums, 0.0), of_sums)
    g = engine.softplus_backward(-minus, logit) + np.append(0.0, dlogit)
    for k in range(12):
        moved = logit.astype(np.complex128)
        moved[k] += 1e-30j
        assert g[k] == pytest.approx(total(moved)[0].imag * 1e30, rel=1e-12)


def test_shapes_that_do_not_fit_are_refused():
    a, b = np.ones((3, 2)), np.ones(2)
    for call in (
        lambda: engine.diffuse(a, a, b), lambda: engine.diffuse(a, a[:, :1], a[:, 0]), lambda: engine.prior_kl(a, b),
        lambda: engine.levels_log_likelihood(a, a, b, LEVELS),
    ):  # fmt: skip
        with pytest.raises(AssertionError, match=r"diffuse|prior_kl|levels_log_likelihood"):
            call()
