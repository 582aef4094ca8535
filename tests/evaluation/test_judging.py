"""What a judge sees in samples: shares and their errors against what is known of them, and a judge of a run."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff.evaluation import judge_function, judged_accuracy
from refdiff.models import MODELS, Network, initialise, layout, predict, tree_map


def sees(answers, classes=10):
    """A judge that says of samples, which are their own numbers, what `answers` has there."""
    return lambda x: np.eye(classes)[np.asarray(answers)[x[:, 0].astype(int)]]


def numbered(n):
    return np.arange(n, dtype=np.float32)[:, None]


def test_the_share_of_samples_in_which_the_judge_sees_what_was_asked_for():
    asked = np.arange(200) % 10
    answers = asked.copy()
    answers[:10] = (asked[:10] + 1) % 10
    found = judged_accuracy(sees(answers), numbered(200), asked, batch=64)
    assert found["judged_accuracy"] == 0.95
    assert found["judged_accuracy_error"] == pytest.approx(math.sqrt(0.95 * 0.05 / 200), rel=0.1)
    assert found["judged_accuracy_chance"] == pytest.approx(0.1)


@given(st.integers(1, 300), st.integers(0, 300))
def test_the_error_is_the_deviation_of_a_beta_posterior_and_never_nothing(n, k):
    k = min(n, k)
    answers = (np.arange(n) >= k).astype(int)
    found = judged_accuracy(sees(answers, 2), numbered(n), np.zeros(n, int))
    a, b = k + 1, n - k + 1
    assert found["judged_accuracy"] == k / n
    assert found["judged_accuracy_error"] == pytest.approx(math.sqrt(a * b / ((a + b) ** 2 * (a + b + 1))))
    assert found["judged_accuracy_error"] > 0


def test_chance_follows_how_often_labels_and_answers_are_given():
    asked = np.array([0] * 30 + [1] * 10)
    found = judged_accuracy(sees(np.zeros(40, int), 2), numbered(40), asked)
    assert found["judged_accuracy"] == found["judged_accuracy_chance"] == 0.75


@pytest.mark.parametrize("asked", [[0, 10], [-1, 3], [1], []])
def test_labels_that_the_judge_does_not_know_are_refused(asked):
    n = 0 if not asked else 2
    with pytest.raises(ValueError, match="labels: expected"):
        judged_accuracy(sees([0, 1]), numbered(n), np.array(asked, int))


def test_labels_that_are_no_integers_are_refused():
    with pytest.raises(ValueError, match="labels: expected integers, got float64"):
        judged_accuracy(sees([0, 1]), numbered(2), np.array([0.0, 1.0]))


def test_a_judge_is_its_network_at_t_0():
    """Of any network that says an array; a classifier says logits."""
    from refdiff import engines

    config, reference = MODELS["points"], engines.get("reference")
    rng = np.random.default_rng(0)
    p = tree_map(lambda a: a + 0.3 * rng.standard_normal(a.shape).astype("f"), initialise(layout(config), 3))
    network, x = Network(config, p), rng.standard_normal((5, 2)).astype(np.float32)
    expected, other = (predict(reference, network, {"x": x, "t": np.full(5, t)}) for t in (0, 1))
    np.testing.assert_array_equal(judge_function("reference", network)(x), expected)
    assert np.abs(expected - other).max() > 1e-4
