"""The trainer that writes in place: it computes what the pure step computes."""

import numpy as np
import pytest

from refdiff import TrainingError
from refdiff.data import load
from refdiff.engines.cpu.runtime import thread_pool
from refdiff.models import flatten
from refdiff.training import State, train, train_step
from refdiff.training.trainers.cpu import CPUTrainer


@pytest.fixture
def small(small):
    return small.changed(["engine=cpu"])


def difference(a, b):
    a, b = flatten(a), flatten(b)
    return max(np.linalg.norm(a[k] - b[k]) / np.linalg.norm(b[k]) for k in a if np.abs(b[k]).max() > 1e-9)


@pytest.mark.parametrize(
    "changes",
    [["train.clip=0.01"], ["train.clip=0", "train.weight_decay=0.1"], ["model.dropout=0.3", "train.decay=constant"],
     ["train.prediction=v", "train.average=0"]],
)  # fmt: skip
def test_five_steps_are_those_of_the_pure_step(small, changes):
    config = small.changed(changes)
    schedule, x = config.schedule.build(), load("digits").x
    state = State.first(config)
    worker = CPUTrainer(config, schedule, state)
    for i in range(5):
        result = worker.step(x[8 * i : 8 * i + 8])
        state, expected = train_step(config, schedule, state, x[8 * i : 8 * i + 8])
        assert (result.step, result.learning_rate) == (expected.step, expected.learning_rate)
        assert result.loss == pytest.approx(expected.loss, rel=1e-5)
        assert result.gradient_norm == pytest.approx(expected.gradient_norm, rel=1e-4)
    result = worker.state()
    assert (result.step, result.seen) == (5, 40)
    for name in ("m", "v", "p", "average"):
        assert difference(getattr(result, name), getattr(state, name)) <= 1e-3


def test_a_state_is_not_changed_by_later_steps(small):
    x = load("digits").x
    worker = CPUTrainer(small, small.schedule.build(), first := State.first(small))
    before = {name: leaf.copy() for name, leaf in flatten(first.p).items()}
    worker.step(x[:8])
    state = worker.state()
    before_step = {name: leaf.copy() for name, leaf in flatten(state.p).items()}
    worker.step(x[8:16])
    assert all(np.array_equal(leaf, before_step[name]) for name, leaf in flatten(state.p).items())
    assert all(np.array_equal(leaf, before[name]) for name, leaf in flatten(first.p).items())


def test_a_loss_that_is_not_finite_changes_nothing(small):
    worker = CPUTrainer(small, small.schedule.build(), State.first(small))
    before = {name: worker.buffers[name].copy() for name in ("p", "average", "m", "v")}
    with np.errstate(all="ignore"), pytest.raises(TrainingError, match="step 1: expected a finite loss"):
        worker.step(np.full((8, 8, 8, 1), 1e38, np.float32))
    assert all(np.array_equal(worker.buffers[name], buffer) for name, buffer in before.items())
    assert (worker.state().step, worker.state().seen) == (0, 0)


def test_threads_that_there_are_not_are_an_error_before_anything_is_written(small, tmp_path, monkeypatch):
    monkeypatch.setattr(thread_pool.settings, "threads", None)
    monkeypatch.setenv("REFDIFF_THREADS", "0")
    with pytest.raises(ValueError, match="REFDIFF_THREADS: expected a number of threads from 1"):
        train(small.changed(["engine=cpu"]), out=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
