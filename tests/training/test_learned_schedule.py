"""A schedule that is learned: all samples use a cumulative sum of its numbers, whose gradient is one sum over them all."""

from dataclasses import dataclass

import numpy as np
import pytest
from contract_networks import pairs
from states import bits, difference

from refdiff import models
from refdiff.config import Config, NetworkConfig, TrainConfig
from refdiff.engines import reference
from refdiff.models import Network, TableConfig, trees
from refdiff.objectives import Objective, register_objective
from refdiff.random import Key
from refdiff.testing.measures import relative_error
from refdiff.training import State, train_step
from refdiff.training.trainers.cpu import CPUTrainer

T = 7


@dataclass(frozen=True)
class LearnedBeta(Objective):
    """KL(q(x_{t-1} | x_t, x_0) || N(0, 1)), t from 2 to T, of the schedule beta = sigmoid(weight)."""

    trains: tuple[str, ...] = ("beta",)

    def draw(self, engine, data, key, memory):
        x, n = data["x"], len(data["x"])
        before = engine.integers(key("t"), n, 0, T - 2)
        return {"x": x, "eps": engine.normal(key("eps"), n, x.shape[1:]), "before": before, "now": before + 1}

    def loss_and_gradient(self, engine, networks, batch, key):
        x, n = batch["x"], len(batch["x"])
        weight = networks["beta"].p["weight"]
        logits, of_logits = engine.reshape(weight, (T,))
        minus_log, of_minus_log = engine.softplus(logits)
        log_alpha, of_log_alpha = engine.scale(minus_log, -1.0)
        sums, of_sums = engine.cumulative_sum(log_alpha)
        table, of_table = engine.reshape(sums, (T, 1))
        rows, of_rows = engine.embedding(batch["before"], table)
        log_alpha_bar, of_bar = engine.reshape(rows, (n,))
        own, of_own = engine.embedding(batch["now"], weight)
        logit, of_logit = engine.reshape(own, (n,))
        (gamma, c0, ct, l, *_), of_step = engine.posterior_step(log_alpha_bar, logit)
        z, of_z = engine.diffuse(x, batch["eps"], gamma)
        first, of_first = engine.multiply(x, c0)
        second, of_second = engine.multiply(z, ct)
        mean, of_mean = engine.add(first, second)
        loss, of_loss = engine.gaussian_kl(mean, l)

        dmean, dl, _, _ = engine.gaussian_kl_backward(1 / key.total, of_loss)
        dfirst, dsecond = engine.add_backward(dmean, of_mean)
        dz, dct = engine.multiply_backward(dsecond, of_second)
        _, dc0 = engine.multiply_backward(dfirst, of_first)
        zero = engine.scale(gamma, 0.0)[0]
        dgamma = engine.diffuse_backward(dz, of_z)
        dbar, dlogit = engine.posterior_step_backward((dgamma, dc0, dct, dl, zero, zero), of_step)
        down = engine.embedding_backward(engine.reshape_backward(dbar, of_bar), of_rows)["weight"]
        down = engine.cumulative_sum_backward(engine.reshape_backward(down, of_table), of_sums)
        down = engine.softplus_backward(engine.scale_backward(down, of_log_alpha), of_minus_log)
        of_sum = engine.reshape_backward(down, of_logits)
        of_row = engine.embedding_backward(engine.reshape_backward(dlogit, of_logit), of_own)["weight"]
        return {"loss": loss}, {"beta": {"weight": engine.accumulate(of_row, of_sum)}}


@dataclass(frozen=True)
class TwoRows(LearnedBeta):
    """KL(N(weight, 1) || N(0, 1)) of two rows a sample: a table that is used twice."""

    def loss_and_gradient(self, engine, networks, batch, key):
        terms, g = [], []
        for name in ("before", "now"):
            y, saved = models.forward(engine, networks["beta"], {"index": batch[name]})
            x, of_x = engine.multiply(batch["x"], engine.reshape(y, (len(y),))[0])
            loss, of_loss = engine.gaussian_kl(x, engine.scale(x, 0.0)[0])
            dx = engine.gaussian_kl_backward(1 / key.total, of_loss)[0]
            dy = engine.reshape_backward(engine.multiply_backward(dx, of_x)[1], y.shape)
            g.append(models.backward(engine, networks["beta"], dy, saved)[1])
            terms.append(loss)
        return {"loss": engine.add(*terms)[0]}, {"beta": trees.add(engine, *g)}


OBJECTIVES = {"learned beta": LearnedBeta(), "a table twice": TwoRows()}
for objective in OBJECTIVES.values():
    register_objective(f"test_{type(objective).__name__.lower()}", objective.__class__)


@pytest.fixture(params=OBJECTIVES)
def learned(request):
    """config(engine, shards) of one objective after the other."""
    first = tuple(np.linspace(-3.0, 1, T).tolist())

    def config(engine="cpu", shards=2):
        train = TrainConfig(
            steps=20, batch=8, shards=shards, learning_rate=0.05, warmup=0, grid_every=0, checkpoint_every=0
        )
        network = NetworkConfig(TableConfig(rows=T, first=first))
        return Config(networks={"beta": network}, objective=OBJECTIVES[request.param], train=train, engine=engine)

    return config


def test_the_gradient_is_that_of_the_loss(learned):
    config, key = learned("reference", 1), Key(0, 1, 0, 8)
    weight = State.first(config).trees["p"]["beta"]["weight"].astype(np.float64)
    data = {"x": pairs()["x"].astype(np.float64)}
    batch = config.objective.draw(reference, data, key, {})

    def loss(weight):
        network = Network(config.networks["beta"].model, {"weight": weight})
        terms, g = config.objective.loss_and_gradient(reference, {"beta": network}, batch, key)
        return terms["loss"].mean(), g["beta"]["weight"]

    _, g = loss(weight)
    exact = np.zeros_like(weight)
    for place in np.ndindex(weight.shape):
        moved = weight.astype(np.complex128)
        moved[place] += 1e-30j
        exact[place] = loss(moved)[0].imag / 1e-30
    assert relative_error(g, exact) <= 1e-13
    assert np.count_nonzero(exact) > 3


@pytest.mark.parametrize("shards", [2, 4])
def test_the_bits_follow_from_the_shards_and_not_from_the_processes(learned, some_processes, shards):
    results = []
    for count in (1, 2, 4)[: shards // 2 + 1]:
        some_processes(count)
        config = learned("cpu", shards)
        worker = CPUTrainer(config, State.first(config))
        steps = [worker.step({"x": pairs(8, 8 * i)["x"]}) for i in range(4)]
        assert len(worker.parallel.others) == count - 1
        results.append((steps, bits(worker.state())))
    assert all(result == results[0] for result in results[1:])


def test_the_steps_are_those_of_the_reference(learned, use_threads):
    use_threads(1)
    config = learned("cpu")
    state = State.first(plain := learned("reference"))
    worker = CPUTrainer(config, State.first(config))
    for i in range(5):  # called, captured, replayed
        x = {"x": pairs(8, 8 * i)["x"]}
        actual = worker.step(x)
        state, expected = train_step(plain, state, x)
        assert actual.terms == pytest.approx(expected.terms, rel=1e-5)
        assert actual.norms == pytest.approx(expected.norms, rel=1e-4)
    assert difference(worker.state().trees["p"], state.trees["p"]) <= 1e-4
    assert worker.parallel.local.used_twice
    assert sum(f.capture is not None for f, _ in worker.parallel.local.passes.values()) == config.shards
