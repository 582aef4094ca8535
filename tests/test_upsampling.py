"""A model that enlarges, from end to end: it trains, goes on, draws what it is given and is measured, and what does not fit
is one line."""

import json
import re

import numpy as np
import pytest
from helpers import fails, line
from PIL import Image
from states import bits

from refdiff.cli import main
from refdiff.config import PRESETS, Config
from refdiff.data import load
from refdiff.models import Input
from refdiff.random import Key
from refdiff.sampling import conditions_of, sample
from refdiff.storage import save_folder
from refdiff.training import State, load_state, train, trained
from refdiff.training.trainers.cpu import CPUTrainer

TINY = ["networks.denoiser.width=8", "networks.denoiser.groups=4", "networks.denoiser.head_channels=8", "train.batch=8",
        "train.steps=4", "train.warmup=2", "train.grid_every=0", "sample.steps=3", "schedule.T=20",
        "schedule.options={beta_start=0.005,beta_end=0.9}"]  # fmt: skip
PRESET = "digits-upsampler"


def of(*changes):
    return Config.resolve(PRESET, changes=[*TINY, *changes])


def settings(*changes):
    return ["--quiet", *(f"--set={change}" for change in (*TINY, *changes))]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Of a few steps: with classes and a label for none, without that label, and of digits that are not enlarged."""
    folder = tmp_path_factory.mktemp("runs")
    for name, preset, changes in (
        ("up", PRESET, ["train.grid_every=4"]),
        ("told", PRESET, ["networks.denoiser.null_label=false"]),
        ("plain", "digits", ["networks.denoiser.head_channels=0"]),
    ):
        assert main(["train", "--preset", preset, "--out", str(folder / name), *settings(*changes)]) == 0
    return folder


@pytest.fixture(scope="module")
def small():
    """Small images, in [-1, 1], none of them symmetric."""
    return np.random.default_rng(0).uniform(-1, 1, (12, 4, 4, 1)).astype(np.float32)


def drawn(run, out, *options):
    assert main(["sample", str(run), "--quiet", "--out", str(out), *map(str, options)]) == 0
    return np.load(out)["x"]


# Training


def test_the_preset_is_a_small_upsampler_of_adm():
    config = PRESETS[PRESET]
    assert (config.model.size, config.model.low_res, config.objective.downscale) == (8, 4, 2)
    assert (config.model.conditioning, config.model.resampling) == ("scale_shift", "residual")
    assert (config.model.classes, config.model.null_label, config.objective.bins) == (10, True, 17)
    assert config.objective.null == (("label", 10, 0.1),)
    assert config.train.steps <= 2000


def test_a_run_that_goes_on_has_the_bits_of_one_that_never_stopped(tmp_path):
    whole = train(of(), tmp_path / "whole", progress=False)

    def stop(step):
        if step.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(of(), tmp_path / "cut", progress=False, on_step=stop)
    assert bits(train(of(), tmp_path / "cut", resume=True, progress=False)) == bits(whole)


def test_one_process_and_two_give_the_same_bits(two_processes, use_threads):
    config, data = of("engine=cpu", "train.shards=2"), load("digits")

    def run():
        worker = CPUTrainer(config, State.first(config))
        for i in range(3):
            worker.step(data.rows(np.arange(8 * i, 8 * i + 8), Key(0, i)))
        return bits(worker.state())

    two = run()
    use_threads(1)
    assert run() == two


def test_the_grid_of_a_run_has_the_small_images_beside_the_samples(runs):
    (path,) = (runs / "up" / "samples").iterdir()
    with Image.open(path) as grid:
        assert grid.width > 2.5 * grid.height  # three squares


# Sampling


def test_each_small_image_becomes_a_sample_with_the_noise_of_its_place(runs, small, tmp_path):
    np.save(tmp_path / "small.npy", small)
    found = drawn(runs / "up", tmp_path / "x.npz", "--low-res", tmp_path / "small.npy")
    assert found.shape == (12, 8, 8, 1)
    assert np.abs(found).max() <= 1
    model = trained(*load_state(runs / "up"))
    np.testing.assert_array_equal(found, sample(model, 12, conditions={"low_res": small}, progress=False))
    few = drawn(runs / "up", tmp_path / "few.npz", "--low-res", tmp_path / "small.npy", "--n", 5)
    np.testing.assert_allclose(few, found[:5], atol=1e-5)
    others = sample(model, 12, conditions={"low_res": small[::-1]}, progress=False)
    assert min(np.abs(a - b).max() for a, b in zip(found, others, strict=True)) > 1e-4


def test_small_images_are_read_from_arrays_folders_and_single_files_in_their_order(runs, small, tmp_path):
    save_folder(tmp_path / "images", small)
    np.savez(tmp_path / "small.npz", x=small)
    from_npz = drawn(runs / "up", tmp_path / "a.npz", "--low-res", tmp_path / "small.npz")
    from_folder = drawn(runs / "up", tmp_path / "b.npz", "--low-res", tmp_path / "images")
    np.testing.assert_allclose(from_folder, from_npz, atol=0.05)  # bytes
    one = drawn(runs / "up", tmp_path / "c.npz", "--low-res", tmp_path / "images/00000.png")
    np.testing.assert_allclose(one, from_folder[:1], atol=1e-5)


def test_images_of_the_models_own_size_are_averaged_down_and_said_to_be(runs, tmp_path, capsys):
    digits, out = load("digits"), tmp_path / "x.npz"
    assert main(["sample", str(runs / "up"), "--low-res", "digits", "--n", "6", "--out", str(out)]) == 0
    assert "refdiff: digits: images of (8, 8, 1), averaged down to (4, 4, 1)\n" in capsys.readouterr().err
    means = digits.held_out[:6].reshape(6, 4, 2, 4, 2, 1).mean(axis=(2, 4))
    conditions = {"low_res": means, "label": digits.held_out_labels[:6]}  # their own labels
    model = trained(*load_state(runs / "up"))
    np.testing.assert_allclose(np.load(out)["x"], sample(model, 6, conditions=conditions, progress=False), atol=1e-5)
    sevens = drawn(runs / "up", tmp_path / "y.npz", "--low-res", "digits", "--n", 6, "--label", 7)
    expected = sample(model, 6, conditions=conditions | {"label": 7}, progress=False)
    np.testing.assert_allclose(sevens, expected, atol=1e-5)
    assert np.abs(sevens - np.load(out)["x"]).max() > 1e-4


def test_a_picture_has_the_small_images_beside_the_samples_and_a_strip_is_of_the_first(runs, small, tmp_path):
    np.save(tmp_path / "small.npy", small[:4])
    options = ["--low-res", str(tmp_path / "small.npy"), "--trajectory", str(tmp_path / "way.png")]
    assert main(["sample", str(runs / "up"), "--quiet", "--out", str(tmp_path / "x.png"), *options]) == 0
    with Image.open(tmp_path / "x.png") as picture, Image.open(tmp_path / "way.png") as strip:
        assert 1.5 < picture.width / picture.height < 2.5
        assert strip.height == 8 * (4 * 9 + 1)  # four rows


def test_what_does_not_fit_is_one_line_before_anything_is_drawn(runs, small, tmp_path, capsys):
    up, out, own = runs / "up", tmp_path / "x.npz", r"images of \(4, 4, 1\), which this model enlarges, or of its own"
    for name, x in (("small", small), ("colour", np.zeros((3, 4, 4, 3))), ("five", np.zeros((3, 5, 5, 1)))):
        np.save(tmp_path / f"{name}.npy", x.astype(np.float32))
    np.save(tmp_path / "range.npy", 2 * small)
    for run, options, words in (
        (up, [], ["--low-res: expected", own, "got none; give a file, a folder or a data set, as --low-res digits"]),
        (up, ["--low-res", "colour.npy"], ["--low-res: expected", own, r"got \(4, 4, 3\) in .*colour.npy"]),
        (up, ["--low-res", "five.npy"], ["--low-res: expected", own, r"got \(5, 5, 1\) in .*five.npy"]),
        (up, ["--low-res", "range.npy"], [r"range.npy: expected values in \[-1, 1\]"]),
        (up, ["--low-res", "swissroll"], ["--low-res: expected images, got swissroll"]),
        (up, ["--low-res", "nowhere"], ["--low-res: expected one of digits", "got 'nowhere'"]),
        (up, ["--low-res", "small.npy", "--n", 13], ["--n: expected from 1 to 12, the images of --low-res, got 13"]),
        (up, ["--low-res", "small.npy", "--n", 0], ["--n: expected from 1 to 12"]),
        (up, ["--low-res", "small.npy", "--label", 10], ["--label: expected a class from 0 to 9, got 10"]),
        (runs / "told", ["--low-res", "small.npy"], ["--label: expected the class of the images", "add --label"]),
        (runs / "plain", ["--low-res", "small.npy"], ["--low-res: expected a model that enlarges images", "leave it out"]),
    ):  # fmt: skip
        paths = [tmp_path / o if str(o).endswith(".npy") else o for o in options]
        said = fails(capsys, "sample", run, "--quiet", "--out", out, *paths)
        assert re.search(line(*words), said), said
    assert not out.exists()


def test_conditions_that_do_not_fit_are_one_line_in_python(runs, small):
    model, plain = (trained(*load_state(runs / name)) for name in ("up", "plain"))
    for given, words in (
        ({}, ["low_res: expected this condition, which the network takes, got none; give low_res"]),
        ({"low_res": small[:2, :3]}, [r"low_res: expected shape \(4, 4, 1\), or \(2, ...\)", r"got \(2, 3, 4, 1\)"]),
        ({"low_res": small[:3]}, [r"low_res: expected shape \(4, 4, 1\)", r"got \(3, 4, 4, 1\)"]),
        ({"low_res": np.zeros((2, 4, 4, 3))}, [r"low_res: expected shape \(4, 4, 1\)", r"got \(2, 4, 4, 3\)"]),
        ({"low_res": np.full((2, 4, 4, 1), 255, np.uint8)}, ["low_res: expected images in", "got 255 to 255; .*127.5"]),
        ({"low_res": np.full((2, 4, 4, 1), np.nan)}, [r"low_res: expected images in \[-1, 1\], got nan to nan"]),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=line(*words)):
            sample(model, 2, conditions=given, progress=False)
    words = ["low_res: expected no such condition, since this network takes none", "with networks.denoiser.low_res"]
    with pytest.raises(ValueError, match=line(*words)):
        sample(plain, 2, conditions={"low_res": small[:2]}, progress=False)
    assert sample(model, 2, conditions={"low_res": small[0]}, progress=False).shape == (2, 8, 8, 1)  # one for all


def test_what_data_say_of_an_image_is_its_label_and_its_small_image(runs):
    model, plain = (trained(*load_state(runs / name)) for name in ("up", "plain"))
    data = load("digits")
    batch = {"x": data.x[:5], "label": data.labels[:5], "other": np.zeros(5)}
    found = conditions_of(model, batch)
    assert set(found) == {"label", "low_res"}
    np.testing.assert_allclose(found["low_res"], data.x[:5].reshape(5, 4, 2, 4, 2, 1).mean(axis=(2, 4)), atol=1e-7)
    assert set(conditions_of(model, {"x": data.x[:5]})) == {"low_res"}
    assert conditions_of(plain, batch) == {}


# Measuring


def test_eval_draws_a_sample_of_each_held_out_image_and_says_how_it_agrees(runs, capsys):
    for run in ("up", "told"):
        capsys.readouterr()
        assert main(["eval", str(runs / run), "--n", "20", "--nll", "--nll-steps", "2", "--json", "--quiet"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["samples"] == 20
        assert found["given"] == "label, low_res"
        assert np.isfinite(found["bits_per_dim"])
        assert {"frechet_samples", "frechet_floor", "frechet_bilinear", "low_res_error", "rms_error_bilinear"} <= set(
            found
        )
        assert 0 < found["rms_error_bilinear"] < found["rms_error"]  # four steps


def test_without_n_there_are_as_many_samples_as_images_held_out(runs, tmp_path, capsys):
    digits = load("digits")
    np.savez(tmp_path / "few.npz", x=digits.x[:30], labels=digits.labels[:30], held_out=digits.held_out[:11],
             held_out_labels=digits.held_out_labels[:11])  # fmt: skip
    assert main(["eval", str(runs / "up"), "--data", str(tmp_path / "few.npz"), "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 11


def test_data_without_the_labels_that_a_model_asks_for_are_fails(runs, tmp_path, capsys):
    np.savez(tmp_path / "x.npz", x=load("digits").x[:30], held_out=load("digits").held_out[:10])
    for options in ([], ["--nll"]):
        said = fails(capsys, "eval", runs / "told", "--data", tmp_path / "x.npz", "--n", "4", "--quiet", *options)
        assert "label: expected this condition, which the network takes, got none" in said


def test_a_judge_needs_labels_and_data_that_hold_none_out_are_named(runs, tmp_path, capsys):
    judge = ["train", "--preset", "digits-judge", "--out", str(tmp_path / "judge"), "--quiet"]
    small = ("width=8", "groups=4", "multipliers=[1]", "attention=[8]")
    changes = [f"--set=networks.classifier.{one}" for one in small]
    assert main([*judge, *changes, "--set=train.steps=1", "--set=train.batch=8", "--set=train.warmup=0"]) == 0
    x, labels = load("digits").x[:30], load("digits").labels[:30]
    np.savez(tmp_path / "x.npz", x=x, held_out=x[:10])
    np.savez(tmp_path / "all.npz", x=x, held_out=x[:0], labels=labels, held_out_labels=labels[:0])
    common = ["eval", runs / "up", "--quiet", "--data"]
    said = fails(capsys, *common, tmp_path / "x.npz", "--judge", tmp_path / "judge")
    assert "--judge: expected data with labels, got x.npz without; leave it out" in said
    assert "data: expected at least 2 training samples and 2 held out" in fails(capsys, *common, tmp_path / "all.npz")
    assert main([str(a) for a in (*common, "digits", "--n", "10", "--judge", tmp_path / "judge", "--json")]) == 0
    assert 0 <= json.loads(capsys.readouterr().out)["judged_accuracy"] <= 1


def test_the_demonstration_draws_of_held_out_images(tmp_path):
    changes = settings("networks.denoiser.low_res=4", "networks.denoiser.head_channels=0")
    assert main(["demo", "--out", str(tmp_path / "demo"), "--n", "16", *changes]) == 0
    with Image.open(tmp_path / "demo/samples.png") as picture:
        assert picture.width > 2 * picture.height


def test_data_that_have_small_images_of_their_own_show_them(tmp_path):
    """No held-out split, and a low_res that is not made of x."""

    class Pairs:
        inputs = load("digits").inputs | {"low_res": Input((3, 3, 1))}

        def __len__(self):
            return 16

        def rows(self, ids, key):
            x = load("digits").x[ids]
            return {"x": x, "label": load("digits").labels[ids], "low_res": x[:, ::3, ::3]}

    config = of("networks.denoiser.low_res=3", "train.grid_every=4")
    assert config.objective.downscale == 0
    train(config, tmp_path / "run", data=Pairs(), progress=False)
    assert len(list((tmp_path / "run" / "samples").iterdir())) == 1
