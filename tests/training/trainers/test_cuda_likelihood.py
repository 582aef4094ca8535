"""Bounds of the likelihood in the captured step of the CUDA engine, on the emulator: several networks, some of a table or of
vectors alone, and terms that one network minimises by itself."""

import shutil
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
import toy_networks
from emulator import Emulator
from states import assert_goes_on

from refdiff.config import Config, NetworkConfig, RuleConfig, TrainConfig
from refdiff.models import Input, PerceptronConfig, TableConfig, backward, flatten, forward, register
from refdiff.models.parameters import Parameter
from refdiff.objectives import Objective, register_objective
from refdiff.systems.vae import VAE
from refdiff.testing.measures import relative_error
from refdiff.training import State
from refdiff.training.state import TREES
from refdiff.training.trainers.cuda import CUDATrainer, plan
from refdiff.training.trainers.reference import ReferenceTrainer

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="the emulator needs g++")
TRAIN = TrainConfig(steps=20, batch=4, learning_rate=1e-2, warmup=2)
LEVELS = 17


@dataclass(frozen=True)
class Curve:
    """A monotone function of so many units; 0: a straight line, with parameters of no numbers."""

    units: int = 3


def curve_layout(config):
    rising = np.linspace(0.5, 2, config.units)
    first = {"slope": np.array([0.7]), "rate": 3 * rising, "shift": rising - 1, "weight": -rising}
    return {name: Parameter(value.shape, value) for name, value in first.items()}


register("toy_curve", Curve, SimpleNamespace(
    inputs=lambda config: {"t": Input()}, layout=curve_layout,
    forward=lambda engine, net, inputs, key=None: engine.monotone(inputs["t"], **net.p),
    backward=lambda engine, net, dy, saved, wrt=(): ({}, engine.monotone_backward(dy, saved)),
))  # fmt: skip


@dataclass(frozen=True)
class LearnedLevels(Objective):
    """|eps - eps_hat|^2 at a learned level between two learned ends. The term `ends` is what the ends minimise: what x costs
    at the first level, and what the last one tells of x."""

    trains: tuple[str, ...] = ("denoiser", "ends", "curve")

    def reads(self, networks):
        return {"x": Input((6,))}

    def draw(self, engine, data, key, memory):
        n, x = data["x"].shape[0], data["x"]
        return {
            "x": x, "eps": engine.normal(key("eps"), n, x.shape[1:]), "t": engine.uniform(key("t"), n),
            "index": engine.integers(key("index"), n, 0, 0),
        }  # fmt: skip

    def loss_and_gradient(self, engine, networks, batch, key):
        n, share = batch["t"].shape[0], 1 / key.total
        row, of_row = forward(engine, networks["ends"], batch)
        parts, of_parts = engine.split(row, 2)
        (low, of_low), (width, _) = (engine.reshape(part, (n,)) for part in parts)
        (f, f1), of_curve = forward(engine, networks["curve"], batch)
        rise, of_rise = engine.multiply(width, f)
        gamma, _ = engine.add(low, rise)
        z, of_z = engine.diffuse(batch["x"], batch["eps"], gamma)
        eps_hat, of_denoiser = forward(engine, networks["denoiser"], {"x": z})
        loss, of_loss = engine.squared_error(eps_hat, batch["eps"])
        d, g_denoiser = backward(
            engine, networks["denoiser"], engine.squared_error_backward(share, of_loss), of_denoiser, ("x",)
        )
        _, df = engine.multiply_backward(engine.diffuse_backward(d["x"], of_z), of_rise)
        _, g_curve = backward(engine, networks["curve"], (df, engine.scale(f1, 0.0)[0]), of_curve)

        likelihood, of_likelihood = engine.levels_log_likelihood(batch["x"], batch["eps"], low, LEVELS)
        high, _ = engine.add(low, width)
        prior, of_prior = engine.prior_kl(batch["x"], high)
        ends, _ = engine.add(prior, engine.scale(likelihood, -1.0)[0])
        dhigh = engine.prior_kl_backward(share, of_prior)
        dlow = engine.accumulate(dhigh, engine.levels_log_likelihood_backward(-share, of_likelihood))
        columns = tuple(engine.reshape_backward(d, of_low) for d in (dlow, dhigh))
        _, g_ends = backward(engine, networks["ends"], engine.split_backward(columns, of_parts), of_row)
        return {"loss": loss, "ends": ends, "prior": prior}, {"denoiser": g_denoiser, "ends": g_ends, "curve": g_curve}


register_objective("learned_levels", LearnedLevels)


def learned_levels(dtype="float32", shards=1, units=3, learning_rate=1e-2):
    networks = {
        "denoiser": NetworkConfig(toy_networks.ToyDenoiser(told=False)),
        "ends": NetworkConfig(
            TableConfig(1, 2, (-5.3, 8.1)), RuleConfig(learning_rate=learning_rate, max_grad_norm=0.5)
        ),
        "curve": NetworkConfig(Curve(units), RuleConfig(learning_rate=learning_rate, ema_decay=0.5)),
    }
    engine = "cuda" if dtype == "bfloat16" else "reference"
    return Config(
        networks=networks, objective=LearnedLevels(), train=replace(TRAIN, shards=shards), engine=engine, dtype=dtype
    )


def batch(i, n=4):
    return {"x": (2 * np.random.default_rng(i).integers(0, LEVELS, (n, 6)) / (LEVELS - 1) - 1).astype(np.float32)}


def whole(tree):
    return np.concatenate([leaf.ravel() for leaf in flatten(tree).values()])


@pytest.mark.parametrize("units", [0, 3])
@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_networks_without_a_matrix_and_a_term_of_a_network(dtype, shards, units):
    """What the ends minimise asks no network of bfloat16: their digits are the reference's in both types."""
    config, exact = learned_levels(dtype, shards, units), learned_levels(shards=shards, units=units)
    worker, reference = CUDATrainer(config, State.first(exact), Emulator()), ReferenceTrainer(exact, State.first(exact))
    for i in range(4):
        actual, expected = worker.step(batch(i)), reference.step(batch(i))
        assert [*actual.terms] == ["loss", "ends", "prior"]
        assert actual.terms["loss"] == pytest.approx(expected.terms["loss"], rel=1e-4 if dtype == "float32" else 2e-2)
        assert actual.terms == pytest.approx({**expected.terms, "loss": actual.terms["loss"]}, rel=1e-5)
        assert actual.norms["ends"] == pytest.approx(expected.norms["ends"], rel=1e-4)
        assert actual.norms == pytest.approx(expected.norms, rel=1e-4 if dtype == "float32" else 6e-2, abs=1e-9)
    assert expected.norms["ends"] > 0.5, "clipped"
    actual, expected = worker.state(), reference.state()
    for tree in TREES:
        for name, e in expected.trees[tree].items():
            if name == "curve" and not units:  # a straight line, with whose slope nothing changes
                slope = np.float32(0.7 if tree in ("p", "ema") else 0)
                assert actual.trees[tree][name]["slope"].tolist() == [slope]
                continue
            exactly = dtype == "float32" or name == "ends"
            most = 1e-4 if exactly else 6e-2
            assert relative_error(whole(actual.trees[tree][name]), whole(e)) <= most, (tree, name)
    needed = plan(config).nbytes
    assert worker.arena.extent <= needed <= worker.arena.reserved < worker.arena.extent + 4096


def test_a_network_of_bfloat16_reads_a_tables_numbers_in_float32():
    """A step of 1e-6 is seen by the next one: in bfloat16 the ends, -5.3 and 8.1, stand 1/32 apart from their neighbours."""
    config = learned_levels("bfloat16", learning_rate=1e-6)
    worker = CUDATrainer(config, State.first(config), Emulator())
    weights = {name: worker.optimisers[name].parameters for name in worker.optimisers}
    assert {a.dtype for a in weights["denoiser"].values() if a.ndim > 1} == {"bfloat16"}
    assert {a.dtype for name in ("ends", "curve") for a in weights[name].values()} == {"float32"}
    assert [worker.optimisers[name].state.weights is None for name in ("denoiser", "ends", "curve")] == [
        False,
        True,
        True,
    ]
    first = worker.step(batch(0)).terms["prior"]
    moved = worker.state().trees["p"]["ends"]["weight"]
    assert moved.tolist() != np.float32([[-5.3, 8.1]]).tolist()
    assert abs(moved - [[-5.3, 8.1]]).max() < 1e-5
    assert worker.step(batch(0)).terms["prior"] != first


def test_learned_levels_go_on_as_if_they_had_never_stopped():
    config = learned_levels("bfloat16", shards=2)
    assert_goes_on(lambda state, *order: CUDATrainer(config, state, Emulator(*order)), State.first(config), batch)


def autoencoder(likelihood, samples, dtype):
    """A variational autoencoder of points or of 2 x 3 pixels."""
    shape = (2, 3, 1) if likelihood == "bernoulli" else (6,)
    networks = {
        "encoder": PerceptronConfig(shape, (16,), (2,), parts=2),
        "decoder": PerceptronConfig((2,), (16,), shape, entry="z"),
        **({"noise": TableConfig(first=(-1.0,))} if likelihood == "gaussian" else {}),
    }
    return Config(
        networks={name: NetworkConfig(model) for name, model in networks.items()},
        objective=VAE(likelihood=likelihood, samples=samples, latent=2), train=TRAIN, dtype=dtype,
        engine="cuda" if dtype == "bfloat16" else "reference",
    ), shape  # fmt: skip


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_variational_autoencoder(likelihood, samples, dtype):
    (config, shape), (exact, _) = (autoencoder(likelihood, samples, kind) for kind in (dtype, "float32"))
    worker, reference = CUDATrainer(config, State.first(exact), Emulator()), ReferenceTrainer(exact, State.first(exact))
    for i in range(4):
        data = {"x": batch(i)["x"].reshape(4, *shape)}
        actual, expected = worker.step(data), reference.step(data)
        assert actual.terms == pytest.approx(expected.terms, rel=1e-4 if dtype == "float32" else 3e-2)
        assert actual.norms == pytest.approx(expected.norms, rel=1e-3 if dtype == "float32" else 6e-2)
    actual, expected = worker.state(), reference.state()
    for name, m in expected.trees["m"].items():
        assert relative_error(whole(actual.trees["m"][name]), whole(m)) <= (1e-4 if dtype == "float32" else 6e-2), name
