"""Networks, objectives and rules as a user writes them, as small as they can be: what the contract is tested with."""

from dataclasses import dataclass

import numpy as np

from refdiff import models
from refdiff.config import Config, NetworkConfig, RuleConfig, TrainConfig, register_rule
from refdiff.models import Input, trees
from refdiff.models.parameters import Parameter
from refdiff.objectives import Objective, register_objective

SIZE = 3  # numbers of a sample


@dataclass(frozen=True)
class AffineConfig:
    """y = x W + b of the entry x, with dropout where rate > 0."""

    size: int = SIZE
    rate: float = 0.0


class Affine:
    """The functions of an affine network."""

    @staticmethod
    def inputs(config):
        return {"x": Input((config.size,))}

    @staticmethod
    def layout(config):
        return {"weight": Parameter((config.size, config.size), fan=1.0), "bias": Parameter((config.size,), first=0.1)}

    @staticmethod
    def forward(engine, net, inputs, key=None):
        saved = {}
        x = inputs["x"]
        if net.config.rate and key is not None:
            x, saved["dropout"] = engine.dropout(x, net.config.rate, key("dropout"))
        y, saved["linear"] = engine.linear(x, **net.p)
        return y, saved

    @staticmethod
    def backward(engine, net, dy, saved, wrt=()):
        dx, g = engine.linear_backward(dy, saved["linear"], needs_dx="x" in wrt)
        if dx is not None and "dropout" in saved:
            dx = engine.dropout_backward(dx, saved["dropout"])
        return ({} if dx is None else {"x": dx}), g


models.register("test_affine", AffineConfig, Affine)


@dataclass(frozen=True)
class Regress(Objective):
    """|net(x + noise eps) - target|^2."""

    trains: tuple[str, ...] = ("net",)
    noise: float = 0.0

    def draw(self, engine, data, key, memory):
        x = data["x"]
        eps = engine.normal(key("eps"), x.shape[0], tuple(x.shape[1:]))
        one = np.full(x.shape[0], 1, np.float32)
        return data | {"x": engine.affine(one, x, np.full_like(one, self.noise), eps)}

    def loss_and_gradient(self, engine, networks, batch, key):
        name = self.trains[0]
        y, saved = models.forward(engine, networks[name], batch, key.under(name))
        loss, of_loss = engine.squared_error(y, batch["target"])
        _, g = models.backward(engine, networks[name], engine.squared_error_backward(1 / key.total, of_loss), saved)
        return {"loss": loss}, {name: g}


@dataclass(frozen=True)
class Twice(Regress):
    """|net(net(x)) - target|^2: one network twice in a step, in a chain."""

    def loss_and_gradient(self, engine, networks, batch, key):
        net = networks["net"]
        h, first = models.forward(engine, net, batch, key.under("first"))
        y, second = models.forward(engine, net, {"x": h}, key.under("second"))
        loss, of_loss = engine.squared_error(y, batch["target"])
        dy = engine.squared_error_backward(1 / key.total, of_loss)
        dh, g2 = models.backward(engine, net, dy, second, ("x",))
        _, g1 = models.backward(engine, net, dh["x"], first)
        return {"loss": loss}, {"net": trees.add(engine, g1, g2)}


@dataclass(frozen=True)
class Codebook(Regress):
    """As `Regress`, and the gradient of `book` is what its mean moves to: the bias, the mean of the outputs of net."""

    trains: tuple[str, ...] = ("net", "book")

    def loss_and_gradient(self, engine, networks, batch, key):
        terms, g = Regress.loss_and_gradient(self, engine, networks, batch, key)
        y, _ = models.forward(engine, networks["net"], batch)
        _, saved = models.forward(engine, networks["book"], batch)
        share = np.full(y.shape[0], 1 / key.total, np.float32)
        _, g["book"] = models.backward(engine, networks["book"], engine.affine(share, y, 0 * share, y), saved)
        return terms | {"size": engine.squared_error(y, 0 * y)[0]}, g


@dataclass(frozen=True)
class Second(Regress):
    """The same of the network `second`."""

    trains: tuple[str, ...] = ("second",)


@dataclass(frozen=True)
class Turns(Regress):
    """`Regress`, then `Second`, the latter in every second step alone."""

    def turns(self, step):
        return (Regress(noise=self.noise), Second()) if step % 2 == 0 else (Regress(noise=self.noise),)


@dataclass(frozen=True)
class Remembers(Regress):
    """The weight of a sample follows from the mean loss of the steps before."""

    def remember(self):
        return {"mean": np.ones((), np.float32), "count": np.zeros((), np.int64)}

    def draw(self, engine, data, key, memory):
        weight = np.full(data["x"].shape[0], memory["mean"], np.float32)
        return data | {"x": engine.affine(weight, data["x"], 0 * weight, data["x"])}

    def update(self, memory, terms):
        mean = np.float32(0.5) * memory["mean"] + np.float32(0.5) * np.mean(terms["loss"])
        return {"mean": np.asarray(mean, np.float32), "count": memory["count"] + 1}


@dataclass(frozen=True)
class Gathers(Regress):
    """|net(x) asks mixer(outputs of all samples, held still) - target|^2: attention of a sample over the whole step."""

    trains: tuple[str, ...] = ("net", "mixer")

    def gather(self, engine, networks, batch, key):
        return {"y": models.forward(engine, networks["net"], batch)[0]}

    def loss_and_gradient(self, engine, networks, batch, key):
        y, of_net = models.forward(engine, networks["net"], batch)
        every, of_mixer = models.forward(engine, networks["mixer"], {"x": batch["all_y"]})
        n, total = y.shape[0], every.shape[0]
        query, of_query = engine.reshape(y, (1, n, SIZE))
        keys, of_keys = engine.reshape(every, (1, total, SIZE))
        answer, of_attention = engine.attention(query, keys, keys)
        answer, of_answer = engine.reshape(answer, (n, SIZE))
        loss, of_loss = engine.squared_error(answer, batch["target"])
        d = engine.reshape_backward(engine.squared_error_backward(1 / key.total, of_loss), of_answer)
        dquery, dkeys, dvalues = engine.attention_backward(d, of_attention)
        dy = engine.reshape_backward(dquery, of_query)
        devery = engine.reshape_backward(engine.accumulate(dkeys, dvalues), of_keys)
        _, g_net = models.backward(engine, networks["net"], dy, of_net)
        _, g_mixer = models.backward(engine, networks["mixer"], devery, of_mixer)
        return {"loss": loss}, {"net": g_net, "mixer": g_mixer}


for objective in (Regress, Twice, Codebook, Second, Turns, Remembers, Gathers):
    register_objective(f"test_{objective.__name__.lower()}", objective)


def sign_descent(rule, p, g, m, v, count, rate):
    """A user's rule: the sign of the gradient; m counts in float64, as np.sqrt of a number gives it."""
    return p - rate * np.sign(g) - rate * rule.weight_decay * p, m + np.sqrt(np.float64(count)), v


register_rule("test_sign", sign_descent)


class Pairs:
    """A data set of the user's: x and its target, a fixed affine map of it."""

    def __init__(self, n=40):
        rng = np.random.default_rng(5)
        self.x = rng.standard_normal((n, SIZE)).astype(np.float32)
        self.target = (self.x @ rng.standard_normal((SIZE, SIZE)) + 0.5).astype(np.float32)

    inputs = {"x": Input((SIZE,)), "target": Input((SIZE,))}  # noqa: RUF012

    def __len__(self):
        return len(self.x)

    def rows(self, ids, key):
        return {"x": self.x[ids], "target": self.target[ids]}


def pairs(n=8, first=0):
    """A batch of `Pairs`."""
    return Pairs().rows(np.arange(first, first + n), None)


def run_of(objective, engine="reference", networks=("net",), rules=None, rate=0.0, seed=0, **train):
    """A configuration of affine networks. rules: {network: RuleConfig}; rate: of dropout."""
    rules = rules or {}
    table = {name: NetworkConfig(AffineConfig(rate=rate), rules.get(name, RuleConfig())) for name in networks}
    defaults = {"steps": 20, "batch": 8, "learning_rate": 0.05, "warmup": 0, "grid_every": 0, "checkpoint_every": 0}
    return Config(networks=table, objective=objective, train=TrainConfig(**defaults | train), engine=engine, seed=seed)
