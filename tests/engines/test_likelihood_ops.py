"""Likelihoods, divergences, draws that can be differentiated: contracts, 50 digits, and what they mean."""

from itertools import product

import mpmath
import numpy as np
import pytest
from engines.likelihood_cases import CASES, drawn
from helpers import normal
from hypothesis import given
from hypothesis import strategies as st

from refdiff.engines import reference as engine
from refdiff.process import kl_gaussian
from refdiff.testing.measures import normal_logpdf, relative_error

seeds = st.integers(0, 2**32 - 1)
shapes = st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple)


@given(st.sampled_from(sorted(CASES)), shapes, seeds)
def test_the_contract_of_an_operation(check_contract, name, shape, seed):
    operation, inputs, parameters, options = drawn(name, (shape[0] + 1, *shape[1:]), seed)
    check_contract(operation, inputs, parameters, seed=seed, **options)


@given(shapes, seeds)
def test_gaussian_log_likelihood_is_the_density(shape, seed):
    x, mean, log = normal(seed, 3, *shape)
    y, _ = engine.gaussian_log_likelihood(x, mean, log)
    expected = normal_logpdf(x, mean, np.exp(log)).reshape(len(x), -1).sum(axis=1)
    np.testing.assert_allclose(y, expected, rtol=1e-13, atol=1e-13)
    of_all = log.reshape(len(x), -1)[:, 0]
    one, _ = engine.gaussian_log_likelihood(x, mean, of_all)
    same, _ = engine.gaussian_log_likelihood(x, mean, np.zeros_like(x) + of_all.reshape(-1, *[1] * (x.ndim - 1)))
    np.testing.assert_allclose(one, same, rtol=1e-14)


@given(shapes, seeds)
def test_gaussian_kl_is_that_of_the_process(shape, seed):
    mean, log, mean_p, log_p = normal(seed, 4, *shape)
    y, _ = engine.gaussian_kl(mean, log, mean_p, log_p)
    expected, _ = kl_gaussian(mean, log, mean_p, log_p)
    np.testing.assert_allclose(y, expected.reshape(len(mean), -1).sum(axis=1), rtol=1e-13)
    standard, saved = engine.gaussian_kl(mean, log)
    np.testing.assert_allclose(standard, engine.gaussian_kl(mean, log, 0 * mean, 0 * log)[0], rtol=1e-14)
    assert engine.gaussian_kl_backward(1.0, saved)[2:] == (None, None)


@given(shapes, seeds, st.floats(-9, 0).map(lambda e: 10**e), st.sampled_from([np.float32, np.float64]))
def test_a_divergence_is_0_for_equal_distributions_and_never_negative(shape, seed, apart, dtype):
    mean, log, away, more = normal(seed, 4, *shape).astype(dtype)
    zero, saved = engine.gaussian_kl(mean, log, mean.copy(), log.copy())
    assert not zero.any()
    assert not any(d.any() for d in engine.gaussian_kl_backward(1.0, saved))
    assert not engine.gaussian_kl(np.zeros(shape, dtype), np.zeros(shape, dtype))[0].any()
    near = mean + dtype(apart) * away, log + dtype(apart) * more
    assert (engine.gaussian_kl(mean, log, *near)[0] >= 0).all()


@given(shapes, seeds)
def test_reparameterise_moves_and_stretches_noise(shape, seed):
    mean, log, eps = normal(seed, 3, *shape)
    z, _ = engine.reparameterise(mean, log, eps)
    np.testing.assert_allclose((z - mean) * np.exp(-0.5 * log), eps, rtol=1e-12, atol=1e-13)
    density, _ = engine.gaussian_log_likelihood(z, mean, log)
    of_noise, _ = engine.gaussian_log_likelihood(eps, 0 * eps, 0 * eps)
    np.testing.assert_allclose(density, of_noise - 0.5 * log.reshape(len(log), -1).sum(axis=1), rtol=1e-11, atol=1e-11)


@given(st.integers(1, 6), seeds, st.sampled_from([0.1, 3.0, 40.0]))
def test_the_probabilities_of_all_bits_add_up_to_one(count, seed, size):
    """Of every x of `count` bits, under the same logits."""
    x = np.array(list(product((0.0, 1.0), repeat=count)))
    logits = np.broadcast_to(size * normal(seed, count), x.shape)
    y, _ = engine.bernoulli_log_likelihood(x, logits)
    assert np.exp(y).sum() == pytest.approx(1, rel=1e-13)
    assert (y <= 0).all()


@given(st.integers(1, 5), st.integers(1, 9), seeds, st.sampled_from([-1e4, -3.0, 700.0, 1e4]))
def test_log_mean_exp_of_a_shift_is_shifted(n, k, seed, shift):
    x = normal(seed, n, k)
    y, saved = engine.log_mean_exp(x)
    shifted, saved_shifted = engine.log_mean_exp(x + shift)
    np.testing.assert_allclose(shifted, y + shift, rtol=1e-15, atol=1e-15 * abs(shift) + 1e-15)
    dx, dx_shifted = (engine.log_mean_exp_backward(1.0, s) for s in (saved, saved_shifted))
    np.testing.assert_allclose(dx, dx_shifted, atol=1e-15 * (1 + abs(shift)))
    np.testing.assert_allclose(dx.sum(axis=1), 1, rtol=1e-14)
    assert (y >= x.mean(axis=1) - 1e-15).all()
    assert (y <= x.max(axis=1) + 1e-15).all()
    np.testing.assert_allclose(engine.log_mean_exp(x[:, :1])[0], x[:, 0], rtol=1e-15, atol=1e-16)


@given(shapes, seeds)
def test_a_number_for_dy_is_that_number_for_each_sample(shape, seed):
    """Also one of float64, whose kind does not spread."""
    for name in ("Gaussian", "divergence", "bits", "importance weights", "prior", "levels"):
        operation, inputs, _, options = drawn(name, shape, seed, np.float32)
        given_inputs = (options.pop("x"), *inputs) if name == "bits" else inputs
        if name in ("prior", "levels"):
            given_inputs = (*(options.pop(key) for key in ("x", "eps") if key in options), *inputs)
        y, saved = getattr(engine, operation)(*given_inputs, **options)
        backward = getattr(engine, f"{operation}_backward")
        results = [backward(dy, saved) for dy in (0.5, np.float64(0.5), np.full(len(y), 0.5, np.float32))]
        first, *others = (r if isinstance(r, tuple) else (r,) for r in results)
        assert all(a.dtype == np.float32 for a in first)
        assert all(np.array_equal(a, b) for other in others for a, b in zip(first, other, strict=True))


EXTREME = np.array([[-30.0, 20.0], [20.0, -30.0], [-30.0, -30.0], [20.0, 20.0]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_variances_from_e_to_the_minus_30_to_e_to_the_20(dtype):
    """Means a deviation of the narrower distribution apart, or 3: within a few roundings of each term."""
    log, log_p = EXTREME[:, :1].astype(dtype), EXTREME[:, 1:].astype(dtype)
    eps = 8 * np.finfo(dtype).eps
    for away in (np.exp(0.5 * np.minimum(log, log_p)), np.full_like(log, 3)):
        zero = np.zeros_like(away)
        kl, saved = engine.gaussian_kl(away, log, zero, log_p)
        density, saved_density = engine.gaussian_log_likelihood(away, zero, log)
        gradients = (
            *engine.gaussian_kl_backward(1.0, saved),
            *engine.gaussian_log_likelihood_backward(1.0, saved_density),
        )
        assert all(np.isfinite(a).all() for a in (kl, density, *gradients))
        z, _ = engine.reparameterise(zero, log, np.ones_like(zero))
        with mpmath.workdps(50):
            for n in range(len(log)):
                a, l, lp = (mpmath.mpf(float(v[n, 0])) for v in (away, log, log_p))
                terms = mpmath.exp(l - lp), l - lp, a**2 * mpmath.exp(-lp)
                exact = (terms[0] - 1 - terms[1] + terms[2]) / 2
                assert abs(kl[n] - exact) <= eps * (sum(map(abs, terms)) + abs(l) * terms[2] + abs(lp) * terms[0])
                square = a**2 * mpmath.exp(-l)
                exact = -(square + l + mpmath.log(2 * mpmath.pi)) / 2
                assert abs(density[n] - exact) <= eps * (2 + abs(l)) * (1 + square)
                assert abs(z[n, 0] / mpmath.exp(l / 2) - 1) <= 4 * eps


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_logits_neither_overflow_nor_warn(dtype):
    """A bit that is certain and right costs nothing, one that is certain and wrong its logit."""
    logits = np.array([[1e4], [1e4], [-1e4], [-1e4], [0.0]], dtype)
    x = np.array([[1.0], [0.0], [0.0], [1.0], [1.0]], dtype)
    y, saved = engine.bernoulli_log_likelihood(x, logits)
    np.testing.assert_allclose(y, [0, -1e4, 0, -1e4, -np.log(2)], rtol=1e-6)
    assert engine.bernoulli_log_likelihood_backward(1.0, saved)[:, 0].tolist() == [0, -1, 0, 1, 0.5]
    y, saved = engine.log_mean_exp(logits.reshape(1, -1))
    assert y[0] == pytest.approx(1e4 + np.log(2 / 5), rel=1e-6)
    assert engine.log_mean_exp_backward(1.0, saved).tolist() == [[0.5, 0.5, 0, 0, 0]]


def test_shapes_that_do_not_fit_are_refused():
    a, b = np.ones((3, 2)), np.ones((3, 1))
    for call in (
        lambda: engine.gaussian_log_likelihood(a, b, a), lambda: engine.gaussian_log_likelihood(a, a, b),
        lambda: engine.gaussian_kl(a, a, b, a), lambda: engine.gaussian_kl(a, a, a), lambda: engine.gaussian_kl(a, b),
        lambda: engine.reparameterise(a, a, b), lambda: engine.bernoulli_log_likelihood(a, b),
        lambda: engine.log_mean_exp(np.ones(3)),
    ):  # fmt: skip
        with pytest.raises(AssertionError, match=r"gaussian|reparameterise|bernoulli|log_mean_exp|one number a sample"):
            call()


def test_the_bound_of_importance_samples_is_at_least_that_of_one():
    """log mean exp is concave: [IWAE] theorem 1, of the same samples."""
    x = 3 * normal(0, 50, 8)
    one, all_of_them = engine.log_mean_exp(x.reshape(-1, 1))[0].reshape(50, 8).mean(axis=1), engine.log_mean_exp(x)[0]
    assert (all_of_them > one).all()
    assert relative_error(one, x.mean(axis=1)) <= 1e-14
