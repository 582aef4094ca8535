"""An objective with a memory on every trainer: t by importance, past the steps in which it is uniform."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import states
import toy_networks
from emulator import Emulator
from helpers import emulated

from refdiff.config import Config, NetworkConfig, TrainConfig
from refdiff.models import flatten
from refdiff.objectives import HISTORY, Denoising, Objective, ScheduleConfig
from refdiff.sampling import SampleConfig
from refdiff.training import State, load_state, save_state
from refdiff.training.trainers import trainer
from refdiff.training.trainers.cuda import CUDATrainer

STEPS = 5  # in two of which t is uniform


def config(engine, shards=2, batch=32):
    return Config(
        networks={"denoiser": NetworkConfig(toy_networks.ToyDenoiser(told=False))},
        schedule=ScheduleConfig("cosine", 3),
        objective=Denoising(timesteps="importance", weighting="vlb", bins=0),
        train=TrainConfig(steps=20, batch=batch, learning_rate=1e-2, warmup=2, shards=shards),
        sample=SampleConfig(steps=3),
        engine=engine,
    )


def batch(i, n=32):
    return {"x": np.random.default_rng(i).uniform(-1, 1, (n, 6)).astype(np.float32)}


def stepped(worker, first, last):
    return [worker.step(batch(i)) for i in range(first, last)]


def important(state):
    """Whether t is no longer uniform."""
    memory = state.memory["Denoising"]
    return memory["count"].min() == HISTORY and np.ptp(np.diff(memory["cumulative"])) > 0.05


def test_one_and_two_processes_and_a_resumed_run_have_the_same_bits(some_processes, tmp_path):
    cpu, found = config("cpu"), []
    for count in (1, 2):
        some_processes(count)
        worker = trainer(cpu, State.first(cpu))
        steps = stepped(worker, 0, STEPS)
        assert important(worker.state())
        found.append((steps, states.bits(worker.state())))
    assert found[0] == found[1]
    half = trainer(cpu, State.first(cpu))
    stepped(half, 0, 3)
    assert important(half.state())
    save_state(tmp_path / "checkpoint.safetensors", cpu, half.state())
    read, state = load_state(tmp_path)
    rest = trainer(read, state)
    stepped(rest, 3, STEPS)
    assert states.bits(rest.state()) == found[0][1]


def test_the_cpu_engine_does_what_the_reference_does():
    expected, actual = (trainer(c, State.first(c)) for c in (config("reference"), config("cpu")))
    for a, b in zip(stepped(actual, 0, STEPS), stepped(expected, 0, STEPS), strict=True):
        assert a.terms == pytest.approx(b.terms, rel=1e-4)
    after = actual.state().memory["Denoising"]
    for name, leaf in expected.state().memory["Denoising"].items():
        np.testing.assert_allclose(after[name], leaf, rtol=1e-4)


@emulated
def test_the_cuda_engine_does_what_the_reference_does_and_goes_on_where_it_stopped():
    """Its memory goes to the device with each batch, and what each sample cost comes back: the step is captured all the
    same, and none is left unseen, whether one waits or not."""
    cuda = config("cuda")
    expected = trainer(config("reference"), State.first(config("reference")))
    actual = CUDATrainer(cuda, State.first(cuda), Emulator())
    for i in range(STEPS):
        a, b = actual.step(batch(i), wait=False), expected.step(batch(i))
        assert a.terms == pytest.approx(b.terms, rel=1e-4)
        if i == 2:
            half = actual.state()
    after = actual.state()
    assert important(half)
    assert actual.captured.graph is not None
    for name, leaf in expected.state().memory["Denoising"].items():
        np.testing.assert_allclose(after.memory["Denoising"][name], leaf, rtol=1e-4)
        assert after.memory["Denoising"][name].dtype == leaf.dtype
    rest = CUDATrainer(cuda, half, Emulator(3))
    stepped(rest, 3, STEPS)
    assert states.bits(rest.state()) == states.bits(after)


@dataclass(frozen=True)
class Centred(Objective):
    """|x_hat - (x - center)|^2, the center a running mean of a term: what a user's objective may remember."""

    def remember(self):
        return {"center": np.zeros(1, np.float64)}

    def draw(self, engine, data, key, memory):
        zero = engine.integers(key("zero"), data["x"].shape[0], 0, 0)
        return data | {"weight": engine.gather(memory["center"], zero)}

    def loss_and_gradient(self, engine, networks, batch, key):
        return Denoising(bins=0).loss_and_gradient(engine, networks, batch | {"target": batch["x"]}, key)

    def update(self, memory, terms):
        return {"center": 0.5 * memory["center"] + 0.5 * (1 + terms["loss"].mean())}


@emulated
def test_a_memory_of_a_users_objective_keeps_its_dtype_on_the_cuda_engine():
    reference = replace(config("reference", batch=6), objective=Centred())
    cuda = replace(reference, engine="cuda")
    expected, actual = trainer(reference, State.first(reference)), CUDATrainer(cuda, State.first(cuda), Emulator())
    for i in range(3):
        assert actual.step(batch(i, 6)).terms == pytest.approx(expected.step(batch(i, 6)).terms, rel=1e-5)
    a, b = (worker.state().memory["Centred"]["center"] for worker in (actual, expected))
    assert a.dtype == b.dtype == np.float64
    np.testing.assert_allclose(a, b, rtol=1e-6)
    assert flatten(actual.state().memory).keys() == {"Centred/center"}
