"""A classifier on every trainer, of noisy and of clean images: one step against the reference, bits, and that it learns."""

from dataclasses import replace

import numpy as np
import pytest
import states
import toy_networks
from emulator import Emulator
from helpers import emulated

from refdiff.config import Config, NetworkConfig, TrainConfig
from refdiff.models import ClassifierConfig, flatten
from refdiff.objectives import Classification, ScheduleConfig
from refdiff.sampling import SampleConfig
from refdiff.testing.measures import relative_error
from refdiff.training import State
from refdiff.training.trainers import trainer
from refdiff.training.trainers.cuda import CUDATrainer

NOISED = pytest.mark.parametrize("noised", [True, False])


def config(engine, noised=True, batch=8):
    return Config(
        networks={"classifier": NetworkConfig(toy_networks.ToyClassifier(classes=10, width=16))},
        schedule=ScheduleConfig("cosine", 50),
        objective=Classification(noised=noised),
        train=TrainConfig(steps=60, batch=batch, learning_rate=1e-2, warmup=2, shards=2),
        sample=SampleConfig(steps=5),
        engine=engine,
    )


def batch(i, n=8):
    at = np.arange(i * n, (i + 1) * n) % len(states.DIGITS)
    return {"x": states.DIGITS[at], "label": states.LABELS[at]}


def whole(tree):
    return np.concatenate([leaf.ravel() for leaf in flatten(tree).values()])


def assert_same(actual, expected, steps=3):
    for i in range(steps):
        a, b = actual.step(batch(i)), expected.step(batch(i))
        assert set(a.terms) == {"loss"}
        assert a.terms == pytest.approx(b.terms, rel=1e-4)
        assert a.norms == pytest.approx(b.norms, rel=1e-3)
    a, b = (worker.state().trees["p"]["classifier"] for worker in (actual, expected))
    assert relative_error(whole(a), whole(b)) <= 1e-3


@NOISED
def test_the_cpu_engine_does_what_the_reference_does(noised):
    configs = config("cpu", noised), config("reference", noised)
    assert_same(*(trainer(c, State.first(c)) for c in configs))


@emulated
@NOISED
def test_the_cuda_engine_does_what_the_reference_does(noised):
    cuda, reference = config("cuda", noised), config("reference", noised)
    assert_same(CUDATrainer(cuda, State.first(cuda), Emulator()), trainer(reference, State.first(reference)))


def test_one_and_two_processes_have_the_same_bits(some_processes):
    cpu, found = config("cpu"), []
    for count in (1, 2):
        some_processes(count)
        worker = trainer(cpu, State.first(cpu))
        for i in range(4):
            worker.step(batch(i))
        found.append(states.bits(worker.state()))
    assert found[0] == found[1]


def test_it_learns():
    clean = config("cpu", False, batch=32)
    model = ClassifierConfig(size=8, channels=1, width=8, multipliers=(1, 2), blocks=1, attention=(4,), groups=4)
    clean = replace(clean, networks={"classifier": NetworkConfig(model)})
    worker = trainer(clean, State.first(clean))
    losses = [worker.step(batch(i, 32)).loss for i in range(40)]
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])


@pytest.mark.parametrize(("label", "got"), [(-1, "-1 to 7"), (10, "1 to 10")])
def test_a_label_that_is_no_class_is_refused(label, got):
    """Also the one after the last, which stands for none where a network is told labels."""
    given = batch(0)
    given["label"] = np.array([1, 2, 3, 4, 5, 6, 7, label])
    for engine in ("reference", "cpu"):
        worker = trainer(config(engine), State.first(config(engine)))
        with pytest.raises(
            ValueError, match=rf"networks.classifier: expected labels from 0 to 9, got {got} in the batch"
        ):
            worker.step(given)


def test_images_without_labels_are_refused():
    worker = trainer(config("reference"), State.first(config("reference")))
    with pytest.raises(
        ValueError, match="Classification: expected data with 'label', which it reads, got x from the batch"
    ):
        worker.step({"x": batch(0)["x"]})
