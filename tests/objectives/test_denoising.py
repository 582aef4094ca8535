"""Denoising: what it draws, what it costs, and its gradients of every network by complex steps."""

import sys
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
from gradients import gradient_error

from refdiff import models, process
from refdiff.engines import reference
from refdiff.models import KINDS, Input, MLPConfig, Network, linear_layout, register, tree_map
from refdiff.objectives import Denoising, ScheduleConfig, noise_table
from refdiff.random import Key, normal
from refdiff.testing.measures import relative_error

SCHEDULE = ScheduleConfig("cosine", 6)
KEY = Key(3, 5, 0, 8).under("Denoising")


@dataclass(frozen=True)
class Linear:
    """y = W1 entry1 + W2 entry2 ...; entries: (name, size) of what it reads."""

    entries: tuple[tuple[str, int], ...]
    size: int


def inputs(config):
    return {name: Input((size,)) for name, size in config.entries}


def layout(config):
    return {name: linear_layout(size, config.size) for name, size in config.entries}


def forward(engine, net, inputs, key=None):
    h, saved = None, {}
    for name, p in net.p.items():
        y, saved[name] = engine.linear(inputs[name], **p)
        h = y if h is None else h + y
    return h, saved


def backward(engine, net, dy, saved, wrt=()):
    found = {name: engine.linear_backward(dy, saved[name]) for name, _ in net.config.entries}
    return {name: found[name][0] for name in wrt}, {name: g for name, (_, g) in found.items()}


@pytest.fixture(autouse=True)
def linear_is_known():
    """For a while: messages list the kinds that there are."""
    register("linear", Linear, sys.modules[__name__])
    yield
    del KINDS["linear"]


def network(config, seed=0):
    """In float64, no weight of it 0."""
    p, rng = models.initialise(models.layout(config), seed), np.random.default_rng(seed)
    return Network(config, tree_map(lambda a: a + 0.3 * rng.standard_normal(a.shape), p))


def images(n=8, size=3):
    """On 256 levels, as L_0 asks.   -> (n, size) float64"""
    return np.random.default_rng(0).integers(0, 256, (n, size)) / 127.5 - 1


def errors(objective, networks, batch, key):
    """{network: error of its gradient}."""
    terms, _ = objective.loss_and_gradient(reference, networks, batch, key)
    assert terms["loss"].shape == (len(batch["x"]),)
    return {name: gradient_error(objective, networks, batch, key, name) for name in networks}


# ---- what it draws


@pytest.mark.parametrize("prediction", ["eps", "x0", "v", "mu"])
def test_a_draw_is_x_t_with_its_target(prediction):
    x0 = images()
    batch = Denoising(schedule=SCHEDULE, prediction=prediction).draw(reference, {"x": x0, "other": x0[:, 0]}, KEY, {})
    assert set(batch) == {"x", "t", "target", "other"}
    t, eps, s = batch["t"], normal(KEY("eps"), np.arange(8), (3,)), SCHEDULE.build()
    assert np.array_equal(t, reference.integers(KEY("t"), 8, 1, 6))
    assert relative_error(batch["x"], process.q_sample(s, x0, t, eps.astype(float))) < 1e-6
    assert relative_error(batch["target"], process.target(s, prediction, x0, eps.astype(float), t)) < 1e-6
    assert np.array_equal(batch["other"], x0[:, 0])


def test_a_draw_reaches_every_t_from_1_to_T():
    x0 = images(400)
    assert set(Denoising(schedule=SCHEDULE).draw(reference, {"x": x0}, KEY, {})["t"]) == set(range(1, 7))


def test_a_part_of_a_draw_is_the_draw_of_that_part():
    objective = Denoising(schedule=SCHEDULE, weighting="p2", variance="learned", null=(("label", 9, 0.5),))
    data = {"x": images(), "label": np.arange(8)}
    whole = objective.draw(reference, data, KEY, {})
    part = objective.draw(reference, {name: a[5:] for name, a in data.items()}, KEY._replace(first=5), {})
    assert set(part) == set(whole) == {"x", "t", "target", "weight", "x0", "label"}
    for name in whole:
        assert np.array_equal(part[name], whole[name][5:]), name


def test_weights_are_looked_up_and_simple_ones_left_out():
    for weighting in ("vlb", "min_snr", "p2"):
        objective = Denoising(schedule=SCHEDULE, prediction="v", weighting=weighting)
        batch = objective.draw(reference, {"x": images()}, KEY, {})
        assert np.array_equal(batch["weight"], noise_table(SCHEDULE, "v", weighting)[batch["t"], 4])


def test_an_entry_is_replaced_as_often_as_its_rate_says():
    data = {"x": images(2000), "label": np.arange(2000) % 7, "level": np.arange(2000) % 5}
    for rate, low, high in ((0.0, 0, 0), (0.25, 423, 577), (1.0, 2000, 2000)):  # 4 standard errors
        batch = Denoising(schedule=SCHEDULE, null=(("label", 7, rate),)).draw(reference, data, KEY, {})
        dropped = batch["label"] == 7
        assert low <= dropped.sum() <= high
        assert np.array_equal(batch["label"][~dropped], data["label"][~dropped])
        assert np.array_equal(batch["level"], data["level"])
    both = Denoising(schedule=SCHEDULE, null=(("label", 7, 0.5), ("level", 5, 0.5))).draw(reference, data, KEY, {})
    assert 0.4 < np.mean((both["label"] == 7) == (both["level"] == 5)) < 0.6  # independently


# ---- what it costs


@pytest.mark.parametrize("prediction", ["eps", "x0", "v", "mu"])
@pytest.mark.parametrize("weighting", ["simple", "min_snr"])
def test_the_loss_of_a_fixed_variance_is_the_weighted_squared_error(prediction, weighting):
    objective = Denoising(schedule=SCHEDULE, prediction=prediction, weighting=weighting)
    batch = objective.draw(reference, {"x": images()}, KEY, {})
    networks = {"denoiser": network(MLPConfig(3, 4, 1))}
    terms, g = objective.loss_and_gradient(reference, networks, batch, KEY)
    y = models.predict(reference, networks["denoiser"], batch)
    expected = batch.get("weight", np.ones(8)) * ((y - batch["target"]) ** 2).mean(axis=1)
    assert set(terms) == {"loss"}
    assert set(g) == {"denoiser"}
    assert relative_error(terms["loss"], expected) < 1e-14
    assert errors(objective, networks, batch, KEY)["denoiser"] < 1e-13


@pytest.mark.parametrize(("bins", "weighting"), [(256, "simple"), (0, "simple"), (256, "min_snr")])
@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_the_loss_of_a_learned_variance_is_the_hybrid(prediction, bins, weighting):
    """L_simple + weight L_vlb, the sum over t as T times the mean [IDDPM] eq. 16; the mean in L_vlb has no gradient."""
    objective = Denoising(
        schedule=SCHEDULE, prediction=prediction, weighting=weighting, variance="learned", vlb_weight=0.01, bins=bins
    )
    x0 = images()
    batch = objective.draw(reference, {"x": x0}, KEY, {})
    batch["t"] = np.arange(8) % 6 + 1  # every t, the first twice
    eps = normal(KEY("eps"), np.arange(8), (3,)).astype(float)
    s = SCHEDULE.build()
    batch["x"] = process.q_sample(s, x0, batch["t"], eps)
    batch["target"] = process.target(s, prediction, x0, eps, batch["t"])
    networks = {"denoiser": network(MLPConfig(3, 4, 1, outputs=2))}
    terms, _ = objective.loss_and_gradient(reference, networks, batch, KEY)
    assert set(terms) == {"loss", "simple", "vlb"}
    y = models.predict(reference, networks["denoiser"], batch)
    simple = batch.get("weight", np.ones(8)) * ((y[:, :3] - batch["target"]) ** 2).mean(axis=1)
    assert ("weight" in batch) == (weighting != "simple")
    assert relative_error(terms["simple"], simple) < 1e-14
    assert relative_error(terms["loss"], terms["simple"] + 0.01 * 6 * terms["vlb"]) < 1e-14
    log_variance = process.learned_log_variance(s, y[:, 3:], batch["t"])[0]
    mean = process.convert(s, batch["x"], batch["t"], y[:, :3], prediction, "mu")
    for i, t in enumerate(batch["t"]):
        if t == 1:
            nats = -process.decoder_log_likelihood(x0[i], mean[i], log_variance[i], bins or None)[0].sum()
        else:
            posterior = process.posterior_mean(s, batch["x"][i], x0[i], t)
            kl, _ = process.kl_gaussian(
                posterior, np.full(3, process.posterior_log_variance(s, t)), mean[i], log_variance[i]
            )
            nats = kl.sum()
        assert terms["vlb"][i] == pytest.approx(nats / (3 * np.log(2)), rel=1e-10)
    assert errors(objective, networks, batch, KEY)["denoiser"] < 1e-12


def test_parts_of_a_batch_add_up_to_the_whole():
    for variance in ("fixed", "learned"):
        objective = Denoising(schedule=SCHEDULE, variance=variance)
        networks = {"denoiser": network(MLPConfig(3, 4, 1, outputs=1 + objective.learned))}
        batch = objective.draw(reference, {"x": images()}, KEY, {})
        terms, g = objective.loss_and_gradient(reference, networks, batch, KEY)
        parts = [
            objective.loss_and_gradient(
                reference, networks, {k: a[i : i + 4] for k, a in batch.items()}, KEY._replace(first=i)
            )
            for i in (0, 4)
        ]
        for name in terms:
            assert np.array_equal(np.concatenate([of_part[name] for of_part, _ in parts]), terms[name])
        added = models.trees.add(reference, parts[0][1]["denoiser"], parts[1][1]["denoiser"])
        for name, a in models.flatten(g["denoiser"]).items():
            assert relative_error(models.flatten(added)[name], a) < 1e-13


def test_encoders_make_conditions_and_learn_through_them():
    objective = Denoising(
        trains=("denoiser", "text", "picture"), schedule=SCHEDULE, prediction="v",
        encoders=(("context", "text"), ("low_res", "picture")),
    )  # fmt: skip
    networks = {
        "denoiser": network(Linear((("x", 3), ("context", 2), ("low_res", 4)), 3), 1),
        "text": network(Linear((("words", 5),), 2), 2),
        "picture": network(Linear((("pixels", 6),), 4), 3),
    }
    rng = np.random.default_rng(0)
    data = {"x": images(), "words": rng.standard_normal((8, 5)), "pixels": rng.standard_normal((8, 6))}
    batch = objective.draw(reference, data, KEY, {})
    assert max(errors(objective, networks, batch, KEY).values()) < 1e-13
    assert "context" not in batch  # the batch is left as it was


def test_each_network_drops_out_by_masks_of_its_own(monkeypatch):
    """A network's forward gets the key under its name."""
    paths = []

    def noting(engine, net, inputs, key=None, forward=models.forward):
        paths.append(key.path)
        return forward(engine, net, inputs, key)

    monkeypatch.setattr(models, "forward", noting)
    objective = Denoising(schedule=SCHEDULE, encoders=(("context", "text"),))
    networks = {
        "denoiser": network(Linear((("x", 3), ("context", 2)), 3)), "text": network(Linear((("words", 5),), 2)),
    }  # fmt: skip
    batch = objective.draw(reference, {"x": images(), "words": np.ones((8, 5))}, KEY, {})
    objective.loss_and_gradient(reference, networks, batch, KEY)
    assert paths == ["Denoising/text/", "Denoising/denoiser/"]


# ---- what it refuses


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"prediction": "score"}, r"objective.prediction: .*'score'"),
        ({"weighting": "mean"}, r"objective.weighting: .*'mean'"),
        ({"variance": "large"}, r"objective.variance: .*'large'"),
        ({"vlb_weight": 0.0}, r"objective.vlb_weight: expected a number above 0, the paper's is 0.001, got 0.0"),
        ({"vlb_weight": float("nan")}, r"objective.vlb_weight: .*got nan"),
        ({"bins": 1}, r"objective.bins: expected how many levels the data have, or 0, got 1"),
        ({"bins": -2}, r"objective.bins: .*got -2"),
        ({"null": (("label", 10, 1.5),)}, r"objective.null: expected a rate from 0 to 1 for label, got 1.5"),
        ({"null": (("a", 0, 0.5), ("b", 1, -0.1))}, r"objective.null: expected a rate from 0 to 1 for b, got -0.1"),
    ],
)
def test_what_it_cannot_be_is_refused(options, said):
    with pytest.raises(ValueError, match=said):
        Denoising(**options)


def test_what_it_is_by_default():
    objective = Denoising()
    assert (objective.prediction, objective.weighting, objective.variance, objective.learned) == (
        "eps",
        "simple",
        "fixed",
        False,
    )
    assert (objective.vlb_weight, objective.bins) == (1e-3, 256)
    assert Denoising(bins=0, null=(("label", 1, 0.0), ("level", 1, 1.0))).null
    assert Denoising(variance="learned").learned


# ---- a low-resolution image made from x


@pytest.mark.parametrize("factor", [2, 4])
def test_low_res_is_the_mean_of_blocks(factor):
    x0 = np.random.default_rng(0).uniform(-1, 1, (3, 8, 4, 2))
    objective = Denoising(schedule=SCHEDULE, downscale=factor)
    batch = objective.draw(reference, {"x": x0}, KEY, {})
    expected = x0.reshape(3, 8 // factor, factor, 4 // factor, factor, 2).mean(axis=(2, 4))
    assert relative_error(batch["low_res"], expected) < 1e-15


def test_what_is_made_of_x_is_not_read_of_the_data():
    networks = {"denoiser": Linear((("x", 3), ("low_res", 2)), 3)}
    assert set(Denoising().reads(networks)) == {"x", "low_res"}
    assert set(Denoising(downscale=2).reads(networks)) == {"x"}


def test_a_condition_reaches_both_terms_of_the_hybrid_loss():
    """One forward serves both: the network is asked once, and each term changes with the condition alone."""
    asked = []

    def counting(engine, net, inputs, key=None):
        asked.append(set(inputs))
        return forward(engine, net, inputs, key)

    module = SimpleNamespace(inputs=inputs, layout=layout, forward=counting, backward=backward)
    KINDS.pop("linear")
    register("linear", Linear, module)
    denoiser = network(Linear((("x", 3), ("low_res", 2)), 6))
    objective = Denoising(schedule=SCHEDULE, variance="learned")
    batch = objective.draw(reference, {"x": images(), "low_res": np.ones((8, 2))}, KEY, {})
    told, other = (
        objective.loss_and_gradient(reference, {"denoiser": denoiser}, batch | {"low_res": value}, KEY)
        for value in (np.ones((8, 2)), np.zeros((8, 2)))
    )
    assert len(asked) == 2
    assert all("low_res" in entries for entries in asked)
    for name in ("simple", "vlb"):
        assert np.abs(told[0][name] - other[0][name]).min() > 1e-6, name
    assert errors(objective, {"denoiser": denoiser}, batch, KEY)["denoiser"] < 1e-12


@pytest.mark.parametrize("downscale", [1, 3, 6, -2])
def test_a_factor_that_no_pooling_gives_is_refused(downscale):
    with pytest.raises(ValueError, match=rf"objective.downscale: expected 2, 4, 8, ..., or 0 .*got {downscale}"):
        Denoising(downscale=downscale)
