"""Frozen networks: their weights are those of another run, by its moving average, and must stay what they were."""

from dataclasses import dataclass

import numpy as np
import pytest
from contract_networks import AffineConfig, Codebook, Pairs, Regress, pairs, run_of
from states import bits

from refdiff import models
from refdiff.config import NetworkConfig, RuleConfig
from refdiff.models import flatten
from refdiff.objectives import register_objective
from refdiff.training import State, load_state, save_state, train, trainer


@dataclass(frozen=True)
class Distil(Regress):
    """|net(x) - teacher(x)|^2."""

    def loss_and_gradient(self, engine, networks, batch, key):
        target, _ = models.forward(engine, networks["teacher"], batch)
        return Regress.loss_and_gradient(self, engine, networks, batch | {"target": target}, key)


register_objective("test_distil", Distil)


@pytest.fixture(params=["reference", "cpu"])
def engine(request):
    return request.param


@pytest.fixture
def teacher(tmp_path):
    """The folder of a finished run with the networks net, which learns, and book, which has no moving average."""
    rules = {"book": RuleConfig(rule="average")}
    train(
        run_of(Codebook(), "reference", ("net", "book"), rules, steps=3),
        tmp_path / "teacher",
        progress=False,
        data=Pairs(),
    )
    return tmp_path / "teacher"


def student(folder, engine="reference", of="net", model=None, **changes):
    rule = RuleConfig(rule="frozen", run=str(folder), of=of)
    config = run_of(Distil(), engine, steps=4, decay="constant", **changes)
    config.networks["teacher"] = NetworkConfig(model or AffineConfig(), rule)
    return config


@pytest.mark.parametrize(("of", "tree"), [("net", "ema"), ("book", "p")])
def test_the_weights_are_the_moving_average_and_p_where_there_is_none(engine, teacher, of, tree):
    config = student(teacher, engine, of)
    p, batch = load_state(teacher)[1].trees[tree][of], pairs()
    worker = trainer(config, first := State.first(config))
    net = first.trees["p"]["net"]
    measured = worker.step(batch)
    error = batch["x"] @ (net["weight"] - p["weight"]) + net["bias"] - p["bias"]
    assert measured.loss == pytest.approx((error**2).mean(), rel=1e-5)
    assert set(measured.norms) == {"net"}


def test_our_state_holds_the_digest_and_no_weights_of_it(engine, teacher, tmp_path):
    config = student(teacher, engine)
    state = train(config, tmp_path / "run", progress=False, data=Pairs())
    assert all(set(tree) == {"net"} for tree in state.trees.values())
    assert state.updates == {"net": 4}
    saved, loaded = load_state(tmp_path / "run")
    assert loaded.digests == state.digests
    assert len(loaded.digests["teacher"]) == 64
    assert bits(loaded) == bits(state)
    assert saved.networks["teacher"].rule.run == str(teacher)


def test_its_own_name_where_of_is_left_out(teacher):
    config = student(teacher, of="")
    with pytest.raises(
        ValueError, match=r"^networks.teacher.of: expected a network of .* \(book, net\), got 'teacher'$"
    ):
        trainer(config, State.first(config))


def test_a_file_that_has_changed_is_refused(engine, teacher, tmp_path):
    config = student(teacher, engine)
    train(config.changed(["train.steps=2"]), tmp_path / "run", progress=False, data=Pairs())
    saved = (teacher / "checkpoint.safetensors").read_bytes()
    other, state = load_state(teacher)
    state.trees["ema"]["net"]["bias"] = state.trees["ema"]["net"]["bias"] + np.float32(1e-6)
    save_state(teacher / "checkpoint.safetensors", other, state)
    before = (tmp_path / "run" / "checkpoint.safetensors").read_bytes()
    message = (
        r"^networks.teacher.run: expected the weights that this run began with, digest [0-9a-f]{12}, got [0-9a-f]{12} "
    )
    with pytest.raises(ValueError, match=message):
        train(config, tmp_path / "run", resume=True, progress=False, data=Pairs())
    assert (tmp_path / "run" / "checkpoint.safetensors").read_bytes() == before
    (teacher / "checkpoint.safetensors").write_bytes(saved)
    assert train(config, tmp_path / "run", resume=True, progress=False, data=Pairs()).step == 4


def test_what_is_not_there_is_refused_before_a_folder_is_made(engine, teacher, tmp_path):
    cases = [
        (
            student(tmp_path / "none", engine),
            r"^networks.teacher.run: expected the folder of a finished run, got .*none, which ",
        ),
        (
            student(tmp_path, engine),
            r"^networks.teacher.run: expected the folder of a finished run, got .*, which holds no ",
        ),
        (
            student(teacher, engine, "encoder"),
            r"^networks.teacher.of: expected a network of .* \(book, net\), got 'encoder'$",
        ),
        (
            student(teacher, engine, model=AffineConfig(4)),
            r"^networks.teacher: expected the network net of .* another layout$",
        ),
    ]
    for config, message in cases:
        with pytest.raises(ValueError, match=message):
            train(config, tmp_path / "run", progress=False, data=Pairs())
        assert not (tmp_path / "run").exists()


def test_what_is_frozen_in_the_other_run_is_refused_with_its_home(teacher, tmp_path):
    train(student(teacher), tmp_path / "run", progress=False, data=Pairs())
    config = student(tmp_path / "run", of="teacher")
    with pytest.raises(
        ValueError, match=rf"^networks.teacher.run: .* which has teacher from {teacher}; take that one$"
    ):
        trainer(config, State.first(config))


def test_a_run_does_not_replace_the_one_that_it_needs(teacher):
    before = (teacher / "checkpoint.safetensors").read_bytes()
    for run in (teacher, teacher / "checkpoint.safetensors"):
        with pytest.raises(ValueError, match=r"^out: expected another folder than networks.teacher.run, got .* choose"):
            train(student(run), teacher, force=True, progress=False, data=Pairs())
    assert (teacher / "checkpoint.safetensors").read_bytes() == before


def test_a_run_that_was_moved_is_found_where_it_is_said_to_be(teacher, tmp_path):
    train(student(teacher).changed(["train.steps=2"]), tmp_path / "run", progress=False, data=Pairs())
    moved = teacher.rename(tmp_path / "moved")
    with pytest.raises(ValueError, match=r"^networks.teacher.run: .* say where it is: networks.teacher.run=FOLDER$"):
        train(student(teacher), tmp_path / "run", resume=True, progress=False, data=Pairs())
    state = train(student(moved), tmp_path / "run", resume=True, progress=False, data=Pairs())
    assert state.step == 4
    assert bits(state) == bits(train(student(moved), progress=False, data=Pairs()))


def test_worker_processes_have_the_frozen_weights_too(teacher, some_processes):
    results = []
    for count in (1, 2):
        some_processes(count)
        config = student(teacher, "cpu")
        worker = trainer(config, State.first(config))
        worker.step(pairs())
        results.append(bits(worker.state()))
    assert results[0] == results[1]
    assert flatten(worker.state().trees["p"]).keys() == {"net/weight", "net/bias"}
