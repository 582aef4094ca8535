"""The systems that learn by a bound of the likelihood on the CUDA engine, emulated, against the reference: a step launched,
one captured, two replayed, in both types."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from emulator import Emulator
from systems import autoencoders, hierarchical, rows
from systems.runs import batch_at, configuration

from refdiff.models import MLPConfig, MonotoneConfig, TableConfig, UNetConfig, flatten
from refdiff.systems import VDM, Binomial, Nonequilibrium
from refdiff.systems.learned_beta import first_logits
from refdiff.training import State
from refdiff.training.trainers.cuda import CUDATrainer, plan
from refdiff.training.trainers.reference import ReferenceTrainer

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="the emulator needs g++")
TRAIN = {"batch": 4, "rate": 1e-3}


def levels(count):
    """Images of so many levels, from -1 to 1."""
    x = rows.images(4).entries["x"]
    return rows.Rows(x=2 * np.round((x + 1) / 2 * (count - 1)) / (count - 1) - 1)


def vdm(T, hidden, denoiser):
    networks = {"denoiser": denoiser, "ends": TableConfig(1, 2, (-7.3, 9.1)), "gamma": MonotoneConfig(hidden)}
    return configuration(networks, VDM(T=T, bins=17), **TRAIN), levels(17)


def nonequilibrium(T=7):
    networks = {"denoiser": MLPConfig(2, 16, 1, outputs=2), "beta": TableConfig(T - 1, 1, first_logits(T))}
    return configuration(networks, Nonequilibrium(T=T), **TRAIN), rows.points(labels=False)


MLP = MLPConfig((4, 4, 1), 16, 1)
SYSTEMS = {
    "vae": lambda: (autoencoders.ALONE["vae"].config, autoencoders.data),
    "vae_importance_gaussian": lambda: (autoencoders.ALONE["vae_importance_gaussian"].config, autoencoders.data),
    "hierarchical": lambda: (hierarchical.system((4, 4, 1), (5, 3, 2), "bernoulli"), rows.images(4)),
    "hierarchical_gaussian": lambda: (hierarchical.system((2,), (3, 2), "gaussian"), rows.points(labels=False)),
    "vdm": lambda: vdm(0, 8, MLP),
    "vdm_steps": lambda: vdm(5, 8, MLP),
    "vdm_line": lambda: vdm(
        0,
        0,
        UNetConfig(size=4, channels=1, width=8, multipliers=(1, 1), blocks=1, attention=(), groups=4, fourier=(2, 3)),
    ),
    "nonequilibrium": nonequilibrium,
    "binomial": lambda: (configuration({"denoiser": MLP}, Binomial(T=9), **TRAIN), levels(2)),
}


def trained(config, data, state, steps):
    """The reference's trainer after so many steps more, and what they measured."""
    worker = ReferenceTrainer(config, state)
    return worker, [worker.step(batch_at(config, data, state.step + 1 + i)) for i in range(steps)]


def whole(tree):
    return np.concatenate([leaf.ravel() for leaf in flatten(tree).values()])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", SYSTEMS)
def test_captured_steps_do_what_the_pure_step_does(name, dtype):
    """The gradients of the first step, by the moments that it leaves, and the terms of each."""
    config, data = SYSTEMS[name]()
    config = replace(config, train=replace(config.train, batch=4, shards=2, learning_rate=1e-3))
    state = trained(config, data, State.first(config), 2)[0].state()  # in which no weight is 0 any more
    actual = CUDATrainer(replace(config, engine="cuda", dtype=dtype), state, Emulator())
    close = {"rel": 1e-4} if dtype == "float32" else {"rel": 5e-2, "abs": 2e-2}
    after, expected = trained(config, data, state, 3)
    for i, e in enumerate(expected):
        step = actual.step(batch_at(config, data, state.step + 1 + i))
        assert step.terms == pytest.approx(e.terms, **close)
        if i == 0:
            one, _ = trained(config, data, state, 1)
            for network, m in one.state().trees["m"].items():
                before, now = (0.9 * whole(state.trees["m"][network]), whole(actual.state().trees["m"][network]))
                size = np.linalg.norm(whole(m) - before)
                assert np.linalg.norm(now - whole(m)) <= (1e-5 if dtype == "float32" else 6e-2) * size + 1e-9, network
    assert after.state().updates == actual.state().updates
    assert actual.arena.extent <= plan(actual.config).nbytes
