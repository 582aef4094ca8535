"""The cpu trainer's step is captured: none of its passes is called as it is, and the same bits come out if all are."""

import numpy as np
import pytest
from contract_networks import Gathers, Regress, Turns, Twice, pairs, run_of
from states import bits

from refdiff.config import Config
from refdiff.engines.cpu.runtime.captured import Captured
from refdiff.engines.cpu.runtime.traced_array import CaptureError
from refdiff.random import Key
from refdiff.training import State
from refdiff.training.trainers.cpu import CPUTrainer

PRESETS = {
    "digits": [],
    "dropout": ["model.dropout=0.1"],
    "classes": ["model.classes=10"],
    "learned": ["objective.variance=learned"],
    "min_snr": ["objective.prediction=v", "objective.weighting=min_snr"],
    "mixture": [],
}
SYSTEMS = {
    "dropout": run_of(Regress(noise=0.1), "cpu", rate=0.2),
    "twice": run_of(Twice(), "cpu", rate=0.2),
    "turns": run_of(Turns(), "cpu", ("net", "second")),
    "gather": run_of(Gathers(), "cpu", ("net", "mixer")),
}


def is_captured(worker):
    """Whether all that the first process computes is captured, and nothing else."""
    passes = [f for f, _ in worker.parallel.local.passes.values()]
    return bool(passes) and all(isinstance(f, Captured) and f.capture is not None for f in passes)


@pytest.mark.parametrize("name", PRESETS)
def test_the_presets_are_captured_and_a_pass_has_all_shards(use_threads, name):
    use_threads(1)
    changes = ["engine=cpu", "train.batch=2", *PRESETS[name]]
    config = Config.resolve("mixture" if name == "mixture" else "digits", changes=changes)
    worker, data = CPUTrainer(config, State.first(config)), config.data.open()
    for i in range(3):
        worker.step(data.rows(np.arange(2 * i, 2 * i + 2), Key(0)))
    assert is_captured(worker)
    assert len(worker.parallel.local.passes) == 1
    assert not worker.parallel.local.used_twice


@pytest.mark.parametrize("name", SYSTEMS)
def test_replays_have_the_bits_of_the_calls(use_threads, monkeypatch, name):
    use_threads(1)

    def run():
        worker = CPUTrainer(SYSTEMS[name], State.first(SYSTEMS[name]))
        measured = [worker.step(pairs(8, 8 * (i % 4))) for i in range(6)]
        return measured, bits(worker.state()), is_captured(worker)

    def refuse(self, *arrays):
        raise CaptureError("a test")

    captured = run()
    monkeypatch.setattr(Captured, "__call__", refuse)
    plain = run()
    assert plain[:2] == captured[:2]
    assert (captured[2], plain[2]) == (True, False)
