"""The trainer that writes in place: it computes what the pure step computes."""

import numpy as np
import pytest
from states import batches, bits, difference

from refdiff import TrainingError
from refdiff.engines.cpu.runtime import thread_pool
from refdiff.training import TREES, State, train, train_step
from refdiff.training.trainers.cpu import CPUTrainer


@pytest.fixture
def small(small):
    return small.changed(["engine=cpu"])


@pytest.mark.parametrize(
    "changes",
    [["train.max_grad_norm=0.01"], ["train.max_grad_norm=0", "train.weight_decay=0.1"],
     ["model.dropout=0.3", "train.decay=constant"], ["objective.prediction=v", "train.ema_decay=0"]],
)  # fmt: skip
def test_five_steps_are_those_of_the_pure_step(small, changes):
    config = small.changed(changes)
    state = State.first(config)
    worker = CPUTrainer(config, state)
    for batch in batches([8] * 5):
        actual = worker.step(batch)
        state, expected = train_step(config, state, batch)
        assert (actual.step, actual.learning_rates) == (expected.step, expected.learning_rates)
        assert actual.terms == pytest.approx(expected.terms, rel=1e-5)
        assert actual.norms == pytest.approx(expected.norms, rel=1e-4)
    actual = worker.state()
    assert (actual.step, actual.samples_seen, actual.updates) == (5, 40, {"denoiser": 5})
    for tree in TREES:
        assert difference(actual.trees[tree], state.trees[tree]) <= 1e-3, tree


def test_a_state_is_not_changed_by_later_steps(small):
    one, two = batches([8, 8])
    worker = CPUTrainer(small, first := State.first(small))
    of_first = bits(first)
    worker.step(one)
    state = worker.state()
    of_state = bits(state)
    worker.step(two)
    assert bits(state) == of_state
    assert bits(first) == of_first


def test_a_loss_that_is_not_finite_changes_nothing(small):
    worker = CPUTrainer(small, first := State.first(small))
    with np.errstate(all="ignore"), pytest.raises(TrainingError, match="step 1: expected a finite loss"):
        worker.step({"x": np.full((8, 8, 8, 1), 1e38, np.float32)})
    assert bits(worker.state()) == bits(first)
    (batch,) = batches([8])
    worker.step(batch)
    fresh = CPUTrainer(small, first)
    fresh.step(batch)
    assert bits(worker.state()) == bits(fresh.state())


def test_threads_that_there_are_not_are_an_error_before_anything_is_written(small, tmp_path, monkeypatch):
    monkeypatch.setattr(thread_pool.settings, "threads", None)
    monkeypatch.setenv("REFDIFF_THREADS", "0")
    with pytest.raises(ValueError, match="REFDIFF_THREADS: expected a number of threads from 1"):
        train(small.changed(["engine=cpu"]), out=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
