"""The measures of samples, against closed forms and against data whose answer is known."""

import math
import tracemalloc
from unittest import mock

import networks
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff.config import Config
from refdiff.data import Dataset, load, mixture
from refdiff.evaluation import (
    class_counts,
    class_distances,
    classes_covered,
    eps_error,
    evaluate,
    frechet_distance,
    metrics,
)

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


@given(seeds, st.integers(2, 12), st.integers(2, 12), st.integers(1, 30))
def test_sets_smaller_than_their_samples_have_the_distance_of_the_definition(seed, n, m, d):
    """Against the eigenvalues of the product of the covariances, of which all but min(n, m) - 1 are 0."""
    rng = np.random.default_rng(seed)
    a, b = 2 * rng.standard_normal((n, d)), 1 + rng.standard_normal((m, d))
    ca, cb = (np.atleast_2d(np.cov(x.T)) for x in (a, b))
    values = np.sort(np.linalg.eigvals(ca @ cb).real.clip(0))[max(0, d + 1 - min(n, m)) :]
    wanted = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(ca) + np.trace(cb) - 2 * np.sqrt(values).sum()
    assert frechet_distance(a, b) == pytest.approx(wanted, rel=1e-6, abs=1e-6)


def of_classes(rng, n, means, spread=0.1):
    """n samples of two numbers about each class's mean, and their labels."""
    x = np.concatenate([m + spread * rng.standard_normal((n, 2)) for m in means]).astype(np.float32)
    return x, np.repeat(np.arange(len(means)), n)


def test_the_distance_of_each_class_is_that_of_equal_numbers_of_samples():
    rng, means = np.random.default_rng(0), [(0, 0), (3, 1), (-2, 4)]
    (x, labels), (held, of_held) = of_classes(rng, 40, means), of_classes(rng, 10, means)
    data = Dataset("three", x, labels, held, of_held)
    samples, asked = of_classes(rng, 20, [(0, 0), (3, 3), (-2, 4)])
    found = class_distances(samples, asked, data)
    assert found["frechet_class_n"] == 10
    for label in range(3):
        part, own = held[of_held == label], samples[asked == label]
        expected = np.mean([frechet_distance(own[k::2], part) for k in range(2)])
        assert found["frechet_of_class"][label] == pytest.approx(expected)
        real = x[labels == label]
        floor = np.mean([frechet_distance(real[k::4], part) for k in range(4)])
        assert found["frechet_floor_of_class"][label] == pytest.approx(floor)
    assert found["frechet_of_class"][1] > 3.5  # moved by 2
    assert max(found["frechet_of_class"][0], found["frechet_of_class"][2], found["frechet_class_floor"]) < 0.05
    assert found["frechet_class"] == pytest.approx(np.mean(list(found["frechet_of_class"].values())))


def test_fewer_samples_than_are_held_out_decide_and_a_class_with_one_is_left_out():
    rng, means = np.random.default_rng(1), [(0, 0), (3, 1)]
    (x, labels), (held, of_held) = of_classes(rng, 40, means), of_classes(rng, 12, means)
    data = Dataset("two", x, labels, held, of_held)
    samples, asked = of_classes(rng, 6, means)
    asked[7:] = 0  # one of class 1
    found = class_distances(samples, asked, data)
    assert list(found["frechet_of_class"]) == [0]
    assert found["frechet_class_n"] == 11
    assert class_distances(samples[:1], asked[:1], data) == {}
    with pytest.raises(ValueError, match=r"labels: expected \(12,\), one a sample, got \(3,\)"):
        class_distances(samples, asked[:3], data)
    with pytest.raises(ValueError, match="data: expected labels, got none with none"):
        class_distances(samples, asked, Dataset("none", x, None, held, None))


def test_the_floor_of_a_class_of_digits_is_far_above_0_for_real_and_drawn_alike():
    """34 images do not span 64 pixels: real ones of one class, drawn as samples, stand at their floor."""
    data = load("digits")
    rows = np.concatenate([np.flatnonzero(data.labels == k)[::4] for k in range(10)])
    found = class_distances(data.x[rows], data.labels[rows], data)
    assert found["frechet_class_n"] in (34, 35)
    assert found["frechet_class_floor"] > 1
    assert found["frechet_class"] == pytest.approx(found["frechet_class_floor"], rel=0.2)
    labels = np.roll(data.labels[rows], 1 + len(rows) // 10)  # of the next class
    assert class_distances(data.x[rows], labels, data)["frechet_class"] > 4 * found["frechet_class_floor"]


def test_real_digits_cover_all_classes_and_a_single_digit_covers_one():
    data = load("digits")
    counts = class_counts(data.held_out, data)
    assert sum(counts.values()) == len(data.held_out)
    assert list(counts) == list(range(10))
    assert classes_covered(counts) == 10
    zeros = class_counts(np.repeat(data.held_out[data.held_out_labels == 0][:1], 50, axis=0), data)
    assert list(zeros.values()) == [50] + [0] * 9
    assert classes_covered(zeros) == 1


def labelled(labels, n=10, shape=(4, 4, 1), seed=0):
    """n training samples about a mean of each label's own, and n samples at each mean."""
    rng = np.random.default_rng(seed)
    means = rng.uniform(-0.8, 0.8, (len(labels), *shape)).astype(np.float32)
    x = np.repeat(means, n, axis=0) + rng.uniform(-0.05, 0.05, (len(labels) * n, *shape)).astype(np.float32)
    x[:, 0, 0] = -1  # or all of one would be above 0
    means[:, 0, 0] = -1
    own = np.repeat(np.array(labels, np.int64), n)
    return Dataset("labelled", x, own, x[:0], own[:0]), np.repeat(means, n, axis=0)


@pytest.mark.parametrize("labels", [[0, 1, 2], [1, 2, 3], [3, 1, 7], [0, 2_000_000_000, (1 << 62)], [5]])
def test_classes_may_have_any_numbers(labels):
    data, samples = labelled(labels)
    counts = class_counts(samples, data)
    assert counts == dict.fromkeys(sorted(labels), 10)
    assert classes_covered(counts) == len(labels)


def test_a_class_without_training_samples_is_none_and_takes_no_sample():
    data, samples = labelled([1, 2, 3])
    one = np.full(1, -1, np.float32).repeat(16).reshape(1, 4, 4, 1)
    more = Dataset("more", data.x, data.labels, one, np.array([9]))
    assert class_counts(samples, more) == {1: 10, 2: 10, 3: 10}
    with pytest.raises(ValueError, match="labels: expected classes counted from 0, got -1"):
        Dataset("negative", data.x, data.labels - 2, one, np.array([9]))


@given(seeds, st.integers(1, 40), st.integers(0, 30), st.integers(1, 40))
def test_the_nearest_mean_is_that_of_the_definition(seed, n, m, most):
    rng = np.random.default_rng(seed)
    x, samples = (rng.uniform(-1, 1, (k, 3, 2, 1)).astype(np.float32) for k in (n, m))
    labels = rng.integers(0, most, n)
    present = np.unique(labels)
    means = np.stack([x[labels == label].astype(np.float64).mean(axis=0) for label in present])
    nearest = [present[((sample - means) ** 2).sum(axis=(1, 2, 3)).argmin()] for sample in samples]
    data = Dataset("any", x, labels, x[:0], labels[:0])
    expected = {label: nearest.count(label) for label in present.tolist()}
    assert class_counts(samples, data) == expected
    with mock.patch.object(metrics, "AT_ONCE", 13):  # in small parts
        assert class_counts(samples, data) == expected


def test_the_mean_of_a_class_is_that_of_float64():
    x = np.random.default_rng(0).uniform(-1, 1, (3000, 3)).astype(np.float32)
    members = np.arange(0, 3000, 2)
    expected = [math.fsum(column) / len(members) for column in x[members].T.tolist()]
    np.testing.assert_allclose(metrics.mean_of_rows(x, members, 7), expected, rtol=1e-12)


@pytest.mark.parametrize("classes", [10, 400])
def test_classes_are_counted_in_bounded_memory(classes):
    # The samples alone are 117 MiB; all differences to ten means at once were 1.2 GB.
    rng = np.random.default_rng(0)
    x = rng.random((500, 32, 32, 3), np.float32) - np.float32(0.5)
    samples = np.tile(x[:100], (100, 1, 1, 1))
    data = Dataset("large", x, np.arange(500) % classes * 1_000_003, x[:0], np.arange(0))
    tracemalloc.start()
    try:
        counts = class_counts(samples, data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sum(counts.values()) == 10_000
    assert peak < 40e6


def test_samples_that_are_no_numbers_are_in_no_class_and_have_no_distance():
    data, samples = labelled([1, 2, 3])
    samples[3, 2, 1] = np.nan
    for measure in (lambda: class_counts(samples, data), lambda: frechet_distance(samples, data.x)):
        with pytest.raises(ValueError, match="samples: expected finite numbers, got 1 of 480 that are not"):
            measure()
    with pytest.raises(ValueError, match=r"samples: expected \(N, 4, 4, 1\), got \(3, 4, 4\)"):
        class_counts(samples[:3, ..., 0], data)
    with pytest.raises(ValueError, match="data: expected labels, got plain with none"):
        class_counts(samples, Dataset("plain", data.x, None, data.x[:0], None))
    assert class_counts(samples[:0], data) == {1: 0, 2: 0, 3: 0}
    assert classes_covered({1: 0}) == classes_covered({}) == 0


def test_too_few_samples_are_refused():
    data, _ = labelled([1, 2, 3])
    with pytest.raises(ValueError, match="n: expected at least 2 samples to measure, got 1"):
        evaluate(networks.trained(Config()), data.x[:1], data)
    with pytest.raises(ValueError, match=r"data: expected at least 2 .* and 2 held out, got labelled with 30 and 0"):
        evaluate(networks.trained(Config()), data.x, data)


def test_floor_and_ceiling_stand_around_real_images_and_noise():
    data = load("digits")
    metrics = evaluate(networks.trained(Config()), data.x[:500], data)
    assert metrics["frechet_floor"] < metrics["frechet_samples"] < 1.0 < 50 < metrics["frechet_noise"]
    assert metrics["classes_covered"] == metrics["classes"] == 10


def test_an_untrained_model_is_far_from_the_perfect_denoiser_and_the_perfect_one_is_not_beaten():
    # An untrained network predicts eps = 0, whose error is E[eps^2] = 1.
    error = eps_error(networks.trained(Config.resolve("mixture")), mixture(4000, start=9))
    assert error["eps_error_model"] == pytest.approx(1, abs=0.06)
    assert 0.1 < error["eps_error_exact"] < 0.5
    assert error["eps_error_ratio"] == error["eps_error_model"] / error["eps_error_exact"]
