"""Labels, latents and the cascade on the CUDA engine, emulated, against the reference: a step launched, one captured, two
replayed."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from emulator import Emulator

from refdiff.models import Input, flatten
from refdiff.testing.measures import relative_error
from refdiff.training.trainers.cuda import CUDATrainer, entries_of
from systems import checks
from systems.runs import batch_at

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="the emulator needs g++")
CAPTURED = pytest.mark.parametrize(
    "system",
    [
        "hybrid",
        "importance",
        "autoencoder",
        "latent",
        "base",
        "upsampling",
        "vae",
        "vae_gaussian",
        "vae_importance",
        "bits",
        "learned_beta",
        "vdm",
        "vdm_images",
        "vdm_steps",
    ],
    indirect=True,
)


def on_cuda(system, steps):
    """The state and what was measured of so many steps of a batch of 4 in two shards: of the reference, of CUDA."""
    config, data, state = system
    config = replace(config, train=replace(config.train, batch=4, shards=2))
    expected, of_expected = checks.trained(config, data, state, steps)
    config = replace(config, engine="cuda")
    actual = CUDATrainer(config, state, Emulator())
    of_actual = [actual.step(batch_at(config, data, state.step + 1 + i)) for i in range(steps)]
    return (expected.state(), of_expected), (actual.state(), of_actual)


def whole(tree):
    return np.concatenate([leaf.ravel() for leaf in flatten(tree).values()])


@CAPTURED
def test_the_gradients_are_those_of_the_reference(system):
    """Of the first step, by the first moments that it leaves."""
    (expected, _), (actual, _) = on_cuda(system, 1)
    for name, m in expected.trees["m"].items():
        assert relative_error(whole(actual.trees["m"][name]), whole(m)) <= 1e-5, name


@CAPTURED
def test_captured_steps_do_what_the_pure_step_does(system):
    (expected, of_expected), (actual, of_actual) = on_cuda(system, 4)
    assert (actual.step, actual.updates) == (expected.step, expected.updates)
    for a, b in zip(of_actual, of_expected, strict=True):
        assert a.terms == pytest.approx(b.terms, rel=1e-4)
        assert a.norms == pytest.approx(b.norms, rel=1e-3)
    assert actual.trees["ema"].keys() == expected.trees["ema"].keys()


@CAPTURED
def test_what_is_read_goes_to_the_device_and_no_more(system):
    """Of the data's entries those that the objective reads; an entry that it draws is none of them."""
    config, data, _ = system
    read = config.objective.reads({name: network.model for name, network in config.networks.items()})
    for inputs in (None, data.inputs, {**data.inputs, "other": Input((3,))}):
        entries = entries_of(config, inputs)
        assert {name: shape for name, (shape, _) in entries.items()} == {
            name: (config.train.batch, *entry.shape) for name, entry in read.items()
        }
