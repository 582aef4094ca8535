"""The training loop: what it computes, that it repeats and resumes bit for bit, and how it ends."""

import copy
import json
import os
from dataclasses import replace

import networks
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from states import bits

from refdiff import TrainingError, engines, models
from refdiff.config import Config
from refdiff.data import load
from refdiff.models import Input
from refdiff.process import convert, q_sample
from refdiff.random import Key, integers, normal
from refdiff.training import State, batch_indices, load_state, train, train_step


def same(a, b):
    """Two states, bit for bit."""
    return bits(a) == bits(b)


class Stop(Exception):
    """Stands for a machine that goes down."""


def stop_at(step):
    def on_step(measured):
        if measured.step == step:
            raise Stop

    return on_step


@pytest.fixture(params=["reference", "cpu"])
def small(small, request):
    """The run of a test, on each engine of the host."""
    return small.changed([f"engine={request.param}"])


@pytest.mark.parametrize("change", ["model.dropout=0.2", "objective.prediction=v", "objective.prediction=x0"])
def test_twenty_steps_repeat_bit_for_bit(small, change):
    config = small.changed([change])
    assert same(train(config, progress=False), train(config, progress=False))


def test_another_seed_gives_another_run(small):
    a, b = train(small, progress=False), train(small.changed(["seed=1"]), progress=False)
    assert not np.array_equal(
        a.trees["p"]["denoiser"]["conv_in"]["weight"], b.trees["p"]["denoiser"]["conv_in"]["weight"]
    )


@pytest.mark.parametrize("stop", [10, 13])  # at the checkpoint of step 10, and after it
def test_ten_steps_and_ten_resumed_equal_twenty(small, tmp_path, stop):
    config = small.changed(["model.dropout=0.2"])
    whole = train(config, tmp_path / "whole", progress=False)
    with pytest.raises(Stop):
        train(config, tmp_path / "run", progress=False, on_step=stop_at(stop))
    assert load_state(tmp_path / "run")[1].step == 10
    resumed = train(config, tmp_path / "run", resume=True, progress=False)
    assert same(whole, resumed)
    assert same(load_state(tmp_path / "whole")[1], load_state(tmp_path / "run")[1])
    logs = [
        [json.loads(line) for line in (tmp_path / run / "log.jsonl").read_text().splitlines()]
        for run in ("whole", "run")
    ]
    assert [(a["step"], a["loss"]) for a in logs[0]] == [(b["step"], b["loss"]) for b in logs[1]]
    assert [line["step"] for line in logs[1]] == list(range(1, 21))


def test_a_constant_rate_lets_a_finished_run_go_on(small, tmp_path):
    config = small.changed(["train.decay=constant"])
    whole = train(config, progress=False)
    train(config.changed(["train.steps=10"]), tmp_path / "run", progress=False)
    assert same(whole, train(config, tmp_path / "run", resume=True, progress=False))


def test_ctrl_c_saves_the_step_it_interrupts(small, tmp_path):
    def interrupt(measured):
        if measured.step == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(small, tmp_path, progress=False, on_step=interrupt)
    assert load_state(tmp_path)[1].step == 7
    assert same(train(small, tmp_path, resume=True, progress=False), train(small, progress=False))


@pytest.mark.parametrize("prediction", ["eps", "x0", "v", "mu"])
def test_a_step_descends_the_loss_of_its_own_batch(small, prediction):
    # The loss is computed here from the definition; a plain gradient step of the same gradient would lower it.
    config = small.changed(
        [f"objective.prediction={prediction}", "train.warmup=0", "train.learning_rate=1e-4", "train.max_grad_norm=0"]
    )
    x0 = load("digits").x[:32]
    schedule, engine = config.schedule.build(), engines.get("reference")
    rng = np.random.default_rng(0)
    first = State.first(config)
    p = models.tree_map(lambda a: a + 0.05 * rng.standard_normal(a.shape).astype("f"), first.trees["p"])
    new, measured = train_step(config, replace(first, trees=first.trees | {"p": p}), {"x": x0})

    place, key = np.arange(len(x0)), Key(0, 1).under("Denoising")
    t, eps = integers(key("t"), place, 1, 1000), normal(key("eps"), place, x0.shape[1:])
    x_t = q_sample(schedule, x0, t, eps)
    target = x0 if prediction == "x0" else convert(schedule, x_t, t, eps, "eps", prediction)

    def loss(p):
        y, _ = networks.forward(engine, config.model, p["denoiser"], x_t, t)
        return float(((y - target) ** 2).mean())

    assert measured.loss == measured.terms["loss"] == pytest.approx(loss(p), rel=1e-5)
    assert loss(new.trees["p"]) < loss(p)


def test_the_loss_falls_over_a_short_training(small):
    losses = []
    config = small.changed(["train.steps=150", "train.batch=16"])
    train(config, progress=False, on_step=lambda measured: losses.append(measured.loss))
    assert np.mean(losses[-20:]) < 0.35 * np.mean(losses[:5])


@settings(max_examples=60)
@given(st.integers(0, 99), st.integers(1, 40), st.integers(1, 50), st.integers(0, 5))
def test_every_epoch_shows_each_sample_once_however_batches_fall(seed, n, batch, epoch):
    shown = np.concatenate([batch_indices(seed, seen, batch, n) for seen in range(0, (epoch + 1) * n, batch)])
    one = shown[epoch * n : (epoch + 1) * n]
    assert sorted(one.tolist()) == list(range(n))
    assert (one == batch_indices(seed, epoch * n, n, n)).all()


def test_a_loss_that_is_not_finite_stops_training_and_keeps_the_last_good_checkpoint(small, tmp_path):
    config = small.changed(["train.steps=40"])
    with pytest.raises(Stop):
        train(config, tmp_path, progress=False, on_step=stop_at(10))
    good = (tmp_path / "checkpoint.safetensors").read_bytes()
    images = load("digits")
    bad = np.full_like(images.x, 1e38)  # whose square overflows
    message = r"step 11: expected a finite loss.*last good checkpoint is .*checkpoint"
    with pytest.raises(TrainingError, match=message):
        train(config, tmp_path, resume=True, progress=False, data=unchecked(images, bad))
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == good


def test_a_schedule_that_a_grid_finds_lost_keeps_the_last_good_checkpoint(tmp_path):
    """The ends of a learned schedule far away after one step, found where it is first drawn of."""
    changes = [
        "networks.ends.learning_rate=1000",
        "train.warmup=0",
        "train.steps=3",
        "train.batch=8",
        "engine=reference",
    ]
    config = Config.resolve("digits-vdm", changes=[*changes, "train.checkpoint_every=1", "train.grid_every=2"])
    message = (
        r"\Astep 2: networks.ends: expected [^\n]*; lower train.learning_rate [^\n]*; the last good checkpoint is \S+\Z"
    )
    with pytest.raises(TrainingError, match=message):
        train(config, tmp_path, progress=False)
    assert load_state(tmp_path)[1].step == 1


class Wild:
    """Samples made on the way, of which the second batch has values outside [-1, 1]."""

    def __init__(self):
        self.inputs = {"x": Input((8, 8, 1))}

    def __len__(self):
        return 1000

    def rows(self, ids, key):
        x = np.ones((len(ids), 8, 8, 1), np.float32)
        return {"x": x if key.step < 2 else 3 * x}


@pytest.mark.parametrize("preset", ["digits-vae", "digits-hvae", "digits-vdm", "digits-binary"])
def test_samples_that_are_made_on_the_way_are_checked_in_each_step(preset, tmp_path):
    changes = ["train.steps=3", "train.batch=8", "train.checkpoint_every=1", "train.grid_every=0", "engine=reference"]
    config = Config.resolve(preset, changes=changes)
    with pytest.raises(ValueError, match=r"\A(data.source|objective.likelihood): expected [^\n]* 512[^\n]*\Z"):
        train(config, tmp_path, progress=False, data=Wild())
    assert load_state(tmp_path)[1].step == 1


def unchecked(data, x):
    """The data set with other values, past its own check of their range."""
    broken = copy.copy(data)
    object.__setattr__(broken, "x", x)
    return broken


def test_a_full_disk_stops_training_and_the_previous_checkpoint_stays_whole(small, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    with pytest.raises(Stop):
        train(small, tmp_path, progress=False, on_step=stop_at(10))
    good = (tmp_path / "checkpoint.safetensors").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            train(small, tmp_path, resume=True, progress=False)
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == good
    assert not [p for p in tmp_path.iterdir() if p.suffix == ".tmp"]
    assert load_state(tmp_path)[1].step == 10
