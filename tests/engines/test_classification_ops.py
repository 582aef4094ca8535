"""The cross entropy of a classifier."""

import mpmath
import numpy as np
import pytest
from helpers import normal
from hypothesis import given
from hypothesis import strategies as st

from refdiff.engines import reference as engine
from refdiff.testing.measures import relative_error

seeds = st.integers(0, 2**32 - 1)
counts = st.integers(1, 6)
classes = st.integers(2, 12)
scales = st.sampled_from([0.1, 1.0, 5.0])


def case(n, k, scale, seed):
    return scale * normal(seed, n, k), np.random.default_rng(seed).integers(0, k, n)


@given(counts, classes, scales, seeds)
def test_cross_entropy(check_contract, n, k, scale, seed):
    logits, label = case(n, k, scale, seed)
    check_contract("cross_entropy", (logits,), seed=seed, label=label)
    assert engine.cross_entropy(logits, label)[0].shape == (n,)


@given(counts, classes, scales, seeds)
def test_cross_entropy_and_its_gradient_against_50_digits(n, k, scale, seed):
    logits, label = case(n, k, scale, seed)
    loss, saved = engine.cross_entropy(logits, label)
    dlogits = engine.cross_entropy_backward(1.0, saved)
    with mpmath.workdps(50):
        for row, of, value, gradient in zip(logits.tolist(), label.tolist(), loss, dlogits, strict=True):
            powers = [mpmath.exp(mpmath.mpf(a)) for a in row]
            exact = mpmath.log(mpmath.fsum(powers)) - mpmath.mpf(row[of])
            assert abs(value - exact) <= 1e-15 * (1 + max(map(abs, row)))
            p = [power / mpmath.fsum(powers) for power in powers]
            assert max(abs(a - (b - (j == of))) for j, (a, b) in enumerate(zip(gradient, p, strict=True))) <= 1e-15


@given(counts, classes, seeds, st.sampled_from([-300.0, 3.0, 5000.0]))
def test_a_shift_of_all_logits_changes_nothing(n, k, seed, shift):
    logits, label = case(n, k, 1.0, seed)
    loss, saved = engine.cross_entropy(logits, label)
    shifted, shifted_saved = engine.cross_entropy(logits + shift, label)
    assert relative_error(shifted, loss) <= 1e-15 * abs(shift) * 10
    gradients = [engine.cross_entropy_backward(1.0, s) for s in (saved, shifted_saved)]
    assert relative_error(*gradients) <= 1e-15 * abs(shift) * 10
    assert np.abs(gradients[0].sum(axis=1)).max() <= 1e-15


def test_one_loss_for_all_classes_when_nothing_is_known():
    loss, saved = engine.cross_entropy(np.zeros((3, 10)), np.array([0, 4, 9]))
    np.testing.assert_allclose(loss, np.log(10), rtol=1e-15)
    expected = np.full((3, 10), 0.1)
    expected[[0, 1, 2], [0, 4, 9]] -= 1
    np.testing.assert_allclose(engine.cross_entropy_backward(1.0, saved), expected, rtol=1e-15)


def test_nothing_overflows():
    logits = np.array([[1e4, 0, -1e4], [-1e300, 1e300, 0]])
    loss, saved = engine.cross_entropy(logits, np.array([1, 1]))
    assert loss.tolist() == [1e4, 0]
    assert engine.cross_entropy_backward(1.0, saved).tolist() == [[1, -1, 0], [0, 0, 0]]


@given(counts, classes, seeds)
def test_a_number_for_dloss_is_that_number_for_each_sample(n, k, seed):
    """Also one of float64, whose kind does not spread."""
    logits, label = case(n, k, 1.0, seed)
    _, saved = engine.cross_entropy(logits.astype(np.float32), label)
    dlogits = engine.cross_entropy_backward(0.5, saved)
    assert dlogits.dtype == np.float32
    assert np.array_equal(dlogits, engine.cross_entropy_backward(np.full(n, 0.5), saved))
    assert np.array_equal(dlogits, engine.cross_entropy_backward(np.float64(0.5), saved))


def test_labels_that_are_no_classes_are_refused():
    for label in ([-1, 0], [0, 3]):
        with pytest.raises(AssertionError, match="labels from 0 to 2"):
            engine.cross_entropy(np.zeros((2, 3)), np.array(label))
    with pytest.raises(AssertionError, match="cross_entropy"):
        engine.cross_entropy(np.zeros((2, 3)), np.array([0]))
