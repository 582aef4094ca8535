"""Likelihoods, divergences and noise levels on the CPU engine: the reference's numbers, also where they are extreme."""

from inspect import signature

import numpy as np
import pytest
from engines.likelihood_cases import CASES, LEVELS, drawn, levels
from hypothesis import given
from hypothesis import strategies as st

from refdiff.engines import cpu, reference
from refdiff.engines.cpu import as_reference

seeds = st.integers(0, 2**32 - 1)
shapes = st.lists(st.integers(1, 6), max_size=2).map(tuple)


@given(st.sampled_from(sorted(CASES)), st.integers(4, 9), shapes, seeds)
def test_it_is_the_reference(agree, name, n, shape, seed):
    operation, inputs, parameters, options = drawn(name, (n, *shape), seed)
    agree(operation, inputs, parameters, seed=seed, terms=64, **options)


@pytest.mark.parametrize("name", CASES)
def test_in_parts(agree, name):
    """More numbers than are worked out at a time."""
    operation, inputs, parameters, options = drawn(name, (7, 33, 260), 0)
    agree(operation, inputs, parameters, seed=0, terms=33 * 260, **options)


@given(st.sampled_from(sorted(CASES)), seeds)
def test_a_sample_has_the_same_bits_alone_and_in_a_batch(name, seed):
    """Whatever it is put together with: the parts that are worked out at a time may have any size."""
    operation, inputs, parameters, options = drawn(name, (7, 3, 2), seed, np.float32)
    free = [key for key in signature(getattr(cpu, operation)).parameters if key not in options]
    named = dict(zip(free, inputs, strict=False)) | options

    def part(rows):
        return {key: a[rows] if isinstance(a, np.ndarray) else a for key, a in named.items()}

    whole, _ = getattr(cpu, operation)(**named, **parameters)
    for rows in (slice(0, 1), slice(3, 5), slice(4, 7)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(as_reference, "PART", 10)
            again, _ = getattr(cpu, operation)(**part(rows), **parameters)
        pairs = zip(again, whole, strict=True) if isinstance(whole, tuple) else [(again, whole)]
        assert all(a.tobytes() == b[rows].tobytes() for a, b in pairs)


@given(st.integers(1, 9), seeds)
def test_a_number_for_dy_is_that_number_for_each_sample(n, seed):
    rng = np.random.default_rng(seed)
    x, mean, log = rng.standard_normal((3, n, 4), dtype=np.float32)
    saved = {
        "gaussian_log_likelihood": cpu.gaussian_log_likelihood(x, mean, log),
        "gaussian_kl": cpu.gaussian_kl(mean, log),
        "bernoulli_log_likelihood": cpu.bernoulli_log_likelihood(x, mean),
        "log_mean_exp": cpu.log_mean_exp(x),
        "prior_kl": cpu.prior_kl(x, mean[:, 0]),
        "levels_log_likelihood": cpu.levels_log_likelihood(x, mean, log[:, 0], LEVELS),
    }
    for name, (y, of_y) in saved.items():
        backward = getattr(cpu, f"{name}_backward")
        first, *others = (backward(dy, of_y) for dy in (np.full(len(y), 0.3, np.float32), 0.3, np.float64(0.3)))
        for other in others:
            pairs = zip(first, other, strict=True) if isinstance(first, tuple) else [(first, other)]
            for a, b in pairs:
                assert (a is None and b is None) or (b.dtype == np.float32 and a.tobytes() == b.tobytes())


LOGITS = np.array([[1e4, -1e4, 3, 0], [1e4, 1e4, -1e4, -1e4], [-1e4, 30, -30, 1], [0, 0, 0, 0]], np.float32)
GAMMA = np.array([-20, -7, 0, 20], np.float32)
LOG_VARIANCE = np.array([[-30, 20, 0, -30], [20, -30, -30, 5], [-30, -30, 20, 20], [1, 2, -3, 4]], np.float32)


def extremes():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 4, 4), dtype=np.float32)
    x, bits = levels(rng, (4, 4)).astype(np.float32), rng.integers(0, 2, (4, 4)).astype(np.float32)
    return {
        "bernoulli_log_likelihood": (bits, LOGITS), "log_mean_exp": (LOGITS,), "softplus": (LOGITS,),
        "gaussian_log_likelihood": (a, b, LOG_VARIANCE), "gaussian_kl": (a, LOG_VARIANCE, b, LOG_VARIANCE.T.copy()),
        "reparameterise": (a, LOG_VARIANCE, b), "diffuse": (x, a, GAMMA), "prior_kl": (x, GAMMA),
        "levels_log_likelihood": (x, a, GAMMA, LEVELS), "posterior_step": (-np.exp(GAMMA / 4), GAMMA),
    }  # fmt: skip


@pytest.mark.parametrize("name", extremes())
def test_extreme_values(name):
    """Every number finite and that of float64, each for itself; none overflows or warns."""
    given_inputs = extremes()[name]
    wide = [a.astype(np.float64) if isinstance(a, np.ndarray) else a for a in given_inputs]
    y, saved = getattr(cpu, name)(*given_inputs)
    exact, exact_saved = getattr(reference, name)(*wide)
    single = not isinstance(y, tuple)
    dy = np.ones_like(y) if single else tuple(map(np.ones_like, y))
    d = getattr(cpu, f"{name}_backward")(dy, saved)
    wide_dy = dy.astype(np.float64) if single else tuple(a.astype(np.float64) for a in dy)
    exact_d = getattr(reference, f"{name}_backward")(wide_dy, exact_saved)
    for actual, expected in ((y, exact), (d, exact_d)):
        pairs = [(actual, expected)] if isinstance(actual, np.ndarray) else zip(actual, expected, strict=True)
        for a, b in pairs:
            assert np.isfinite(a).all()
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-37)


def test_equal_distributions_have_no_divergence_and_near_ones_keep_their_digits():
    """In float32 arithmetic e^d - 1 - d of d = 1e-3 would have three digits."""
    rng = np.random.default_rng(0)
    mean, log, away, more = rng.standard_normal((4, 50, 3), dtype=np.float32)
    assert not cpu.gaussian_kl(mean, log, mean, log)[0].any()
    near = mean + np.float32(1e-4) * away, log + np.float32(1e-3) * more
    y, _ = cpu.gaussian_kl(mean, log, *near)
    exact, _ = reference.gaussian_kl(*(a.astype(np.float64) for a in (mean, log, *near)))
    np.testing.assert_allclose(y, exact, rtol=1e-6)
    assert (y > 0).all()


def test_what_does_not_fit_is_refused():
    a, b = np.ones((3, 2), np.float32), np.ones((3, 1), np.float32)
    for call in (
        lambda: cpu.gaussian_log_likelihood(a, b, a), lambda: cpu.gaussian_kl(a, a, a), lambda: cpu.diffuse(a, b, a[:, 0]),
        lambda: cpu.bernoulli_log_likelihood(a, b), lambda: cpu.log_mean_exp(a[0]), lambda: cpu.reparameterise(a, a, b),
        lambda: cpu.prior_kl(a, b), lambda: cpu.levels_log_likelihood(a, a, b, LEVELS),
    ):  # fmt: skip
        with pytest.raises(AssertionError, match=r"gaussian|diffuse|bernoulli|log_mean_exp|reparameterise|kl|levels"):
            call()
    with pytest.raises(ValueError, match="gaussian_kl: expected arrays of float32"):
        cpu.gaussian_kl(a.astype(np.float64), a)
