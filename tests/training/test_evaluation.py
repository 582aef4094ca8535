"""The measures of samples, against closed forms and against data whose answer is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff.training import Config, State, class_counts, classes_covered, eps_error, evaluate, frechet_distance
from refdiff.training.data import load, mixture

seeds = st.integers(0, 2**32 - 1)


@given(seeds, st.integers(1, 5), st.integers(6, 40))
def test_the_distance_of_a_set_to_its_shift_is_the_square_of_the_shift(seed, d, n):
    rng = np.random.default_rng(seed)
    x, shift = rng.standard_normal((n, d)), rng.standard_normal(d)
    assert frechet_distance(x, x + shift) == pytest.approx((shift**2).sum(), rel=1e-6, abs=1e-6)


@given(seeds, st.integers(1, 5), st.floats(0.1, 10))
def test_the_distance_of_a_set_to_its_scaling(seed, d, scale):
    # C_b = s^2 C_a commute: tr(C_a) (1 - s)^2, about the same mean.
    x = np.random.default_rng(seed).standard_normal((30, d))
    x -= x.mean(axis=0)
    wanted = np.trace(np.atleast_2d(np.cov(x.T))) * (1 - scale) ** 2
    assert frechet_distance(x, scale * x) == pytest.approx(wanted, rel=1e-6, abs=1e-6)


@given(seeds)
def test_the_trace_of_the_root_agrees_with_the_eigenvalues_of_the_plain_product(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((50, 4)) @ rng.standard_normal((4, 4)), rng.standard_normal((50, 4))
    ca, cb = np.cov(a.T), np.cov(b.T)
    root = np.sqrt(np.linalg.eigvals(ca @ cb).real.clip(0)).sum()
    wanted = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(ca) + np.trace(cb) - 2 * root
    assert frechet_distance(a, b) == pytest.approx(wanted, rel=1e-8)
    assert frechet_distance(b, a) == pytest.approx(wanted, rel=1e-8)


def test_one_sample_has_no_covariance():
    with pytest.raises(ValueError, match="at least 2 samples on each side, got 1 and 5"):
        frechet_distance(np.ones((1, 3)), np.ones((5, 3)))


def test_real_digits_cover_all_classes_and_a_single_digit_covers_one():
    data = load("digits")
    counts = class_counts(data.held_out, data)
    assert counts.sum() == len(data.held_out)
    assert classes_covered(counts) == 10
    zeros = class_counts(np.repeat(data.held_out[data.held_out_labels == 0][:1], 50, axis=0), data)
    assert zeros.tolist() == [50] + [0] * 9
    assert classes_covered(zeros) == 1


def test_floor_and_ceiling_stand_around_real_images_and_noise():
    config = Config()
    data = load("digits")
    metrics = evaluate(config, {}, data.x[:500], data)
    assert metrics["frechet_floor"] < metrics["frechet_samples"] < 1.0 < 50 < metrics["frechet_noise"]
    assert metrics["classes_covered"] == metrics["classes"] == 10


def test_an_untrained_model_is_far_from_the_perfect_denoiser_and_the_perfect_one_is_not_beaten():
    # An untrained network predicts eps = 0, whose error is E[eps^2] = 1.
    config = Config.resolve("mixture")
    error = eps_error(config, State.first(config).p, mixture(4000, start=9))
    assert error["eps_error_model"] == pytest.approx(1, abs=0.06)
    assert 0.1 < error["eps_error_exact"] < 0.5
    assert error["eps_error_ratio"] == error["eps_error_model"] / error["eps_error_exact"]
