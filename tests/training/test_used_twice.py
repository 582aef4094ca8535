"""A network that is used twice in a step gets the sum of its gradients: in place, captured, in several processes."""

from dataclasses import dataclass

import numpy as np
import pytest
from contract_networks import Twice, pairs, run_of
from states import batches, bits, difference

from refdiff import models
from refdiff.engines import reference
from refdiff.models import Network, flatten, trees
from refdiff.objectives import Denoising, register_objective
from refdiff.random import Key
from refdiff.training import State, train_step
from refdiff.training.trainers.cpu import CPUTrainer


@dataclass(frozen=True)
class Mirrored(Denoising):
    """The sum of the losses of x_t and of -x_t, whose target is then the other way round."""

    def loss_and_gradient(self, engine, networks, batch, key):
        opposite = np.full(batch["x"].shape[0], -1, np.float32)
        other = batch | {
            name: engine.affine(opposite, batch[name], 0 * opposite, batch[name]) for name in ("x", "target")
        }
        terms, g = Denoising.loss_and_gradient(self, engine, networks, batch, key)
        more, g2 = Denoising.loss_and_gradient(self, engine, networks, other, key.under("other"))
        one = np.full(batch["x"].shape[0], 1, np.float32)
        both = engine.affine(one, terms["loss"], one, more["loss"])
        return {"loss": both, "other": more["loss"]}, {"denoiser": trees.add(engine, g["denoiser"], g2["denoiser"])}


register_objective("test_mirrored", Mirrored)


def loss(p, batch):
    """The mean of |net(net(x)) - target|^2."""
    h = batch["x"] @ p["weight"] + p["bias"]
    return ((h @ p["weight"] + p["bias"] - batch["target"]) ** 2).mean()


def exact(p, batch):
    """Its gradient by complex steps."""
    g = {}
    for name, leaf in p.items():
        g[name] = np.empty(leaf.shape)
        for place in np.ndindex(leaf.shape):
            changed = {k: v.astype(complex) for k, v in p.items()}
            changed[name][place] += 1e-30j
            g[name][place] = loss(changed, batch).imag / 1e-30
    return g


def test_the_gradient_is_that_of_the_loss():
    config = run_of(Twice())
    p = {name: leaf.astype(float) for name, leaf in State.first(config).trees["p"]["net"].items()}
    batch = {name: entry.astype(float) for name, entry in pairs().items()}
    networks = {"net": Network(config.networks["net"].model, p)}
    terms, g = config.objective.loss_and_gradient(reference, networks, batch, Key(0, 1, 0, 8))
    assert terms["loss"].mean() == pytest.approx(loss(p, batch), rel=1e-14)
    assert difference(g["net"], exact(p, batch)) <= 1e-13


def test_in_place_and_captured_it_is_the_same(use_threads):
    use_threads(1)
    config = run_of(Twice(), "cpu")
    worker = CPUTrainer(config, State.first(config))
    for i in range(5):  # as it is, then captured, then replayed
        p = worker.state().trees["p"]["net"]
        batch = pairs(8, 8 * i)
        measured = worker.step(batch)
        g = worker.packing.unpack(worker.buffers["g0"])["net"]
        expected = exact({k: v.astype(float) for k, v in p.items()}, batch)
        assert difference(g, expected) <= 1e-6
        assert measured.norms["net"] == pytest.approx(
            np.sqrt(sum((leaf**2).sum() for leaf in expected.values())), rel=1e-6
        )
    assert all(f.capture is not None for f, _ in worker.parallel.local.passes.values())


def test_a_u_net_twice(small, some_processes):
    config = small.changed(["engine=cpu", "objective.kind=test_mirrored", "train.shards=2", "model.multipliers=[1]"])
    reference = config.changed(["engine=reference"])
    results = []
    for count in (1, 2):
        some_processes(count)
        worker, state = CPUTrainer(config, State.first(config)), State.first(reference)
        for batch in batches([2] * 2):
            actual = worker.step(batch)
            state, expected = train_step(reference, state, batch)
            assert actual.terms == pytest.approx(expected.terms, rel=1e-5)
            assert actual.norms == pytest.approx(expected.norms, rel=1e-4)
        assert difference(worker.state().trees["p"], state.trees["p"]) <= 1e-3
        results.append(bits(worker.state()))
    assert results[0] == results[1]
    assert len(flatten(worker.state().trees["p"])) == len(flatten(models.layout(config.model)))
