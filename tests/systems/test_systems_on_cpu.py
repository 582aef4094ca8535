"""Every system on the cpu engine too, in shards: its gradients, and that bits follow neither from the number of processes
nor from where a run was stopped. (What an engine lacks is plain NumPy in `operations`, which it runs, if slower.)"""

from dataclasses import replace

import numpy as np
import pytest

from refdiff.models import flatten
from refdiff.testing.measures import relative_error
from refdiff.training import load_state, save_state
from systems import checks
from systems.catalogue import NAMES

# It sums over samples itself, as an operation of the engine would not: the last digits follow the number of processes.
SUM_THEMSELVES = ("vector_quantised",)


def on_cpu(config):
    return replace(config, engine="cpu", train=replace(config.train, shards=4))


def whole(tree):
    return np.concatenate([leaf.ravel() for leaf in flatten(tree).values()])


def test_the_gradients_are_those_of_the_reference(begun):
    """Of one step, by what it adds to the first moments; and what else a step changes."""
    config, data, state = begun
    (expected, of_expected), (actual, of_actual) = (checks.trained(c, data, state, 1) for c in (config, on_cpu(config)))
    bound = (
        3e-4 if {"ends", "gamma"} <= set(config.networks) else 1e-5
    )  # a t of some hundreds, in float32, is no integer
    assert of_actual[0].terms == pytest.approx(of_expected[0].terms, rel=bound)
    assert of_actual[0].norms == pytest.approx(of_expected[0].norms, rel=bound)
    a, b = actual.state(), expected.state()
    assert a.updates == b.updates
    for name, before in state.trees["m"].items():
        g, g_expected = (whole(s.trees["m"][name]) - 0.9 * whole(before) for s in (a, b))
        if config.networks[name].rule.betas[0] == 0.9:
            assert relative_error(g, g_expected) <= bound, name
        assert relative_error(whole(a.trees["v"][name]), whole(b.trees["v"][name])) <= bound, name
    for name in a.trees["p"].keys() - state.trees["m"].keys():  # by the rules "average" and "follow"
        assert relative_error(whole(a.trees["p"][name]), whole(b.trees["p"][name])) <= 1e-5, name
    for name, memory in b.memory.items():
        assert relative_error(a.memory[name], memory) <= 1e-5


@pytest.mark.parametrize("system", [name for name in NAMES if name not in SUM_THEMSELVES], indirect=True)
def test_one_two_and_four_processes_have_the_same_bits(some_processes, system):
    config, data, state = system
    results = []
    for count in (1, 2, 4):
        some_processes(count)
        worker, steps = checks.trained(on_cpu(config), data, state, 5)
        assert len(worker.parallel.parts(config.train.batch)) == count
        results.append((steps, checks.bits(worker.state())))
    assert results[1:] == results[:1] * 2


def test_a_resumed_run_has_the_same_bits(some_processes, system, tmp_path, request):
    """In another number of processes, too, where that may be."""
    config, data, state = system
    config = on_cpu(config)
    some_processes(2)
    half = checks.trained(config, data, state, 3)[0].state()
    expected = checks.bits(checks.trained(config, data, half, 3)[0].state())
    save_state(tmp_path / "checkpoint.safetensors", config, half)
    if request.node.callspec.params["system"] not in SUM_THEMSELVES:
        some_processes(4)
    read, state = load_state(tmp_path)
    assert checks.bits(checks.trained(read, data, state, 3)[0].state()) == expected
