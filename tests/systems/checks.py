"""What each system is asked: gradients by complex step, parts of a batch against the whole, and the bits of a run."""

import warnings

import numpy as np

from refdiff import engines
from refdiff.config import learns
from refdiff.models import Network, flatten, tree_map
from refdiff.objectives import objective_name
from refdiff.random import Key
from refdiff.testing.derivatives import complex_step
from refdiff.testing.measures import quotient
from refdiff.training.frozen import frozen_trees
from refdiff.training.trainers import trainer
from systems.runs import batch_at

REFERENCE = engines.get("reference")


def trained(config, data, state, steps):
    """The trainer after so many steps more, and what they measured."""
    worker = trainer(config, state)
    return worker, [worker.step(batch_at(config, data, state.step + 1 + i)) for i in range(steps)]


def bits(state):
    """Everything of a state, to the bit."""
    arrays = {f"{tree} {name}": a for tree, by in state.trees.items() for name, a in flatten(by).items()}
    arrays |= {f"memory {name}": a for name, a in flatten(state.memory).items()}
    return state.step, state.samples_seen, state.updates, {name: (a.dtype, a.tobytes()) for name, a in arrays.items()}


def networks_of(config, state):
    """{name: Network} in float64, those that learn moved a little, so that no layer is zero any more."""
    rng = np.random.default_rng(0)

    def moved(a):
        return a.astype(np.float64) + 0.05 * rng.standard_normal(a.shape)

    trees = state.trees["p"] | frozen_trees(config, state)
    return {
        name: Network(network.model, tree_map(moved if learns(network.rule.rule) else np.float64, trees[name]))
        for name, network in config.networks.items()
    }


def gradient_errors(config, state, objective, data):
    """|<g, v> - d mean(term)/dv| / (|g| |v|) of each network that learns, for a random v: by a complex step [ComplexStep].

    The term is that of the network's name, or "loss".   -> {network: error}
    """
    networks, step = networks_of(config, state), state.step + 1
    entries = {k: a.astype(np.float64) if a.dtype.kind == "f" else a for k, a in batch_at(config, data, step).items()}
    key = Key(config.seed, step, 0, config.train.batch).under(objective_name(objective))
    drawn = objective.draw(REFERENCE, entries, key, state.memory.get(objective_name(objective), {}))

    def evaluate(networks):
        found = objective.gather(REFERENCE, networks, drawn, key) or {}
        return objective.loss_and_gradient(REFERENCE, networks, drawn | {f"all_{k}": a for k, a in found.items()}, key)

    _, g = evaluate(networks)
    assert set(g) == set(objective.trains)
    errors, rng = {}, np.random.default_rng(1)
    for name in objective.trains:
        if not learns(config.networks[name].rule.rule):
            continue
        model, p = networks[name]
        v = tree_map(lambda a: rng.standard_normal(a.shape), p)

        def term(p, name=name, model=model):
            found, _ = evaluate(networks | {name: Network(model, p)})
            return found.get(name, found["loss"]).mean()

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", np.exceptions.ComplexWarning)  # of the gradients there, which nobody uses
            expected = complex_step(term, p, v)
        actual = _dot(g[name], v)
        errors[name] = quotient(abs(actual - expected), (_dot(g[name], g[name]) * _dot(v, v)) ** 0.5)
    return errors


def _dot(a, b):
    a, b = flatten(a), flatten(b)
    assert {k: np.shape(x) for k, x in a.items()} == {k: np.shape(x) for k, x in b.items()}
    return sum(float(np.vdot(a[k], b[k])) for k in a)
