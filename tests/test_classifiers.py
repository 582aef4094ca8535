"""Runs of a classifier at the command line: trained, resumed, looked at and measured; drawn from by nobody."""

import json

import numpy as np
import pytest
from helpers import fails, line

from refdiff.cli import main
from refdiff.config import PRESETS, Config
from refdiff.data import load
from refdiff.objectives import Classification
from refdiff.training import load_state

SMALL = [
    "--quiet", "--set=networks.classifier.width=8", "--set=networks.classifier.groups=4", "--set=train.steps=4",
    "--set=train.batch=16", "--set=train.log_every=2", "--set=train.grid_every=2", "--set=schedule.T=60",
    "--set=sample.steps=10",
]  # fmt: skip


def write(folder, **arrays):
    np.savez(folder / "data.npz", **arrays)
    return folder / "data.npz"


def few(folder):
    """600 digits, of whom 60 are held out."""
    digits = load("digits")
    return write(folder, x=digits.x[:600], labels=digits.labels[:600])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("classifier") / "run"
    assert main(["train", "--preset", "digits-classifier", "--out", str(out), *SMALL]) == 0
    return out


def test_it_is_trained_and_goes_on_without_pictures(run, tmp_path):
    names = {path.name for path in run.iterdir()}
    assert names == {"config.toml", "log.jsonl", "checkpoint.safetensors"}
    lines = [json.loads(text) for text in (run / "log.jsonl").read_text().splitlines()]
    assert [each["step"] for each in lines] == [2, 4]
    assert all(0 < each["loss"] < 10 for each in lines)
    config, state = load_state(run)
    assert isinstance(config.objective, Classification)
    assert state.step == 4
    assert main(["train", "--out", str(run), "--resume", "--quiet"]) == 0


def test_eval_prints_accuracy_over_t_beside_chance(run, tmp_path, capsys):
    assert main(["eval", str(run), "--json", "--quiet"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["step"], found["chance"], found["classes"], found["images"]) == (4, 0.1, 10, 355)
    assert (found["t"][0], found["t"][-1], len(found["t"])) == (1, 60, 10)
    assert len(found["accuracy"]) == len(found["accuracy_error"]) == len(found["accuracy_training"]) == 10
    assert main(["eval", str(run), "--quiet", "--data", str(few(tmp_path))]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(text.startswith("accuracy at t = ") for text in lines) == 10
    assert any(text.split() == ["chance", "0.1000", "1", "/", "10", "classes"] for text in lines)


def test_eval_draws_it(run, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    assert (
        main(
            [
                "eval",
                str(run),
                "--quiet",
                "--data",
                str(few(tmp_path)),
                "--plot",
                str(tmp_path / "new" / "accuracy.png"),
            ]
        )
        == 0
    )
    assert (tmp_path / "new" / "accuracy.png").read_bytes().startswith(b"\x89PNG")


def test_info_and_help_know_it(run, capsys):
    assert main(["info", str(run), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["networks"]["classifier"]["kind"] == "classifier"
    assert found["objective"] == {"kind": "classification", "trains": ["classifier"], "noised": True}
    assert main(["info", "digits-judge"]) == 0
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    assert "classification" in capsys.readouterr().out


def test_the_two_presets_are_of_different_seeds_and_the_judge_sees_no_noise():
    guide, judge = PRESETS["digits-classifier"], PRESETS["digits-judge"]
    assert (guide.objective.noised, judge.objective.noised) == (True, False)
    assert guide.seed != judge.seed
    assert not guide.data.flip
    assert not judge.data.flip


def test_nobody_draws_samples_of_it(run, tmp_path, capsys):
    out = tmp_path / "x.png"
    assert "denoising" in fails(capsys, "sample", run, "--out", out)
    told = fails(capsys, "demo", "--out", tmp_path / "d", "--set=objective.kind=classification",
                 "--set=networks.classifier.kind=classifier")  # fmt: skip
    assert "objective.kind: expected denoising, of which samples are drawn, got classification" in told
    assert not out.exists()
    assert not (tmp_path / "d").exists()
    with pytest.raises(ValueError, match=line("networks: expected 'denoiser'", "got classifier")):
        _ = PRESETS["digits-classifier"].model


@pytest.mark.parametrize("option", [["--n", 10], ["--nll"], ["--nll-steps", 5], ["--bins", 17]])
def test_options_of_samples_are_refused(run, capsys, option):
    told = fails(capsys, "eval", run, *option)
    assert f"{option[0]}: expected a run that samples are drawn of, got a classifier; leave it out" in told


def test_it_follows_its_data(tmp_path):
    """Size, channels and classes are those of the images, unless they are given."""
    rng = np.random.default_rng(0)
    source = write(tmp_path, x=rng.integers(0, 256, (40, 12, 12, 3), dtype=np.uint8), labels=np.arange(40) % 3)
    config = Config.resolve("digits-classifier", changes=[f"data.source={source}"])
    model = config.networks["classifier"].model
    assert (model.size, model.channels, model.classes, model.attention) == (12, 3, 3, (6,))
    config = Config.resolve("digits-classifier", changes=[f"data.source={source}", "networks.classifier.classes=5"])
    assert config.networks["classifier"].model.classes == 5
    assert Config.resolve("digits-classifier").networks == PRESETS["digits-classifier"].networks


def test_data_that_do_not_fit_are_refused_before_anything_is_computed(run, tmp_path, capsys):
    rng, out = np.random.default_rng(0), tmp_path / "run"
    images = rng.integers(0, 256, (40, 8, 8, 1), dtype=np.uint8)
    train = ["train", "--preset", "digits-classifier", "--out", out, "--set=train.batch=16"]
    plain = write(tmp_path, x=images)
    told = fails(capsys, *train, f"--set=data.source={plain}")
    assert "Classification: expected data with 'label', which it reads, got x from" in told
    assert "none with labels" in fails(capsys, "eval", run, "--data", plain)
    many = write(tmp_path, x=images, labels=np.arange(40) % 12)
    told = fails(capsys, *train, f"--set=data.source={many}", "--set=networks.classifier.classes=10")
    assert (
        "expected labels from 0 to 9, the network's classes, got 11; give --set networks.classifier.classes=12" in told
    )
    assert "labels from 0 to 9, the classes of this classifier" in fails(capsys, "eval", run, "--quiet", "--data", many)
    assert "expected samples of (8, 8, 1), the model's shape, got (2,)" in fails(
        capsys, *train, "--set=data.source=moons"
    )
    assert not out.exists()
