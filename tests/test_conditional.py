"""Sampling by class at the command line, and every key of a run that changes what is learned, from end to end."""

import json

import numpy as np
import pytest
from helpers import fails, line
from PIL import Image

from refdiff.cli import main
from refdiff.config import PRESETS, Config
from refdiff.data import load
from refdiff.sampling import sample
from refdiff.training import State, load_state, train, trained, trainer

TINY = ("networks.denoiser.width=8", "networks.denoiser.groups=4", "train.batch=8", "train.steps=4", "train.warmup=2",
        "train.grid_every=0", "sample.steps=3")  # fmt: skip


def settings(*changes):
    return ["--quiet", *(f"--set={change}" for change in (*TINY, *changes))]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs of a few steps, with classes and without."""
    folder = tmp_path_factory.mktemp("runs")
    assert main(["train", "--out", str(folder / "classes"), *settings("networks.denoiser.classes=10")]) == 0
    assert main(["train", "--out", str(folder / "plain"), *settings()]) == 0
    return folder


def drawn(run, out, *options):
    assert main(["sample", str(run), "--quiet", "--out", str(out), *options]) == 0
    return np.load(out)["x"]


def test_without_a_label_each_class_has_a_row_and_with_one_all_are_of_it(runs, tmp_path):
    run = runs / "classes"
    rows = drawn(run, tmp_path / "all.npz", "--n", "30")
    assert len(drawn(run, tmp_path / "default.npz")) == 80
    sevens = drawn(run, tmp_path / "sevens.npz", "--n", "30", "--label", "7")
    np.testing.assert_allclose(sevens[21:24], rows[21:24], atol=1e-4)  # the row of 7: three a class
    assert min(np.abs(sevens[i] - rows[i]).max() for i in (*range(21), *range(24, 30))) > 1e-4
    model = trained(*load_state(run))
    labels = np.repeat(np.arange(10), 3)
    np.testing.assert_array_equal(rows, sample(model, 30, conditions={"label": labels}, progress=False))
    assert main(["sample", str(run), "--quiet", "--n", "30", "--out", str(tmp_path / "g.png")]) == 0
    with Image.open(tmp_path / "g.png") as grid:
        assert grid.height > 2 * grid.width  # ten rows of three


def test_guidance_is_that_of_the_setting_and_one_is_the_conditional_model(runs, tmp_path):
    run = runs / "classes"
    plain = drawn(run, tmp_path / "a.npz", "--n", "4", "--label", "3")
    np.testing.assert_array_equal(
        plain, drawn(run, tmp_path / "b.npz", "--n", "4", "--label", "3", "--guidance", "1.0")
    )
    strong = drawn(run, tmp_path / "c.npz", "--n", "4", "--label", "3", "--guidance", "3")
    assert np.abs(strong - plain).max() > 1e-3
    by_key = drawn(run, tmp_path / "d.npz", "--n", "4", "--label", "3", "--set", "sample.guidance=3")
    np.testing.assert_array_equal(strong, by_key)


@pytest.mark.parametrize("options", [["--label", "7"], ["--label", "7", "--n", "3"], []])
def test_a_strip_is_of_the_label_or_of_every_class(runs, tmp_path, options):
    strip = tmp_path / "way.png"
    drawn(runs / "classes", tmp_path / "x.npz", *options, "--trajectory", str(strip))
    with Image.open(strip) as image:
        assert image.width > 10


def test_what_a_model_cannot_be_told_is_refused_in_one_line(runs, tmp_path, capsys):
    out, plain, classes = tmp_path / "x.npz", runs / "plain", runs / "classes"
    for arguments, message in (
        ([plain, "--label", 7], "--label: expected a model with classes, got one without; leave it out"),
        ([plain, "--guidance", 2], "--guidance: expected a model with classes, got one without; leave it out"),
        ([plain, "--set", "sample.guidance=2"], "sample.guidance: expected 1, since no condition is left out"),
        ([classes, "--label", 10], "--label: expected a class from 0 to 9, got 10"),
        ([classes, "--label", -1], "--label: expected a class from 0 to 9, got -1"),
        ([classes, "--n", 25], "--n: expected a multiple of 10, since each class has a row, got 25; or add --label"),
        ([classes, "--n", 0], "n: expected at least one sample, got 0"),
        ([classes, "--guidance", "nan"], "sample.guidance: expected a finite number, got nan"),
    ):
        assert message in fails(capsys, "sample", *arguments, "--out", out, "--quiet")
    assert not out.exists()


def test_data_that_do_not_say_the_class_are_refused_before_the_run_begins(tmp_path, capsys):
    x = np.random.default_rng(0).uniform(-1, 1, (20, 8, 8, 1)).astype(np.float32)
    np.savez(tmp_path / "plain.npz", x=x)
    source = f"data.source={tmp_path / 'plain.npz'}"
    said = fails(capsys, "train", "--out", tmp_path / "r", *settings("networks.denoiser.classes=10", source))
    assert "networks.denoiser: expected data with 'label', which it reads, got x from" in said
    said = fails(capsys, "train", "--out", tmp_path / "r", *settings("networks.denoiser.classes=5"))
    assert "expected labels from 0 to 4, the network's classes, got 9; give --set networks.denoiser.classes=10" in said
    assert not (tmp_path / "r").exists()


def test_a_condition_of_the_wrong_name_shape_or_kind_is_refused(runs):
    model, plain = (trained(*load_state(runs / name)) for name in ("classes", "plain"))
    for conditions, message in (
        ({"text": "seven"}, line("text: expected no such condition, since this network takes label, got one")),
        ({"label": [1, 2, 3]}, line(r"label: expected shape \(\), or \(2, ...\) with one for each sample, got \(3,\)")),
        ({"label": [[1, 2]]}, line(r"label: expected shape \(\), or \(2, ...\) .* got \(1, 2\)")),
        ({"label": [[1], [2]]}, line(r"label: expected shape \(\), or \(2, ...\) .* got \(2, 1\)")),
        ({"label": 0.5}, line("label: expected int numbers, got float64")),
        ({"label": "seven"}, line("label: expected int numbers, got <U5")),
        ({"label": 11}, line("label: expected integers from 0 to 9, or 10 for none, got 11 to 11")),
        ({"label": [-1, 2]}, line("label: expected integers from 0 to 9, or 10 for none, got -1 to 2")),
    ):
        with pytest.raises(ValueError, match=message):
            sample(model, 2, conditions=conditions, progress=False)
    with pytest.raises(ValueError, match=line("label: expected no such condition, since this network takes none")):
        sample(plain, 2, conditions={"label": 1}, progress=False)
    none = sample(model, 2, progress=False)
    np.testing.assert_array_equal(none, sample(model, 2, conditions={"label": 10}, progress=False))


@pytest.mark.parametrize("engine", ["reference", "cpu"])
@pytest.mark.parametrize("label", [-1, 11])
def test_a_label_that_the_network_does_not_know_is_named_at_its_step(engine, label):
    config = Config.resolve("digits-classes", changes=[*TINY, f"engine={engine}"])
    worker = trainer(config, State.first(config))
    batch = {"x": np.zeros((8, 8, 8, 1), np.float32), "label": np.full(8, 10)}
    batch["label"][3] = label
    message = (
        rf"networks.denoiser: expected labels from 0 to 9, or 10 for none, got {min(label, 10)} to {max(label, 10)} in"
    )
    with pytest.raises(ValueError, match=line(message)):
        worker.step(batch)
    batch["label"][3] = 9
    assert worker.step(batch).step == 1  # nothing was lost


def test_the_preset_is_the_digits_with_classes(capsys):
    config, plain = PRESETS["digits-classes"], Config.resolve("digits", changes=["networks.denoiser.classes=10"])
    assert (config.networks, config.objective, config.data) == (plain.networks, plain.objective, plain.data)
    assert config.train.steps > plain.train.steps  # it is the demo's, and the gallery holds what it gives
    assert config.objective.null == (("label", 10, 0.1),)
    assert main(["info", "--json"]) == 0
    presets = json.loads(capsys.readouterr().out)["presets (parameters)"]
    assert presets["digits-classes"] - presets["digits"] == 11 * 128  # a row a class, and one for none


def test_without_a_null_label_every_sample_has_a_class():
    """None is left out in training, none may be left out in sampling, and there is nothing to guide away from."""
    with_null = Config.resolve("digits-classes", changes=[*TINY, "engine=reference"])
    config = with_null.changed(["networks.denoiser.null_label=false"])
    assert config.objective.null == ()
    assert (with_null.sample.guidance, config.sample.guidance) == (1.25, 1)
    assert config.changed(["networks.denoiser.null_label=true", "sample.guidance=1.25"]) == with_null
    assert Config.from_dict(config.to_dict()) == config
    with pytest.raises(ValueError, match=line("sample.guidance: expected 1 for a model that knows no null class")):
        config.changed(["sample.guidance=2"])
    state = State.first(config)
    assert state.trees["p"]["denoiser"]["label"]["weight"].shape[0] == 10
    batch = {"x": np.zeros((8, 8, 8, 1), np.float32), "label": np.full(8, 10)}
    with pytest.raises(
        ValueError, match=line("networks.denoiser: expected labels from 0 to 9, got 10 to 10 in the batch")
    ):
        trainer(config, state).step(batch)
    model = trained(config, state)
    with pytest.raises(ValueError, match=line("label: expected integers from 0 to 9, got 10 to 10")):
        sample(model, 2, conditions={"label": 10}, progress=False)
    with pytest.raises(
        ValueError, match=line("label: expected this condition, which the network takes, got none; give label")
    ):
        sample(model, 2, progress=False)
    assert sample(model, 2, conditions={"label": [0, 9]}, progress=False).shape == (2, 8, 8, 1)


def test_the_label_that_stands_for_none_follows_the_number_of_classes():
    config = Config.resolve("digits-classes", changes=['objective.null=[["label", 10, 0.25]]'])
    assert config.objective.null == (("label", 10, 0.25),)
    assert config.changed(["networks.denoiser.classes=12"]).objective.null == (("label", 12, 0.25),)
    assert config.changed(["networks.denoiser.classes=0"]).objective.null == ()
    assert Config.from_dict(config.to_dict()) == config


# What changes the training


def losses(*changes, data=None):
    """Of four steps, and the last state with its configuration."""
    config = Config.resolve("digits", changes=[*TINY, *changes])
    found = []
    state = train(config, progress=False, on_step=lambda step: found.append(step.loss), data=data)
    return found, config, state


@pytest.mark.parametrize(
    "change",
    ["objective.weighting=vlb", "objective.weighting=min_snr", "objective.weighting=p2", "objective.variance=learned",
     "data.flip=true", "objective.prediction=mu"],
)  # fmt: skip
def test_a_key_of_the_objective_or_the_data_changes_what_is_learned(tmp_path, change):
    out = tmp_path / "run"
    assert main(["train", "--out", str(out), *settings(change)]) == 0
    found, config, _ = losses(change)
    named = f"data.classes={list(load('digits').names)}"
    assert load_state(out)[0] == config.changed([f"train.shards={config.shards}", named])
    log = [json.loads(row)["loss"] for row in (out / "log.jsonl").read_text().splitlines()]
    assert log == found[-1:]
    assert np.isfinite(found).all()
    assert found != losses()[0]
    assert drawn(out, tmp_path / "x.npz", "--n", "2").shape == (2, 8, 8, 1)


def test_the_dynamic_threshold_scales_back_what_the_static_one_cuts_off(runs, tmp_path):
    run = runs / "plain"
    found = {
        name: drawn(run, tmp_path / f"{name}.npz", "--n", "3", "--set", f"sample.threshold={name}")
        for name in ("none", "static", "dynamic")
    }
    assert np.abs(found["none"]).max() > 1
    assert all(np.abs(found[name]).max() <= 1 for name in ("static", "dynamic"))
    assert np.abs(found["static"] - found["dynamic"]).max() > 1e-3


def test_images_that_are_not_square_are_trained_and_drawn(tmp_path):
    digits = load("digits")
    np.savez(tmp_path / "low.npz", x=digits.x[:40, 2:6])
    out, source = tmp_path / "run", f"data.source={tmp_path / 'low.npz'}"
    assert main(["train", "--out", str(out), *settings(source, "train.grid_every=2")]) == 0
    config, state = load_state(out)
    assert config.model.size == (4, 8)
    assert State.first(config).step == 0 < state.step
    assert sorted(p.name for p in (out / "samples").iterdir()) == ["step0000002.png", "step0000004.png"]
    assert drawn(out, tmp_path / "x.npz", "--n", "3").shape == (3, 4, 8, 1)
    assert main(["eval", str(out), "--n", "8", "--quiet"]) == 0
    explicit = Config.resolve("digits", changes=[source, "networks.denoiser.size=[4,8]"])
    assert explicit.model.shape == (4, 8, 1)
