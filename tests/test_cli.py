"""The command line from end to end on a small model, and every bad input as one line and exit status 2."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import fields

import numpy as np
import pytest
from helpers import fails
from PIL import Image

from refdiff.cli import main
from refdiff.config import PRESETS, RuleConfig
from refdiff.config.keys import choices, describe
from refdiff.objectives import OBJECTIVES, Denoising

SMALL = ["--quiet", *(f"--set={change}" for change in (
    "model.width=8", "train.batch=8", "train.steps=6", "train.warmup=2", "train.grid_every=3", "train.checkpoint_every=3",
    "sample.steps=3"))]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of six steps."""
    folder = tmp_path_factory.mktemp("runs") / "small"
    assert main(["train", "--out", str(folder), *SMALL]) == 0
    return folder


def contents(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_run_holds_its_configuration_log_checkpoint_and_grids(run):
    names = sorted(p.relative_to(run).as_posix() for p in run.rglob("*") if p.is_file())
    assert names == [
        "checkpoint.safetensors",
        "config.toml",
        "log.jsonl",
        "samples/step0000003.png",
        "samples/step0000006.png",
    ]
    line = json.loads((run / "log.jsonl").read_text().splitlines()[-1])
    assert line["step"] == 6
    assert {"loss", "gradient_norm", "learning_rate", "images_per_second"} < line.keys()


def test_sample_writes_a_grid_a_folder_an_npz_and_a_strip(run, tmp_path, capsys):
    base = ["sample", str(run), "--n", "5", "--quiet", "--json"]
    assert main([*base, "--out", str(tmp_path / "grid.png"), "--trajectory", str(tmp_path / "way.png")]) == 0
    assert json.loads(capsys.readouterr().out)["shape"] == [8, 8, 1]
    assert main([*base, "--out", str(tmp_path / "x.npz")]) == 0
    assert main([*base, "--out", str(tmp_path / "folder")]) == 0
    x = np.load(tmp_path / "x.npz")["x"]
    assert x.shape == (5, 8, 8, 1)
    pngs = sorted((tmp_path / "folder").iterdir())
    assert len(pngs) == 5
    with Image.open(pngs[0]) as image:
        assert np.abs(np.asarray(image) / 127.5 - 1 - x[0, ..., 0]).max() <= 0.5 / 127.5 + 1e-6
    with Image.open(tmp_path / "grid.png") as grid, Image.open(tmp_path / "way.png") as way:
        assert grid.width > 100
        assert way.width > 100


def test_sampling_repeats_and_follows_its_options(run, tmp_path):
    def draw(name, *options):
        assert main(["sample", str(run), "--n", "3", "--quiet", "--out", str(tmp_path / name), *options]) == 0
        return np.load(tmp_path / name)["x"]

    one = draw("a.npz")
    np.testing.assert_array_equal(one, draw("b.npz"))
    assert np.abs(one - draw("c.npz", "--seed", "1")).max() > 0.1
    assert np.abs(one - draw("d.npz", "--set", "sample.eta=0")).max() > 1e-3


def test_eval_prints_the_distances_and_the_classes(run, capsys):
    assert main(["eval", str(run), "--n", "70", "--quiet", "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)
    assert metrics["frechet_floor"] < 1 < metrics["frechet_samples"]
    assert len(metrics["class_counts"]) == metrics["classes"] == 10
    assert sum(metrics["class_counts"].values()) == metrics["samples"] == 70
    assert list(metrics["class_counts"]) == [str(label) for label in range(10)]


def test_the_mixture_is_evaluated_beside_the_perfect_denoiser(tmp_path, capsys):
    out = str(tmp_path / "m")
    assert main(["train", "--preset", "mixture", "--out", out, "--set", "train.steps=5", "--quiet"]) == 0
    capsys.readouterr()
    assert main(["eval", out, "--n", "50", "--quiet", "--json", "--set", "sample.steps=5"]) == 0
    metrics = json.loads(capsys.readouterr().out)
    assert metrics["eps_error_ratio"] > 1
    line = fails(capsys, "sample", out, "--out", tmp_path / "m.png", "--quiet")
    assert "expected a name ending in .npz, since this model makes points" in line


def test_info_names_the_exact_sizes_of_the_presets(run, capsys):
    assert main(["info", "--json"]) == 0
    known = json.loads(capsys.readouterr().out)
    presets = known["presets (parameters)"]
    assert known["sample.spacing"] == ["uniform", "leading", "trailing", "quadratic", "karras"]
    assert "rescaled_linear" in known["schedule.kind"]
    assert "heun" in known["sample.method"]
    assert (presets["cifar10"], presets["celebahq256"]) == (35_746_307, 113_673_219)
    assert main(["info", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["step"] == 6
    assert main(["info", "mnist"]) == 0
    text = capsys.readouterr().out
    assert "parameters" in text
    assert re.search(r"memory of a step \(batch 128\) +\d+\.\d\d GiB on engine \w+: weights \d", text)


def test_info_tells_what_a_step_needs_in_memory(run, capsys):
    assert main(["info", str(run), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    memory, size = found["memory"], 4 * found["parameters"]
    parts = [memory[part] for part in ("weights", "gradient", "moments", "average", "activations")]
    assert memory["total"] == sum(parts)
    assert size <= memory["weights"] < 1.2 * size  # small arrays, each from an address of its own on
    assert memory["batch"] == found["train"]["batch"]
    assert main(["info", str(run)]) == 0
    assert f"memory of a step (batch {memory['batch']})" in capsys.readouterr().out


def test_the_demo_writes_everything_it_promises(tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path / "d"), "--n", "64", "--json", *SMALL]) == 0
    names = {p.name for p in (tmp_path / "d").iterdir()}
    assert {"samples.png", "trajectory.png", "loss.png", "checkpoint.safetensors", "metrics.json"} <= names
    metrics = json.loads((tmp_path / "d" / "metrics.json").read_text())
    assert {"frechet_samples", "frechet_floor", "frechet_noise", "classes_covered", "steps", "loss_last", "seconds_train",
            "seconds_sample"} <= metrics.keys()  # fmt: skip
    assert metrics["steps"] == 6


def test_help_is_enough_to_get_on(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert all(word in text for word in ("train", "sample", "eval", "info", "demo", "--resume"))
    for command, tables in (("train", ()), ("demo", ()), ("sample", ["sample"]), ("eval", ["sample"])):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        assert capsys.readouterr().out.endswith(describe(tables))


def test_the_help_lists_the_keys_of_a_networks_rule(capsys):
    keys = {line.partition("=")[0].strip(): line for line in describe().splitlines()}
    assert keys.keys() >= {f"networks.denoiser.{f.name}" for f in fields(RuleConfig)}
    assert keys["networks.denoiser.learning_rate"].split("=")[1].split() == ["as", "train.learning_rate"]
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    assert (
        "(networks.NAME.kind and so on make a further network, whose keys refdiff info PRESET shows):"
        in capsys.readouterr().out
    )


def test_a_frozen_network_that_was_moved_is_found_where_the_command_says(capsys, tmp_path):
    teacher = ["networks.teacher.kind=mlp", "networks.teacher.of=denoiser", "networks.teacher.rule=frozen"]
    there, out = tmp_path / "there", tmp_path / "run"
    mixture = ["--quiet", "--preset", "mixture", "--set=train.steps=1", "--set=train.batch=8", "--set=sample.steps=2"]
    assert main(["train", "--out", str(tmp_path / "first"), *mixture]) == 0
    frozen = [f"--set={change}" for change in (*teacher, f"networks.teacher.run={tmp_path / 'first'}")]
    assert main(["train", "--out", str(out), *mixture, *frozen]) == 0
    (tmp_path / "first").rename(there)
    points = tmp_path / "points.npz"
    told = fails(capsys, "sample", out, "--n", 2, "--quiet", "--out", points)
    assert told.endswith("does not exist; say where it is: --set networks.teacher.run=FOLDER")
    moved = f"--set=networks.teacher.run={there}"
    assert main(["sample", str(out), "--n", "2", "--quiet", "--out", str(points), moved]) == 0
    assert "expected a key of sample" in fails(capsys, "sample", out, "--out", points, "--set=networks.teacher.of=enc")


def test_the_help_names_every_key_with_the_names_that_it_may_have(capsys):
    keys = {line.partition("=")[0].strip(): line for line in describe().splitlines()}
    assert keys.keys() >= {"objective.weighting", "objective.variance", "sample.threshold", "data.flip", "train.shards"}
    assert keys["data.flip"].split() == ["data.flip=false", "false,", "true"]
    others = {"networks.classifier": "digits-classifier", "objective.likelihood": "digits-vae"}
    for key, names in choices().items():
        assert keys[key].split(maxsplit=1)[1].partition("; of ")[0] == ", ".join(names)
        if key != "data.source":  # any name is one
            preset = next((preset for start, preset in others.items() if key.startswith(start)), "digits")
            with pytest.raises(ValueError, match=rf"^{key}: expected one of {', '.join(names)}, got 'nonsense'"):
                PRESETS[preset].changed([f"{key}=nonsense"])


def test_the_help_has_the_keys_of_objectives_of_every_kind():
    lines = describe().splitlines()
    for kind, cls in OBJECTIVES.items():
        for f in fields(cls):
            if f.name not in ("schedule", *(g.name for g in fields(Denoising))):
                assert any(
                    line.startswith(f"  objective.{f.name}=") and kind in line.partition(" of ")[2] for line in lines
                )
    of_steps = [line.split() for line in lines if line.startswith("  objective.T=")]
    assert of_steps == [
        ["objective.T=100", "of", "binomial"], ["objective.T=40", "of", "nonequilibrium"], ["objective.T=0", "of", "vdm"]
    ]  # fmt: skip
    assert not any(line.startswith("  objective.") for line in describe(["sample"]).splitlines())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: command; see refdiff --help"),
        (["trian"], "invalid choice: 'trian'"),
        (["train"], "the following arguments are required: --out"),
        (["train", "--out", "OUT", "--preset", "digit"], "preset: expected one of digits"),
        (["train", "--out", "OUT", "--engine", "cuda9"], "engine: expected one of"),
        (["train", "--out", "OUT", "--set", "train.stepz=4"], "did you mean train.steps?"),
        (["train", "--out", "OUT", "--set", "data.source=digitz"], "digits"),
        (
            ["train", "--out", "OUT", "--set", "data.source=moons"],
            "expected samples of (8, 8, 1), the model's shape, got (2,)",
        ),
        (["train", "--out", "OUT", "--set", "train.batch=0"], "train.batch: expected"),
        (["train", "--out", "OUT", "--set", "schedule.T=-5"], "T: expected a number of steps"),
        (["train", "--out", "OUT", "--config", "OUT/none.toml"], "expected a readable TOML file"),
        (
            ["train", "--out", "OUT", "--resume"],
            "--resume: expected OUT/checkpoint.safetensors, which does not exist; leave --resume out",
        ),
        (
            ["train", "--out", "OUT", "--resume", "--preset", "digits"],
            "OUT/checkpoint.safetensors, which does not exist",
        ),
        (["train", "--out", "OUT", "--seed", "x"], "argument --seed: invalid int value: 'x'"),
        (["sample", "OUT", "--out", "OUT.png"], "OUT"),
        (["info", "digit"], "name: expected a preset"),
        (["eval", "OUT/none.safetensors"], "none.safetensors"),
    ],
)
def test_bad_arguments_end_with_one_line_and_write_nothing(arguments, message, tmp_path, capsys):
    out = tmp_path / "run"
    line = fails(capsys, *[a.replace("OUT", str(out)) for a in arguments])
    assert message.replace("OUT", str(out)) in line
    assert not out.exists()


def test_an_empty_folder_and_images_of_other_sizes(tmp_path, capsys):
    folder = tmp_path / "images"
    folder.mkdir()
    train = ["train", "--out", tmp_path / "run", "--set", f"data.source={folder}"]
    assert str(folder) in fails(capsys, *train)
    Image.new("L", (8, 8)).save(folder / "a.png")
    Image.new("L", (9, 8)).save(folder / "b.png")
    line = fails(capsys, *train)
    assert "a.png" in line
    assert "b.png" in line
    assert not (tmp_path / "run").exists()


def test_nan_and_values_out_of_range_in_the_data(tmp_path, capsys):
    for value, message in ((np.nan, "expected numbers, got 1 NaN"), (3.0, "[-1, 1]")):
        x = np.zeros((20, 8, 8, 1), np.float32)
        x[3, 2, 2] = value
        np.save(tmp_path / "x.npy", x)
        line = fails(capsys, "train", "--out", tmp_path / "run", "--set", f"data.source={tmp_path / 'x.npy'}")
        assert message in line
    assert not (tmp_path / "run").exists()


def test_a_folder_that_holds_a_run_is_not_written_over(run, capsys):
    before = contents(run)
    assert "holds a run" in fails(capsys, "train", "--out", run, *SMALL)
    line = fails(capsys, "train", "--out", run, "--resume", *SMALL, "--set", "train.learning_rate=1e-5")
    assert "belongs to another configuration: train.learning_rate = 0.002 there, 1e-05 here" in line
    assert "train.steps" in fails(capsys, "train", "--out", run, "--resume", *SMALL, "--set", "train.steps=9")
    assert contents(run) == before


def test_sample_does_not_write_over_files_unasked(run, tmp_path, capsys):
    (tmp_path / "a.png").write_bytes(b"mine")
    assert "exists; add --force" in fails(capsys, "sample", run, "--out", tmp_path / "a.png", "--quiet")
    assert (tmp_path / "a.png").read_bytes() == b"mine"
    assert "expected a .png" in fails(capsys, "sample", run, "--out", tmp_path / "a.jpg", "--quiet")
    assert "n: expected at least one sample" in fails(capsys, "sample", run, "--out", tmp_path / "b.png", "--n", "0")
    line = fails(capsys, "sample", run, "--out", tmp_path / "b.png", "--set", "model.width=16")
    assert "expected a key of sample" in line


def test_the_place_of_a_result_is_looked_at_before_the_work(run, tmp_path, capsys, monkeypatch):
    def work(*args, **kwargs):
        raise AssertionError("the work began")

    for name in ("sampling.sample", "training.train"):
        monkeypatch.setattr(f"refdiff.{name}", work)
    monkeypatch.setattr("refdiff.training.demo.train", work)
    (tmp_path / "file").write_text("")
    (tmp_path / "others").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "others" / "mine.png")
    small = np.linspace(-1, 1, 18 * 64, dtype=np.float32).reshape(18, 8, 8, 1)
    np.savez(tmp_path / "few.npz", x=small, labels=np.arange(18))
    np.savez(tmp_path / "off.npz", x=np.tile(small, (2, 1, 1, 1)), labels=np.arange(36) % 3)
    np.savez(tmp_path / "points.npz", x=np.random.default_rng(0).standard_normal((40, 2)))
    sample, evaluate = ["sample", run, "--quiet", "--out"], ["eval", run, "--quiet"]
    demo = ["demo", "--out", tmp_path / "d", "--set"]
    for arguments, message in (
        (
            [*sample, tmp_path / "a.png", "--trajectory", tmp_path / "b.gif"],
            "--trajectory: expected a name ending in .png",
        ),
        ([*sample, tmp_path / "a.png", "--trajectory", tmp_path / "file" / "b.png"], "file is a file; choose another"),
        ([*sample, tmp_path / "file" / "a.npz"], "--out: expected a place in a folder, got"),
        ([*sample, tmp_path / "others", "--force"], "expected no other images in"),
        ([*sample, tmp_path / "samples_0.5"], f"a slash says that it is a folder: {tmp_path / 'samples_0.5'}/"),
        ([*evaluate, "--judge", run], "--judge: expected a model with classes, got one without; leave it out"),
        ([*evaluate, "--n", "1"], "n: expected at least 2 samples to measure, got 1"),
        ([*evaluate, "--plot", tmp_path / "p.png"], "--plot: expected with --nll, got it alone; add --nll"),
        ([*evaluate, "--bins", "17"], "--bins: expected with --nll"),
        ([*evaluate, "--flow", "--plot", tmp_path / "p.png"], "--plot: expected with --nll, got it alone; add --nll"),
        ([*evaluate, "--flow-steps", "5"], "--flow-steps: expected with --flow, got it alone; add --flow"),
        ([*evaluate, "--flow", "--flow-steps", "0"], "--flow-steps: expected from 1 to schedule.T ="),
        ([*evaluate, "--first-variance", "refdiff"], "--first-variance: expected with --nll"),
        (
            [*evaluate, "--nll", "--plot", tmp_path / "p.xyz"],
            "--plot: expected a name ending in .png or .pdf or .svg, got",
        ),
        ([*evaluate, "--nll", "--plot", tmp_path / "file" / "p.png"], "--plot: expected a place in a folder"),
        (
            [*evaluate, "--nll", "--bins", "many"],
            "--bins: expected a number of levels from 2 on, or density, got 'many'",
        ),
        ([*evaluate, "--nll", "--bins", "9"], "x: expected images of 9 levels from -1 to 1, got others"),
        ([*evaluate, "--nll", "--data", tmp_path / "off.npz"], "got others; say how many with --bins"),
        ([*evaluate, "--data", tmp_path / "few.npz"], "2 training samples and 2 held out, got few.npz with 17 and 1"),
        ([*demo, "train.steps=1", "--n", "1"], "n: expected at least 2 samples to measure, got 1"),
        (
            [*demo, f"data.source={tmp_path / 'few.npz'}"],
            "2 training samples and 2 held out, got few.npz with 17 and 1",
        ),
        ([*demo, "data.source=moons", "--set", "model.kind=mlp"], "data.source: expected images, of which pictures"),
    ):
        assert message in fails(capsys, *arguments)
    assert not (tmp_path / "d").exists()
    if os.geteuid():
        (tmp_path / "closed").mkdir(mode=0o500)
        line = fails(capsys, *sample, tmp_path / "closed" / "x.npz")
        assert "--out: expected a folder that may be written to" in line


def test_names_with_capitals_dots_and_folders_to_be_made(run, tmp_path):
    base = ["sample", str(run), "--n", "2", "--quiet", "--out"]
    assert main([*base, str(tmp_path / "new" / "GRID.PNG"), "--trajectory", str(tmp_path / "ways" / "way.png")]) == 0
    assert (tmp_path / "new" / "GRID.PNG").exists()
    assert (tmp_path / "ways" / "way.png").exists()
    for _ in range(2):
        assert main([*base, f"{tmp_path / 'samples_0.5'}/", "--force"]) == 0
        assert len(list((tmp_path / "samples_0.5").iterdir())) == 2
    assert main([*base, str(tmp_path / "samples_0.5"), "--force"]) == 0


def test_a_doubt_is_one_plain_line(tmp_path, capsys):
    assert main(["train", "--out", str(tmp_path / "r"), *SMALL, "--set=schedule.T=100"]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "refdiff: warning: schedule: expected x_T to be noise, as sampling begins with noise alone, got sqrt(alpha_bar_T) = "
        "0.603 of the data left in it at T = 100; scale beta by 1000 / T: --set schedule.options.beta_start=0.001 "
        "--set schedule.options.beta_end=0.2"
    )


def test_eval_says_whose_convention_the_first_variance_follows(tmp_path, capsys):
    out = str(tmp_path / "run")
    assert main(["train", "--out", out, *SMALL, "--set=schedule.T=20", "--set=schedule.options.beta_end=0.6"]) == 0
    command = ["eval", out, "--n", "4", "--quiet", "--nll", "--set", "sample.variance=beta", "--set", "sample.steps=2"]
    found = {}
    for name in (None, "guided-diffusion", "refdiff"):
        capsys.readouterr()
        assert main([*command, "--json", *(["--first-variance", name] if name else [])]) == 0
        found[name] = json.loads(capsys.readouterr().out)
        assert found[name]["first_variance"] == (name or "guided-diffusion")
    assert found[None] == found["guided-diffusion"]
    assert found["refdiff"]["reconstruction"] != found[None]["reconstruction"]
    assert found["refdiff"]["denoising"] == found[None]["denoising"]
    assert main(command) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert (lines["variance"], lines["first_variance"]) == ("beta", "guided-diffusion")


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"\x89PNG" + b[4:], lambda b: b""])
def test_a_damaged_checkpoint_is_an_error_of_one_line(run, tmp_path, capsys, damage):
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(damage((run / "checkpoint.safetensors").read_bytes()))
    assert str(path) in fails(capsys, "sample", path, "--out", tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


def test_a_checkpoint_whose_arrays_are_not_its_models(run, tmp_path, capsys):
    from refdiff.storage import load_checkpoint, save_checkpoint

    arrays, metadata = load_checkpoint(run / "checkpoint.safetensors")
    arrays["p/denoiser/conv_in/weight"] = arrays["p/denoiser/conv_in/weight"][..., :4]
    save_checkpoint(tmp_path / "a.safetensors", arrays, metadata)
    assert "p/denoiser/conv_in/weight: expected float32 (3, 3, 1, 8)" in fails(
        capsys, "eval", tmp_path / "a.safetensors"
    )
    metadata.pop("config")
    save_checkpoint(tmp_path / "a.safetensors", arrays, metadata)
    assert "expected the configuration" in fails(capsys, "eval", tmp_path / "a.safetensors")


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_saves_and_exits_cleanly(tmp_path, kind):
    out = tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "refdiff",
        "train",
        "--out",
        out,
        *SMALL,
        "--set=train.steps=100000",
        "--set=train.log_every=1",
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        log = out / "log.jsonl"
        for _ in range(600):
            if log.exists() and log.stat().st_size:
                break
            time.sleep(0.1)
        process.send_signal(kind)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert err.splitlines()[-1].startswith("refdiff: stopped; ")
    assert "Traceback" not in err
    assert main(["info", str(out), "--json"]) == 0
