"""Variational diffusion: its loss beside the functions of `process`, the schedule it learns, what is measured and drawn,
and what it refuses."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from emulator import Emulator

from refdiff import models
from refdiff.config import NetworkConfig
from refdiff.engines import reference
from refdiff.models import ClassifierConfig, MLPConfig, MonotoneConfig, TableConfig, flatten
from refdiff.process import (
    ContinuousSchedule,
    diffusion_loss,
    discrete_diffusion_loss,
    linear_gamma,
    prior_loss,
    q_sample_at,
    reconstruction_loss,
)
from refdiff.random import Key
from refdiff.sampling import SampleConfig
from refdiff.sampling.settings import METHODS
from refdiff.systems import VDM, SystemModel, draw, vdm
from refdiff.systems.learned_gamma import schedule_of
from refdiff.systems.system import Asked
from refdiff.training import State, system_model
from refdiff.training.trainers.cuda import CUDATrainer
from systems import checks, rows
from systems.runs import batch_at, configuration
from systems.variational_diffusion import ALONE, IMAGES, LEVELS, MLP, RULES, images, networks, on_levels

BITS = 1 / (16 * np.log(2))


class Held(rows.Rows):
    """Data of which the first 8 are held out."""

    @property
    def held_out(self):
        return self.entries["x"][:8]


def asked(nets):
    """The networks in float64, as `evaluate` asks them."""
    return {
        name: Asked(net.config, lambda batch, net=net: models.predict(reference, net, batch))
        for name, net in nets.items()
    }


def trained(name, steps=10):
    config, data = ALONE[name].config, Held(**ALONE[name].data.entries)
    return system_model(config, checks.trained(config, data, State.first(config), steps)[0].state()), data


@pytest.mark.parametrize("name", ALONE)
def test_the_loss_is_that_of_process_for_the_same_draws(name):
    """Each term, of the learned schedule, in operations of the engine and by other code."""
    config, data = ALONE[name].config, ALONE[name].data
    objective, nets = config.objective, checks.networks_of(config, State.first(config))
    x, key = data.entries["x"][:6].astype(np.float64), Key(3, 1, 0, 6)
    batch = objective.draw(reference, {"x": x}, key, {})
    batch = {k: a.astype(np.float64) if a.dtype.kind == "f" else a for k, a in batch.items()}
    terms, _ = objective.loss_and_gradient(reference, nets, batch, key)
    schedule, t, eps = schedule_of(asked(nets)), batch["t"], batch["eps"]
    z = q_sample_at(schedule, x, t, eps)
    eps_hat = vdm.eps_hat(asked(nets), objective, z, schedule.gamma(t))  # which is told float32
    if objective.T:
        i = np.round(t * objective.T).astype(int)
        np.testing.assert_allclose(batch["s"], (i - 1) / objective.T, atol=1e-7)
        diffusion = discrete_diffusion_loss(schedule, i, objective.T, eps, eps_hat)
    else:
        diffusion = diffusion_loss(schedule, t, eps, eps_hat)
    np.testing.assert_allclose(terms["diffusion"], BITS * diffusion, rtol=2e-5)
    np.testing.assert_allclose(terms["prior"], BITS * prior_loss(schedule, x), rtol=1e-12)
    reconstruction = reconstruction_loss(schedule, x, batch["eps_0"], LEVELS)
    np.testing.assert_allclose(terms["reconstruction"], BITS * reconstruction, rtol=1e-6)  # levels of float32
    np.testing.assert_allclose(terms["loss"], terms["diffusion"] + terms["prior"] + terms["reconstruction"], rtol=1e-14)
    np.testing.assert_allclose(terms["gamma"], terms["diffusion"] ** 2, rtol=1e-14)


def test_what_is_drawn():
    """t as `antithetic_times` has it, of a part of a step too; T steps are i / T and (i - 1) / T."""
    x, key = images[:8], Key(3, 1, 0, 8)
    whole = VDM(bins=LEVELS).draw(reference, {"x": x}, key, {})
    part = VDM(bins=LEVELS).draw(reference, {"x": x[4:]}, key._replace(first=4), {})
    assert all(np.array_equal(part[name], whole[name][4:]) for name in whole)
    np.testing.assert_allclose(np.sort(whole["t"])[1:] - np.sort(whole["t"])[:-1], 1 / 8, atol=1e-6)
    assert not whole["index"].any()
    np.testing.assert_allclose(whole["zero"], 13.3 * 1000 / 18.3, rtol=1e-6)
    steps = VDM(T=4, bins=LEVELS).draw(reference, {"x": x}, key, {})
    assert steps["t"].dtype == steps["s"].dtype == np.float32
    assert sorted(steps["t"].tolist()) == [0.25, 0.25, 0.5, 0.5, 0.75, 0.75, 1, 1]
    np.testing.assert_allclose(steps["s"], steps["t"] - 0.25, atol=1e-7)


def test_a_learned_schedule_stays_one_and_has_moved():
    config = ALONE["vdm"].config
    worker, _ = checks.trained(config, ALONE["vdm"].data, State.first(config), 120)
    before, after = State.first(config).trees["p"], worker.state().trees["p"]
    schedule = schedule_of(system_model(config, worker.state()).networks)
    assert isinstance(schedule, ContinuousSchedule)
    assert schedule.discretised(1000).T == 1001
    assert np.trapezoid(schedule.slope(np.linspace(0, 1, 1001)), dx=1e-3) == pytest.approx(
        schedule.gamma(1.0) - schedule.gamma(0.0), rel=1e-4
    )
    assert np.abs(after["gamma"]["weight"] - before["gamma"]["weight"]).max() > 0.05
    assert np.abs(after["ends"]["weight"] - before["ends"]["weight"]).min() > 0.01


def test_the_inside_learns_to_vary_less_and_changes_no_bits():
    """Of a denoiser that stands still, as do the ends: against a straight line, with the same noise."""
    rules = RULES | {name: replace(RULES[name], learning_rate=0.0) for name in ("denoiser", "ends")}
    config = configuration(networks(MLP), VDM(bins=LEVELS), rules, T=100, steps=200, rate=2e-2)
    worker, _ = checks.trained(config, ALONE["vdm"].data, State.first(config), 200)
    model = system_model(config, worker.state())
    found = vdm.evaluate(model.networks, model.objective, Held(x=on_levels(images)), Key(0), False)
    assert found["variance_factor"] > 1.1
    apart = abs(found["diffusion_bits"] - found["line_diffusion_bits"])
    assert apart <= 4 * np.hypot(found["diffusion_bits_error"], found["line_diffusion_bits_error"])


@pytest.mark.skipif(shutil.which("g++") is None, reason="the emulator needs g++")
def test_a_straight_line_stays_one_on_every_engine():
    config = configuration(networks(MLP, 0), VDM(bins=LEVELS), RULES, T=100, batch=4, shards=2)
    data, state = ALONE["vdm"].data, State.first(config)
    on_cuda = CUDATrainer(replace(config, engine="cuda"), state, Emulator())
    for i in range(3):
        on_cuda.step(batch_at(config, data, 1 + i))
    found = [
        on_cuda.state(),
        *(checks.trained(replace(config, engine=e), data, state, 3)[0].state() for e in ("cpu", "reference")),
    ]
    for each in found:
        gamma = each.trees["p"]["gamma"]
        assert {name: a.size for name, a in flatten(gamma).items()} == {"slope": 1, "rate": 0, "shift": 0, "weight": 0}
        assert gamma["slope"] == 1
        assert np.abs(each.trees["p"]["ends"]["weight"] - [-3, 6]).min() > 1e-3


# ---- what is measured, drawn and shown


@pytest.mark.parametrize("name", ["vdm", "vdm_images", "vdm_steps"])
def test_what_is_measured_is_the_bound_term_by_term(name, tmp_path):
    model, data = trained(name)
    found = vdm.evaluate(model.networks, model.objective, data, Key(0).under("evaluate"), False)
    parts = sum(found[f"{part}_bits"] for part in ("diffusion", "reconstruction", "prior"))
    assert found["bits_per_dim"] == pytest.approx(parts)
    errors = [found[f"{part}_bits_error"] for part in ("diffusion", "reconstruction")]
    assert found["bits_per_dim_error"] == pytest.approx(np.hypot(*errors))
    assert all(0 < e < 0.2 for e in errors)
    assert (found["samples"], found["passes"]) == (8, 32)
    schedule = schedule_of(model.networks)
    assert (found["gamma_0"], found["gamma_1"]) == (schedule.gamma(0.0), schedule.gamma(1.0))
    assert found["variance_factor"] == pytest.approx(found["line_diffusion_variance"] / found["diffusion_variance"])
    if name == "vdm_steps":
        assert found == vdm.evaluate(model.networks, model.objective, data, Key(0).under("evaluate"), False)
    vdm.plot(model.networks, model.objective, data, found, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000


@pytest.mark.parametrize("name", ["vdm", "vdm_images"])
def test_each_sample_is_the_same_whatever_the_others_are(name):
    model, _ = trained(name)
    model = model._replace(settings=SampleConfig(steps=7))
    x = draw(model, 5, seed=3, progress=False)
    assert (x.shape, x.dtype) == ((5, 4, 4, 1), np.float32)
    np.testing.assert_allclose(draw(model, 5, seed=3, batch=2, progress=False), x, atol=1e-5)
    assert np.abs(draw(model, 5, seed=4, progress=False) - x).mean() > 0.1
    states = list(vdm.trajectory(model.networks, model.objective, model.settings, np.arange(2), Key(0), {}))
    assert [t for t, _ in states] == list(range(8, -1, -1))
    assert np.abs(x).max() <= 1 + 1e-6
    others = {
        method: draw(model._replace(settings=SampleConfig(method, 7)), 5, seed=3, progress=False) for method in METHODS
    }
    np.testing.assert_allclose(others["ancestral"], others["ddim"], atol=1e-4)
    assert all(np.isfinite(other).all() for other in others.values())


def test_what_a_perfect_denoiser_draws_are_the_data():
    """Of pixels that are each -1 or 1 by themselves: of these and of nothing else, in half of the cases each."""

    def eps_of(batch):
        gamma = batch["t"][:, None].astype(np.float64) * 18.3 / 1000 - 13.3
        a, s = (1 / np.sqrt(1 + np.exp(sign * gamma)) for sign in (1, -1))
        z = batch["x"].astype(np.float64)
        return (z - a * np.tanh(a * z / s**2)) / s - z

    nets = {
        "denoiser": Asked(MLPConfig(6), eps_of),
        "ends": Asked(TableConfig(1, 2), lambda batch: np.array([[-10.0, 15.0]])),
        "gamma": Asked(MonotoneConfig(0), lambda batch: {"f": batch["t"], "slope": np.ones_like(batch["t"])}),
    }
    model = SystemModel(nets, VDM(bins=2), SampleConfig(steps=200))
    x = draw(model, 400, progress=False)
    assert np.abs(np.abs(x) - 1).max() <= 1e-3
    assert abs(np.mean(x > 0) - 0.5) <= 4 * 0.5 / 2400**0.5
    assert np.abs(np.corrcoef(x.T) - np.eye(6)).max() <= 4 / 400**0.5


# ---- bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"T": -1}, r"^objective.T: expected a number of steps, or 0 for continuous time, got -1"),
        ({"bins": 1}, r"^objective.bins: expected how many levels the data have, at least 2, got 1"),
        ({"low": 5.0}, r"^objective.low, high: expected -100 <= low < high <= 100, got 5.0, 5.0"),
        ({"high": float("inf")}, r"^objective.low, high: expected -100 <= low < high <= 100, got -13.3, inf"),
        ({"low": float("nan")}, r"^objective.low, high: expected -100 <= low"),
    ],
)
def test_an_objective_that_is_none_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        VDM(**change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"ends": TableConfig(1, 3)},
            r"^networks.ends: expected a table of one row of two numbers, got .*; give networks.ends.k",
        ),
        ({"ends": MLP}, r"^networks.ends: expected a table of one row of two numbers"),
        (
            {"gamma": TableConfig(1, 2)},
            r"^networks.gamma: expected a monotone network, got TableConfig; give networks.gamma.kind=mono",
        ),
        (
            {"denoiser": replace(MLP, outputs=2)},
            r"^networks.denoiser.outputs: expected 1 for each element of a sample, got 2; give networks.denoiser.outputs=1",
        ),
        (
            {"denoiser": ClassifierConfig(4, 1, 8, (1,), 1, (), groups=4)},
            r"^networks.denoiser.kind: expected a network that says an array of the shape of x, got 'classifier'",
        ),
        (
            {"denoiser": replace(IMAGES, classes=3)},
            r"^networks.denoiser: expected a network that reads x and t alone, .* x, t, label; give networks.denoiser.cl",
        ),
    ],
)
def test_networks_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        configuration(networks(MLP) | change, VDM(bins=LEVELS))


def test_networks_that_are_missing_or_are_not_trained_are_refused():
    with pytest.raises(
        ValueError, match=r"^objective.trains: expected denoiser, ends, gamma, got denoiser; leave it out"
    ):
        configuration(networks(MLP), VDM(trains=("denoiser",)))
    with pytest.raises(ValueError, match=r"^networks: expected 'ends', which VDM trains, got denoiser; add a table"):
        configuration({"denoiser": MLP}, VDM())


def test_a_schedule_that_rounding_has_made_flat_says_where():
    def steep(batch):
        return {"f": (np.float32(1e-8) * batch["t"] + (batch["t"] > 0.5)), "slope": np.ones_like(batch["t"])}

    nets = {"ends": Asked(None, lambda batch: np.array([[-10.0, 15.0]])), "gamma": Asked(None, lambda b: steep(b))}
    flat = nets | {"gamma": Asked(None, lambda b: {"f": np.round(b["t"]), "slope": np.ones_like(b["t"])})}
    assert schedule_of(nets).gamma(1.0) == pytest.approx(5.0, abs=1e-5)
    with pytest.raises(
        ValueError,
        match=r"^networks.gamma: expected a function that rises from t = 0 to 1, got gamma\(0\) = -10 .*; train with a",
    ):
        schedule_of(flat)


@pytest.mark.parametrize("ends", [(0, -1000), (-7, -20), (1000, 1), (0, 1e30), (np.nan, 1), (0, np.nan), (0, np.inf)])
def test_ends_that_do_not_rise_or_leave_no_signal_are_refused(ends):
    """Where the networks are made and where they are asked; -7 + log(1 + e^-20) is -7 in float32."""
    message = r"^networks.ends: expected a schedule that rises, -100 <= gamma_0 < gamma_1 <= 100, got .*; "
    with pytest.raises(ValueError, match=message + "train with a lower networks.ends.learning_rate$"):
        schedule_of({"ends": Asked(None, lambda batch: np.array([ends], np.float32)), "gamma": None})
    if np.all(np.isfinite(ends)):
        with pytest.raises(ValueError, match=message + "give others as networks.ends.first$"):
            configuration(networks(MLP) | {"ends": TableConfig(1, 2, ends)}, VDM(bins=LEVELS))


def test_a_schedule_that_is_no_number_is_refused():
    nets = {"ends": Asked(None, lambda batch: np.array([[-10.0, 15.0]]))}
    nan = Asked(None, lambda batch: {"f": np.nan * batch["t"], "slope": np.nan * batch["t"]})
    with pytest.raises(
        ValueError, match=r"^networks.gamma: expected a function that rises .*, got nan and nan at the ends"
    ):
        schedule_of(nets | {"gamma": nan})


def test_samples_that_are_on_no_level_are_refused():
    x = on_levels(np.linspace(-1, 1, 24)).reshape(6, 4).astype(np.float32)
    VDM(bins=LEVELS).check_samples(x)
    x[1, 2] += np.float32(0.3 / LEVELS)
    x[3, 0] = np.nan
    with pytest.raises(
        ValueError, match=rf"^data.source: expected values on {LEVELS} levels from -1 to 1, got 2 of 24 "
    ):
        VDM(bins=LEVELS).check_samples(x)
    with pytest.raises(ValueError, match=r"^data.source: expected values on 2 levels from -1 to 1, got 1 of 3 "):
        VDM(bins=2).check_samples(np.array([[-1.0, 1.0, 3.0]]))


def test_a_straight_line_is_the_linear_schedule():
    config = configuration(networks(MLP, 0), VDM(bins=LEVELS), RULES, T=100)
    schedule = schedule_of(system_model(config, State.first(config)).networks)
    expected = linear_gamma(-3.0, -3.0 + float(np.logaddexp(0, 6.0)))
    t = np.linspace(0, 1, 9)
    np.testing.assert_allclose(schedule.gamma(t), expected.gamma(t), atol=1e-6)
    assert on_levels(np.array([-1.2, 0.1, 1.0])).tolist() == [-1, 0, 1]
    assert NetworkConfig(MonotoneConfig(0)).to_dict()["hidden"] == 0
