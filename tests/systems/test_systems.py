"""What every system must show on the reference engine: its gradients, that parts of a batch add up, that a run goes on as if
it had never stopped, that it can be sent to another process, and that it learns."""

import pickle
from dataclasses import replace

import numpy as np
import pytest

from refdiff.models import Input, flatten
from refdiff.objectives import objective_name
from refdiff.testing.measures import relative_error
from refdiff.training import load_state, save_state
from refdiff.training.trainers import trainer
from refdiff.training.trainers.checking import check_batch
from refdiff.training.trainers.reference import loss_and_gradient
from systems import checks


def test_the_gradient_of_every_network(begun):
    config, data, state = begun
    errors = {
        (objective_name(objective), name): error
        for objective in config.objective.turns(state.step + 1)
        for name, error in checks.gradient_errors(config, state, objective, data).items()
    }
    assert errors
    assert max(errors.values()) <= 1e-12, errors


def test_four_shards_and_one(begun):
    """What a sample must know of all others is gathered, so the number of shards changes no more than rounding."""
    config, data, state = begun
    networks, batch = checks.networks_of(config, state), checks.batch_at(config, data, state.step + 1)
    for objective in config.objective.turns(state.step + 1):
        memory = state.memory.get(objective_name(objective), {})
        found = []
        for shards in (1, 4):
            parts = replace(config, train=replace(config.train, shards=shards))
            found.append(loss_and_gradient(parts, objective, networks, batch, state.step + 1, memory))
        (terms, g), (terms4, g4) = found
        for name, term in terms.items():
            assert relative_error(terms4[name], term) <= 1e-12, name
        for name in objective.trains:
            a, b = (np.concatenate([leaf.ravel() for leaf in flatten(tree[name]).values()]) for tree in (g4, g))
            assert relative_error(a, b) <= 1e-12, name


def test_a_resumed_run_has_the_same_bits(system, tmp_path):
    config, data, state = system
    half, _ = checks.trained(config, data, state, 3)
    expected = checks.bits(checks.trained(config, data, half.state(), 3)[0].state())
    save_state(tmp_path / "checkpoint.safetensors", config, half.state())
    read, state = load_state(tmp_path)
    assert read == config
    actual = checks.bits(checks.trained(read, data, state, 3)[0].state())
    assert actual == expected


def test_objective_and_configuration_can_be_sent(system):
    config, data, state = system
    sent, objective = pickle.loads(pickle.dumps((config, config.objective)))
    assert (sent, objective) == (config, config.objective)
    results = [checks.bits(checks.trained(c, data, state, 1)[0].state()) for c in (config, sent)]
    assert results[0] == results[1]


def test_data_that_lack_what_it_reads_are_refused(system):
    """Each entry in turn, or one of another shape, before anything is computed."""
    config, data, state = system
    check_batch(config, data.inputs, "the data")
    networks = {name: network.model for name, network in config.networks.items()}
    read = config.objective.reads(networks)
    assert read
    for name in read:
        rest = {entry: given for entry, given in data.inputs.items() if entry != name}
        with pytest.raises(ValueError, match=f"expected data with '{name}', which it reads, got .* from the data"):
            check_batch(config, rest, "the data")
        with pytest.raises(ValueError, match=f"expected {read[name].kind} '{name}' of shape .* from the data"):
            check_batch(config, data.inputs | {name: Input((9, 9), read[name].kind)}, "the data")
    batch = checks.batch_at(config, data, 1)
    del batch[name]
    with pytest.raises(ValueError, match=f"'{name}', which it reads, got .* from the batch|data: expected"):
        trainer(config, state).step(batch)


def test_it_learns(system):
    """The loss of the last fifth of a run is below that of the first."""
    config, data, state = system
    _, steps = checks.trained(config, data, state, config.train.steps)
    fifth = len(steps) // 5
    first, last = (np.mean([step.loss for step in part]) for part in (steps[:fifth], steps[-fifth:]))
    assert last < first
