"""Classification: what it draws, what it costs, its gradient by a complex step, and what it reads."""

import numpy as np
import pytest
import toy_networks
from gradients import gradient_error

from refdiff import models, process
from refdiff.engines import reference
from refdiff.models import ClassifierConfig, Input, Network, tree_map
from refdiff.objectives import Classification, ScheduleConfig
from refdiff.random import Key, normal
from refdiff.testing.measures import relative_error

SCHEDULE = ScheduleConfig("cosine", 6)
KEY = Key(3, 5, 0, 8).under("Classification")
TOY = toy_networks.ToyClassifier(size=3, classes=4, width=6)


def data(n=8):
    rng = np.random.default_rng(0)
    return {"x": rng.uniform(-1, 1, (n, 3, 3, 1)), "label": np.arange(n) % 4}


def classifier():
    p, rng = models.initialise(models.layout(TOY), 0), np.random.default_rng(0)
    return {"classifier": Network(TOY, tree_map(lambda a: a + 0.3 * rng.standard_normal(a.shape), p))}


def test_a_draw_is_x_t_and_the_label_stays():
    given = data()
    batch = Classification(schedule=SCHEDULE).draw(reference, given, KEY, {})
    assert set(batch) == {"x", "t", "label"}
    eps = normal(KEY("eps"), np.arange(8), (3, 3, 1)).astype(float)
    assert np.array_equal(batch["t"], reference.integers(KEY("t"), 8, 1, 6))
    assert relative_error(batch["x"], process.q_sample(SCHEDULE.build(), given["x"], batch["t"], eps)) < 1e-6
    assert np.array_equal(batch["label"], given["label"])
    assert set(Classification(schedule=SCHEDULE).draw(reference, data(400), KEY, {})["t"]) == set(range(1, 7))


def test_clean_images_stand_at_0():
    given = data()
    batch = Classification(schedule=SCHEDULE, noised=False).draw(reference, given, KEY, {})
    assert batch["x"] is given["x"]
    assert np.array_equal(batch["t"], np.zeros(8))


@pytest.mark.parametrize("noised", [True, False])
def test_the_loss_is_the_cross_entropy_and_its_gradient_a_complex_steps(noised):
    objective, networks = Classification(schedule=SCHEDULE, noised=noised), classifier()
    batch = objective.draw(reference, data(), KEY, {})
    terms, _ = objective.loss_and_gradient(reference, networks, batch, KEY)
    logits = models.predict(reference, networks["classifier"], batch)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert set(terms) == {"loss"}
    assert relative_error(terms["loss"], -np.log(p[np.arange(8), batch["label"]])) < 1e-13
    assert gradient_error(objective, networks, batch, KEY, "classifier") < 1e-13


def test_dropout_goes_by_the_name_of_the_network():
    config = ClassifierConfig(4, 1, 4, (1,), 1, (), groups=2, classes=4, dropout=0.5, pooling="adaptive")
    p, rng = models.initialise(models.layout(config), 0), np.random.default_rng(0)
    network = Network(config, tree_map(lambda a: a + 0.3 * rng.standard_normal(a.shape), p))
    batch = {"x": rng.standard_normal((8, 4, 4, 1)), "t": np.full(8, 3), "label": np.arange(8) % 4}
    terms, _ = Classification(schedule=SCHEDULE).loss_and_gradient(reference, {"classifier": network}, batch, KEY)
    logits, _ = models.forward(reference, network, batch, KEY.under("classifier"))
    assert np.array_equal(terms["loss"], reference.cross_entropy(logits, batch["label"])[0])


def test_a_part_of_a_draw_is_the_draw_of_that_part_and_parts_add_up():
    objective, networks = Classification(schedule=SCHEDULE), classifier()
    whole = objective.draw(reference, data(), KEY, {})
    part = objective.draw(reference, {name: a[5:] for name, a in data().items()}, KEY._replace(first=5), {})
    for name in whole:
        assert np.array_equal(part[name], whole[name][5:]), name
    _, g = objective.loss_and_gradient(reference, networks, whole, KEY)
    parts = [
        objective.loss_and_gradient(reference, networks, {k: a[i : i + 4] for k, a in whole.items()}, KEY)[1]
        for i in (0, 4)
    ]
    added = models.trees.add(reference, *(of_part["classifier"] for of_part in parts))
    for name, a in models.flatten(g["classifier"]).items():
        assert relative_error(models.flatten(added)[name], a) < 1e-13


def test_it_reads_images_and_labels():
    reads = Classification().reads({"classifier": TOY})
    assert reads == {"x": Input((3, 3, 1)), "label": Input((), "int")}
