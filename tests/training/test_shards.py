"""Shards: bad numbers are refused, the number of a run is stored with it, and decides its bits alone."""

import json

import numpy as np
import pytest
from contract_networks import Gathers, Pairs, Regress, Remembers, Turns, Twice, pairs, run_of
from states import bits, difference

from refdiff.cli import main
from refdiff.config import Config, TrainConfig
from refdiff.training import TREES, State, load_state, save_state, train, train_step, trainer
from refdiff.training.trainers.cpu import CPUTrainer

SYSTEMS = {
    "dropout": (Regress(noise=0.1), ("net",)),
    "twice": (Twice(), ("net",)),
    "turns": (Turns(noise=0.1), ("net", "second")),
    "gather": (Gathers(), ("net", "mixer")),
    "memory": (Remembers(), ("net",)),
}


@pytest.fixture(params=SYSTEMS)
def system(request):
    """config(shards, engine) of one system after another."""
    objective, networks = SYSTEMS[request.param]
    return lambda shards, engine="cpu": run_of(objective, engine, networks, rate=0.2, shards=shards)


def run(config, steps=4, worker=None, first=0):
    """What each step measured, and the bits after them."""
    worker = worker or trainer(config, State.first(config))
    return [worker.step(pairs(8, 8 * i)) for i in range(first, first + steps)], bits(worker.state())


@pytest.mark.parametrize(
    ("batch", "shards", "message"),
    [
        (8, 3, "train.shards: expected a power of two, got 3; take 1, 2, 4 or 8"),
        (8, -2, "train.shards: expected a power of two, got -2; take 1, 2, 4 or 8"),
        (6, 4, "train.shards: expected a divisor of train.batch = 6, got 4; choose another batch"),
    ],
)
def test_bad_numbers_of_shards_are_refused(batch, shards, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        TrainConfig(batch=batch, shards=shards)


@pytest.mark.parametrize("engine", ["reference", "cpu"])
@pytest.mark.parametrize("n", [6, 1, 0])
def test_a_batch_that_the_shards_do_not_divide_is_refused(engine, n):
    config = run_of(Regress(), engine, shards=4)
    worker = trainer(config, State.first(config))
    with pytest.raises(ValueError, match=rf"^data: expected a multiple of the 4 shards of a batch, got {n} samples; "):
        worker.step(pairs(n))
    assert worker.state().step == 0


def test_the_default_is_two_on_the_cpu_engine_where_the_batch_is_even():
    counts = [run_of(Regress(), e, batch=n).shards for e in ("reference", "cpu", "cuda") for n in (7, 8)]
    assert counts == [1, 1, 1, 2, 1, 1]


def test_the_bits_follow_from_the_shards_and_not_from_the_processes(system, some_processes):
    results = []
    for count in (1, 2, 4):
        some_processes(count)
        config = system(4)
        worker = CPUTrainer(config, State.first(config))
        results.append(run(config, worker=worker))
        assert len(worker.parallel.others) == count - 1
    assert results[1] == results[0]
    assert results[2] == results[0]
    some_processes(1)
    assert run(system(1))[1] != results[0][1]


def test_a_resumed_run_has_the_same_bits_in_another_number_of_processes(system, some_processes, tmp_path):
    some_processes(1)
    config = system(4)
    measured, expected = run(config, 5)
    some_processes(4)
    worker = trainer(config, State.first(config))
    before, _ = run(config, 3, worker)
    save_state(tmp_path / "checkpoint.safetensors", config, worker.state())
    some_processes(2)
    saved, state = load_state(tmp_path)
    assert saved == config
    after, actual = run(config, 2, trainer(saved, state), first=3)
    assert before + after == measured
    assert actual == expected


@pytest.mark.parametrize("engine", ["reference", "cpu"])
def test_four_shards_are_one_within_rounding(system, engine):
    """The first step alone for moments: later ones add up what rounding does to the steps before."""
    results = []
    for shards in (1, 4):
        config = system(shards, engine)
        worker = trainer(config, State.first(config))
        results.append((worker.step(pairs()), worker.state()))
    (one, of_one), (four, of_four) = results
    assert four.terms == pytest.approx(one.terms, rel=1e-6)
    assert four.norms == pytest.approx(one.norms, rel=1e-5)
    for tree in ("m", "v"):
        assert difference(of_four.trees[tree], of_one.trees[tree]) <= 1e-5
    assert any(bits(of_four)[name] != bits(of_one)[name] for name in bits(of_one))


def test_the_cpu_trainer_computes_what_the_pure_step_does(system, some_processes):
    some_processes(2)
    config, reference = system(4), system(4, "reference")
    worker, state = CPUTrainer(config, State.first(config)), State.first(reference)
    for i in range(4):
        actual = worker.step(pairs(8, 8 * i))
        state, expected = train_step(reference, state, pairs(8, 8 * i))
        assert actual.terms == pytest.approx(expected.terms, rel=1e-5)
        assert actual.norms == pytest.approx(expected.norms, rel=1e-4)
        assert actual.learning_rates == expected.learning_rates
    assert worker.state().updates == state.updates
    for tree in TREES:
        assert difference(worker.state().trees[tree], state.trees[tree]) <= 1e-4, tree


def test_a_run_is_stored_with_its_shards_and_another_engine_goes_on_with_them(tmp_path, capsys):
    config = run_of(Regress(noise=0.1), "cpu", steps=6, decay="constant")
    assert config.train.shards == 0
    train(config.changed(["train.steps=3"]), tmp_path, progress=False, data=Pairs())
    assert Config.resolve(file=tmp_path / "config.toml").train.shards == 2
    assert load_state(tmp_path)[0].train.shards == 2
    assert main(["info", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["train"]["shards"] == 2

    resumed = train(config.changed(["engine=reference"]), tmp_path, resume=True, progress=False, data=Pairs())
    saved = load_state(tmp_path)[0]
    assert (saved.train.shards, saved.engine, resumed.step) == (2, "reference", 6)
    with pytest.raises(ValueError, match=r"train.shards = 2 there, 4 here"):
        train(config.changed(["train.shards=4"]), tmp_path, resume=True, progress=False, data=Pairs())


def test_shards_alone_decide_what_the_reference_computes(tmp_path):
    """Stored as 2, they are 2 on the reference too: not what it would have taken by itself."""
    config = run_of(Regress(noise=0.1), "reference", steps=4)
    two = train(config.changed(["train.shards=2"]), tmp_path / "two", progress=False, data=Pairs())
    one = train(config, tmp_path / "one", progress=False, data=Pairs())
    assert bits(two) != bits(one)
    assert difference(two.trees["p"], one.trees["p"]) <= 1e-5
    assert np.isfinite(two.trees["p"]["net"]["weight"]).all()
