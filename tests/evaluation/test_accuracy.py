"""Accuracy over t: right for a classifier whose accuracy is known, beside chance, with its error, and drawn."""

import math
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
import toy_networks

from refdiff import models
from refdiff.errors import DoubtWarning
from refdiff.evaluation.accuracy import accuracy_lines, accuracy_steps, classifier_accuracy, plot_accuracy
from refdiff.models import KINDS, Input, Network, linear_layout, register
from refdiff.objectives import Classification, ScheduleConfig

OBJECTIVE = Classification(schedule=ScheduleConfig("cosine", 100))
ENDS = np.array([-1.0, 1.0])  # what the two classes are


@dataclass(frozen=True)
class Sign:
    """Two classes, told apart by the sign of the only number of a sample: the best there is for two points at -1 and 1."""

    classes: int = 2


def forward(engine, net, inputs, key=None):
    seen.append(np.unique(inputs["t"]).tolist())
    x = inputs["x"][:, 0, 0]
    return np.concatenate([-x, x], axis=1), {}


seen = []
SIGN = SimpleNamespace(
    inputs=lambda config: {"x": Input((1, 1, 1)), "t": Input((), "int")}, layout=lambda config: {"w": linear_layout(1, 1)},
    forward=forward, backward=forward,
)  # fmt: skip


@pytest.fixture(autouse=True)
def sign_is_known():
    register("sign", Sign, SIGN)
    seen.clear()
    yield
    del KINDS["sign"]


def measured(objective=OBJECTIVE, n=2000, **how):
    label = np.arange(n) % 2
    x = ENDS[label].reshape(n, 1, 1, 1)
    return classifier_accuracy(Network(Sign(), {}), objective, x, label, engine="reference", **how)


def test_it_is_that_of_the_best_classifier_where_that_is_known():
    """Of x_t = a x_0 + s eps with x_0 = -1 or 1 the sign is right with the probability Phi(a / s)."""
    found, s = measured(), OBJECTIVE.schedule.build()
    assert found["t"] == [1, 12, 23, 34, 45, 56, 67, 78, 89, 100]
    for t, share, error in zip(found["t"], found["accuracy"], found["accuracy_error"], strict=True):
        exact = 0.5 * (1 + math.erf(math.sqrt(s.alpha_bar[t] / s.one_minus_alpha_bar[t] / 2)))
        assert abs(share - exact) <= 4 * math.sqrt(exact * (1 - exact) / 8000) + 1e-12
        assert error == pytest.approx(math.sqrt(share * (1 - share) / 2000))
    assert (found["chance"], found["classes"], found["images"], found["draws"]) == (0.5, 2, 2000, 4)
    assert found["accuracy"][0] > 0.99
    assert found["accuracy"][-1] < 0.6
    assert [t for (t,) in seen[::32]] == found["t"], "the classifier is told t"


def test_of_more_training_images_only_as_many_are_asked_about():
    label = np.repeat([0, 1], 200)
    x = ENDS[label].reshape(400, 1, 1, 1)
    x[200:] *= -1  # from here on every label is wrong
    found = measured(n=200, training=(x, label), draws=1)
    assert found["accuracy_training"][0] > 0.97


def test_a_classifier_of_clean_images_is_asked_about_them_first_and_told_0_of_all():
    found = measured(replace(OBJECTIVE, noised=False))
    assert found["t"] == [0, 1, 13, 26, 38, 51, 63, 75, 88, 100]
    assert found["accuracy"][0] == 1
    assert found["accuracy_error"][0] == 0
    assert {t for (t,) in seen} == {0}
    assert accuracy_steps(replace(OBJECTIVE, schedule=ScheduleConfig("cosine", 3))).tolist() == [1, 2, 3]


def test_it_depends_on_the_seed_and_not_on_the_batch():
    first, same, other = (measured(n=50, seed=seed, batch=batch) for seed, batch in ((1, 256), (1, 7), (2, 256)))
    assert first == same
    assert first["accuracy"] != other["accuracy"]


def test_training_images_stand_beside_and_few_of_a_class_are_doubted():
    n = 120
    label = np.arange(n) % 2
    x = ENDS[label].reshape(n, 1, 1, 1)
    found = measured(n=20, training=(x, label))
    assert found["training_images_a_class"] == 60
    assert len(found["accuracy_training"]) == 10
    assert found["accuracy_training"] != found["accuracy"], "noise of their own"
    with pytest.warns(DoubtWarning, match="expected 50 training images of each class or more, got 20 .*memorises"):
        measured(n=20, training=(x[:40], label[:40]))
    lines = accuracy_lines(found)
    assert len(lines) == 13
    assert lines["accuracy at t = 1"].startswith(f"{found['accuracy'][0]:.4f} ± ")
    assert "training" in lines["accuracy at t = 1"]
    assert "training" not in accuracy_lines(measured(n=20))["accuracy at t = 1"]
    assert lines["chance"] == "0.5000   1 / 2 classes"


@pytest.mark.parametrize("engine", ["reference", "cpu"])
def test_a_network_on_an_engine(engine):
    config = toy_networks.ToyClassifier(size=4, classes=3)
    network = Network(config, models.initialise(models.layout(config), 0))
    x = np.random.default_rng(0).uniform(-1, 1, (30, 4, 4, 1)).astype(np.float32)
    found = classifier_accuracy(network, OBJECTIVE, x, np.arange(30) % 3, engine=engine, draws=2)
    assert len(found["accuracy"]) == 10
    assert all(0 <= share <= 1 for share in found["accuracy"])


def test_what_does_not_fit_is_refused():
    network, x = Network(Sign(), {}), np.ones((4, 1, 1, 1))
    for bad, label, said in (
        (x[..., 0], np.zeros(4, int), r"x: expected images \(N, 1, 1, 1\), got shape \(4, 1, 1\)"),
        (x[:0], np.zeros(0, int), r"x: expected images .* got shape \(0, 1, 1, 1\)"),
        (x, np.zeros(3, int), r"x: expected a label an image, integers \(4,\), got int64 \(3,\)"),
        (x, np.zeros(4), r"x: expected a label an image, integers \(4,\), got float64"),
        (x, np.arange(4), r"x: expected labels from 0 to 1, the classes of this classifier, got 0 to 3"),
    ):
        with pytest.raises(ValueError, match=said):
            classifier_accuracy(network, OBJECTIVE, bad, label, engine="reference")
    with pytest.raises(ValueError, match="draws: expected at least 1 noise an image, got 0"):
        measured(draws=0)
    with pytest.raises(ValueError, match="batch: expected at least 1, got 0"):
        measured(batch=0)


def test_the_plot_is_a_picture(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    plot_accuracy(measured(n=20), tmp_path / "accuracy.png")
    assert (tmp_path / "accuracy.png").read_bytes().startswith(b"\x89PNG")
