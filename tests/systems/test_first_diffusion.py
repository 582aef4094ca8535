"""The two systems of 2015, bits and learned variances: what they measure, draw, hold and refuse."""

import re
from dataclasses import replace

import numpy as np
import pytest

from refdiff import models
from refdiff.config import PRESETS, NetworkConfig
from refdiff.data import load
from refdiff.models import MLPConfig, TableConfig
from refdiff.random import Key
from refdiff.systems import Binomial, Nonequilibrium, draw, trajectory
from refdiff.training import State, system_model, train
from systems import bits, checks, learned_beta

ROLL = load("swissroll")
EVALUATE = Key(0).under("evaluate")
UNIT_BITS = 0.5 / np.log(2)


def model_of(module, state=None, **objective):
    config = replace(module.config, objective=replace(module.config.objective, **objective))
    return system_model(config, state or State.first(config))


def evaluate(model, data):
    return model.module.evaluate(model.networks, model.objective, data, EVALUATE, False)


@pytest.fixture(scope="module")
def heartbeat():
    """A run of 100 steps, its state and its model."""
    worker, _ = checks.trained(bits.config, bits.data, State.first(bits.config), 100)
    return worker.state(), model_of(bits, worker.state())


# ---- what is measured


def test_bits_of_a_network_that_says_nothing_are_throws_of_a_coin():
    """p is the perfect reverse process of these, so that the bound of any data is one bit a dimension."""
    found = evaluate(model_of(bits), bits.data)
    assert found["bound_bits"] == pytest.approx(20, abs=5 * found["bound_bits_error"])
    assert 0 < found["bound_bits_error"] < 0.1
    assert found["entropy_bits"] == pytest.approx(np.log2(5), abs=1e-12)
    assert found["independent_bits"] == pytest.approx(20 * 0.7219, abs=0.01)  # of ones at the rate 1/5
    assert found["samples_among_data"] == 0
    assert len(found["terms"]) == bits.T + 1
    assert found["prior_bits"] == 0


def test_points_of_a_network_that_says_nothing_are_normal():
    """p(x_0) = N(0, 1) whatever the variances are, and the bound is exact."""
    found = evaluate(model_of(learned_beta), ROLL)
    assert found["gain_bits"] == pytest.approx(0, abs=5 * found["bound_bits_error"])
    assert found["gaussian_bits"] == pytest.approx(UNIT_BITS * (ROLL.held_out**2 + np.log(2 * np.pi)).sum(1).mean())
    assert found["bound_bits_error"] < 0.04
    assert np.allclose(found["beta"], [1e-2, *learned_beta.FIRST], rtol=1e-6)


def mean_loss(config, data, state, times=40):
    """The mean of the loss over so many batches of 512 of what is held out, and its standard error."""
    networks, found = checks.networks_of(config, state), []
    for step in range(times):
        key = Key(7, step, 0, 512).under("loss")
        x = data.held_out[np.arange(512) % len(data.held_out)].astype(np.float64)
        batch = config.objective.draw(checks.REFERENCE, {"x": x}, key, {})
        terms, _ = config.objective.loss_and_gradient(checks.REFERENCE, networks, batch, key)
        found.append(terms["loss"])
    found = np.concatenate(found)
    return found.mean(), found.std() / len(found) ** 0.5


@pytest.mark.parametrize("module", [bits, learned_beta])
def test_the_loss_is_the_bound_in_the_mean(module):
    """Of networks moved a little, in float64; `evaluate` has none of its operations."""
    config, data = module.config, load("heartbeat") if module is bits else ROLL
    state = State.first(config)
    moved = {name: network.p for name, network in checks.networks_of(config, state).items()}
    model = model_of(module, replace(state, trees=state.trees | {"p": moved, "ema": moved}))
    found, (loss, error) = evaluate(model, data), mean_loss(config, data, state)
    assert found["bound_bits"] == pytest.approx(loss, abs=4 * (error + found["bound_bits_error"]))
    assert error < 0.03 * loss


def test_a_short_run_of_the_heartbeat_lies_between_its_entropy_and_independent_bits(heartbeat):
    found = evaluate(heartbeat[1], bits.data)
    assert found["entropy_bits"] < found["bound_bits"] < 0.9 * found["independent_bits"]


# ---- what is drawn


def test_samples_are_bits_and_functions_of_their_own_number(heartbeat):
    model = heartbeat[1]
    x = draw(model, 6, progress=False)
    assert (x.shape, x.dtype, set(np.unique(x))) == ((6, 1, 20, 1), np.float32, {-1.0, 1.0})
    way = list(trajectory(model, np.array([4, 1])))
    assert [t for t, _ in way] == list(range(bits.T, -1, -1))
    assert np.array_equal(way[-1][1], x[[4, 1]])


@pytest.mark.parametrize("module", [bits, learned_beta])
def test_known_elements_are_held_all_the_way(module):
    model, of_one = model_of(module), (1, 20, 1) if module is bits else (2,)
    known = np.where(np.arange(5 * np.prod(of_one)) % 3 == 0, 1.0, -1.0).reshape(5, *of_one).astype(np.float32)
    mask = np.zeros_like(known)
    mask.reshape(5, -1)[:, 0] = 1
    way = [x for _, x in trajectory(model, np.arange(5), 0, {"known": known, "mask": mask})]
    free = [x for _, x in trajectory(model, np.arange(5))]
    for x in way:
        assert np.array_equal(x[mask == 1], known[mask == 1])
    assert np.array_equal(way[0][mask == 0], free[0][mask == 0])
    assert not np.array_equal(way[-1], free[-1])
    conditions = {"known": known, "mask": mask}
    assert np.array_equal(draw(model, 5, 0, conditions, batch=2, progress=False), way[-1])


def test_a_known_pulse_is_gone_on_with(heartbeat):
    """With the first period given the model of a heartbeat repeats it in more samples than it would by itself."""
    known = np.tile(bits.data.x[3], (200, 1, 1, 1))
    mask = np.zeros_like(known)
    mask[:, :, :10] = 1
    state, _ = heartbeat
    worker, _ = checks.trained(bits.config, bits.data, state, 200)
    x = draw(model_of(bits, worker.state()), 200, 0, {"known": known, "mask": mask}, progress=False)
    free = draw(model_of(bits, worker.state()), 200, 0, progress=False)
    right, by_itself = ((s == known).all(axis=(1, 2, 3)).mean() for s in (x, free))
    assert right > 2 * by_itself


@pytest.mark.parametrize("name", ["heartbeat", "swissroll", "binary-digits"])
def test_a_picture_of_each(name, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib, of the extra `plot`, is not installed")
    data, model = load(name), model_of(learned_beta if name == "swissroll" else bits)
    if name == "binary-digits":
        config = replace(bits.config, networks={"denoiser": NetworkConfig(MLPConfig((8, 8, 1), 16, 1))})
        model = system_model(config, State.first(config))
    model.module.plot(model.networks, model.objective, data, evaluate(model, data), tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 5000


# ---- what is refused


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Binomial(T=0), "objective.T: expected at least one step from data to noise, got 0"),
        (lambda: Nonequilibrium(T=0), "objective.T: expected at least 2 steps, of which the first is fixed, got 0"),
        (lambda: Nonequilibrium(T=1), "objective.T: expected at least 2 steps, of which the first is fixed, got 1"),
        (lambda: Nonequilibrium(first=1.0), "objective.first: expected beta_1, a number between 0 and 1, got 1.0"),
        (lambda: Nonequilibrium(first=0.0), "objective.first: expected beta_1, a number between 0 and 1, got 0.0"),
        (lambda: changed(bits, denoiser=MLPConfig((1, 20, 1), outputs=2)),
         "networks.denoiser.outputs: expected 1 for each element of a sample, got 2; give networks.denoiser.outputs=1"),
        (lambda: changed(learned_beta, denoiser=MLPConfig(2)), "networks.denoiser.outputs: expected 2 for each element"),
        (lambda: changed(bits, denoiser=MLPConfig((1, 20, 1), classes=5)),
         "networks.denoiser: expected a network that reads x and t alone, got MLPConfig, which reads x, t, label; give "
         "networks.denoiser.classes=0"),
        (lambda: changed(learned_beta, beta=TableConfig(5)),
         "networks.beta: expected a table of T - 1 = 19 rows of 1, the logits of beta_2 .. beta_T, got 5 rows of 1; give"),
        (lambda: changed(learned_beta, beta=MLPConfig(2)), "networks.beta: expected a table of T - 1 = 19 rows of 1"),
        (lambda: replace(bits.config, objective=Binomial(trains=())), "objective.trains: expected denoiser, got none"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_line(make, message):
    with pytest.raises(ValueError, match=rf"\A{re.escape(message)}[^\n]*\Z"):
        make()


def changed(module, **networks):
    given = {name: NetworkConfig(model) for name, model in networks.items()}
    return replace(module.config, networks=module.config.networks | given)


def test_samples_that_are_no_bits_are_refused_before_the_first_step():
    config = replace(bits.config, networks={"denoiser": NetworkConfig(MLPConfig((8, 8, 1), 16, 1))})
    with pytest.raises(
        ValueError, match=r"\Adata.source: expected bits, each -1 or 1, got \d+ of 92288 values that are "
    ):
        train(config, data=load("digits"), progress=False)
    model = system_model(config, State.first(config))
    with pytest.raises(ValueError, match=r"\Adata.source: expected bits"):
        evaluate(model, load("digits"))


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        ({"known": np.ones((2, 2))}, "conditions: expected known and mask, or none, got known; give both"),
        ({"label": np.ones(2)}, "conditions: expected known and mask, or none, got label; give both"),
        ({"known": np.ones((2, 2)), "mask": np.ones((2, 1))}, "mask: expected one a sample, (2, 2), got (2, 1)"),
        (
            {"known": np.ones((2, 2)), "mask": np.full((2, 2), 0.5)},
            "mask: expected 1 where elements are known, 0 where",
        ),
    ],
)
def test_conditions_that_are_none_are_refused(conditions, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        list(trajectory(model_of(learned_beta), np.arange(2), 0, conditions))


# ---- presets


@pytest.mark.parametrize("name", ["heartbeat", "digits-binary", "swissroll-2015"])
def test_a_preset_fits_its_data(name):
    config = PRESETS[name]
    data = config.data.open()
    model = system_model(config, State.first(config))
    assert model.shape == data.shape
    config.objective.check_samples(data.x)
    networks = {n: network.model for n, network in config.networks.items()}
    assert config.objective.reads(networks)["x"].shape == data.shape


def test_every_row_of_the_table_is_the_step_that_t_says():
    """t and its row are two draws of one sequence, counted from 2 and from 0."""
    key = Key(3, 1, 0, 1000)
    batch = learned_beta.config.objective.draw(checks.REFERENCE, {"x": np.zeros((1000, 2), np.float32)}, key, {})
    assert np.array_equal(batch["t"], batch["row"] + 2)
    assert set(batch["t"].tolist()) == set(range(2, learned_beta.T + 1))
    assert set(batch["end"].tolist()) == {learned_beta.T - 2}


def test_a_later_variance_moves_no_earlier_step():
    """The gradient of the terms at t alone: zero for the logits after t, but for the last state's own term."""
    config = learned_beta.config
    networks = checks.networks_of(config, State.first(config))
    weight = networks["beta"].p["weight"]
    x = np.random.default_rng(0).standard_normal((4, 2))
    batch = {
        "x": x,
        "t": np.full(4, 5),
        "row": np.full(4, 3),
        "end": np.full(4, learned_beta.T - 2),
        "eps": x[::-1].copy(),
    }
    key = Key(0, 1, 0, 4)
    _, g = config.objective.loss_and_gradient(checks.REFERENCE, networks, batch, key)
    raised = weight.copy()
    raised[10:] += 30  # alpha_bar_T is 0, and so is what L_T says of any logit
    far = networks | {"beta": models.Network(config.networks["beta"].model, {"weight": raised})}
    _, without = config.objective.loss_and_gradient(checks.REFERENCE, far, batch, key)
    assert np.abs(without["beta"]["weight"][4:]).max() < 1e-12
    assert np.abs(g["beta"]["weight"][:4]).min() > 1e-6
