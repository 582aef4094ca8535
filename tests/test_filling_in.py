"""`refdiff sample` of the systems of 2015: images of which a part is filled in, and images seen in noise."""

import json
import re

import numpy as np
import pytest
from helpers import fails, line
from PIL import Image

from refdiff.cli import main
from refdiff.data import load
from refdiff.systems import draw
from refdiff.training import load_state, system_model

BITS, MASK = load("binary-digits").held_out, np.zeros((8, 8, 1), np.float32)
MASK[:4] = 1  # the upper half is kept
SHORT = ["--quiet", "--set=train.steps=2", "--set=train.warmup=0"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs of two steps: of bits, of numbers, of points, of a VAE and of denoising; and files of images and masks."""
    folder = tmp_path_factory.mktemp("runs")
    numbers = ["--set=data.source=digits", "--set=networks.denoiser.size=[8,8,1]", "--set=objective.T=40"]
    for name, preset, more in (
        ("bits", "digits-binary", ["--set=networks.denoiser.width=8"]), ("numbers", "swissroll-2015", numbers),
        ("points", "swissroll-2015", []), ("vae", "digits-vae", []), ("denoising", "digits", ["--set=model.width=8"]),
    ):  # fmt: skip
        assert main(["train", "--out", str(folder / name), "--preset", preset, *SHORT, *more]) == 0
    pictures = {
        "eight": BITS[7], "mask": np.broadcast_to(-MASK + (MASK == 0), MASK.shape), "grey": 0 * MASK, "wide": BITS[0][:, :4],
        "white": MASK * 0 + 1,
    }  # fmt: skip
    for name, x in pictures.items():
        Image.fromarray(np.round((x[..., 0] + 1) * 127.5).astype(np.uint8)).save(folder / f"{name}.png")
    np.save(folder / "five.npy", BITS[:5])
    np.savez(folder / "numbers.npz", x=load("digits").held_out[:5] * 0.9)
    return folder


def drawn(runs, run, out, *options):
    assert main(["sample", str(runs / run), "--out", str(out), "--quiet", *map(str, options)]) == 0
    return np.load(out)["x"]


@pytest.fixture
def bits(runs):
    return system_model(*load_state(runs / "bits"))


def test_the_white_part_of_a_mask_is_filled_in_and_the_black_is_kept(runs, bits, tmp_path):
    """Of a data set its held-out images, the first --n, each once."""
    options = ["--image", "binary-digits", "--mask", runs / "mask.png"]
    x = drawn(runs, "bits", tmp_path / "x.npz", *options, "--n", 6)
    assert np.array_equal(x[:, :4], BITS[:6, :4])
    assert not np.array_equal(x[:, 4:], BITS[:6, 4:])
    conditions = {"known": BITS[:6], "mask": np.tile(MASK, (6, 1, 1, 1))}
    assert np.array_equal(x, draw(bits, 6, 0, conditions, progress=False))
    assert len(drawn(runs, "bits", tmp_path / "all.npz", *options)) == len(BITS)
    free = drawn(
        runs, "bits", tmp_path / "white.npz", "--image", "binary-digits", "--mask", runs / "white.png", "--n", 3
    )
    assert np.array_equal(free, draw(bits, 3, 0, progress=False))


def test_one_image_is_filled_in_again_and_again(runs, tmp_path, capsys):
    options = ["--image", runs / "eight.png", "--mask", runs / "mask.png"]
    x = drawn(runs, "bits", tmp_path / "x.npz", *options)
    assert len(x) == 64
    assert np.array_equal(x[:, :4], np.broadcast_to(BITS[7, :4], (64, 4, 8, 1)))
    assert len(np.unique(x, axis=0)) > 32
    capsys.readouterr()
    command = [
        "sample",
        runs / "bits",
        *options,
        "--n",
        7,
        "--out",
        tmp_path / "x.png",
        "--trajectory",
        tmp_path / "way.png",
    ]
    assert main([*map(str, command), "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 7
    assert (tmp_path / "way.png").exists()
    with Image.open(tmp_path / "x.png") as image:
        assert image.size[0] > 8


def test_images_seen_in_noise(runs, bits, tmp_path):
    x = drawn(runs, "bits", tmp_path / "x.npz", "--observed", runs / "five.npy", "--flipped", 0.01)
    assert np.array_equal(x, draw(bits, 5, 0, {"observed": BITS[:5], "flipped": 0.01}, progress=False))
    assert (x == BITS[:5]).mean() > 0.95
    y = load("digits").held_out[:5] * np.float32(0.9)
    x = drawn(runs, "numbers", tmp_path / "y.npz", "--observed", runs / "numbers.npz", "--deviation", 0.05)
    model = system_model(*load_state(runs / "numbers"))
    assert np.array_equal(x, draw(model, 5, 0, {"observed": y, "deviation": 0.05}, progress=False))
    assert np.abs(x - y).std() < 0.1
    x = drawn(
        runs, "numbers", tmp_path / "z.npz", "--image", runs / "numbers.npz", "--mask", runs / "mask.png", "--n", 2
    )
    assert np.array_equal(x[:, :4], y[:2, :4])


OTHER = "expected a run of binomial or nonequilibrium, got"
BOTH = "expected --image with --mask, or --observed with"


@pytest.mark.parametrize(
    ("run", "options", "words"),
    [
        ("denoising", ["--image", "digits"], ["--image:", OTHER, "Denoising; leave it out"]),
        ("denoising", ["--mask", "mask.png"], ["--mask:", OTHER, "Denoising; leave it out"]),
        ("denoising", ["--flipped", 0.0], ["--flipped:", OTHER, "Denoising; leave it out"]),
        ("vae", ["--observed", "five.npy", "--flipped", 0.1], ["--observed:", OTHER, "VAE; leave it out"]),
        ("vae", ["--label", 0], ["--label: expected a run of denoising, got VAE; leave it out"]),
        ("points", ["--image", "digits", "--mask", "mask.png"],
         ["--image: expected a run of images, got one of points", r"\(2,\)", "refdiff.systems.draw"]),
        ("bits", ["--image", "five.npy"], ["--image:", BOTH, "--flipped, for this run, got --image; give both of one kind"]),
        ("bits", ["--mask", "mask.png"], ["--mask:", BOTH, "got --mask; give both"]),
        ("bits", ["--observed", "five.npy", "--mask", "mask.png"], ["--mask:", BOTH, "got --mask --observed; give both"]),
        ("bits", ["--observed", "five.npy", "--deviation", 1], ["--observed:", BOTH, "got --observed --deviation; give"]),
        ("numbers", ["--observed", "five.npy", "--flipped", 0.1], [BOTH, "--deviation, for this run, got --observed --fl"]),
        ("bits", ["--image", "digits", "--mask", "mask.png"], ["--image: expected bits, each black or white, got",
         "values that are neither in digits"]),
        ("bits", ["--observed", "numbers.npz", "--flipped", 0.1], ["--observed: expected bits, each black or white, got"]),
        ("bits", ["--image", "wide.png", "--mask", "mask.png"],
         [r"--image: expected images of \(8, 8, 1\), as this run draws them, got \(8, 4, 1\) in .*wide.png"]),
        ("bits", ["--image", "nowhere", "--mask", "mask.png"], ["--image: expected one of digits", "got 'nowhere'"]),
        ("bits", ["--image", "swissroll", "--mask", "mask.png"], ["--image: expected images, got swissroll"]),
        ("bits", ["--image", "five.npy", "--mask", "nowhere.png"], ["--mask: expected one of digits", "nowhere.png"]),
        ("bits", ["--image", "five.npy", "--mask", "grey.png"],
         ["--mask: expected white where it is to be filled in, black where it is kept, got 64 of 64 values in between"]),
        ("bits", ["--image", "five.npy", "--mask", "wide.png"],
         [r"--mask: expected one image of \(8, 8\), for all samples, got 1 of \(8, 4, 1\) in .*wide.png"]),
        ("bits", ["--image", "five.npy", "--mask", "five.npy"], [r"--mask: expected one image of \(8, 8\)", "got 5 of"]),
        ("bits", ["--image", "five.npy", "--mask", "mask.png", "--n", 6],
         ["--n: expected from 1 to 5, the images of --image, got 6"]),
        ("bits", ["--image", "five.npy", "--mask", "mask.png", "--n", 0], ["--n: expected from 1 to 5"]),
        ("bits", ["--image", "eight.png", "--mask", "mask.png", "--n", -1], ["--n: expected at least one sample, got -1"]),
        ("bits", ["--observed", "five.npy", "--flipped", 0.5], ["--flipped: expected a probability between 0 and 1/2"]),
        ("numbers", ["--observed", "five.npy", "--deviation", 0], ["--deviation: expected a positive number, got 0"]),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line_and_nothing_is_written(runs, run, options, words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(runs)
    text = fails(capsys, "sample", runs / run, *options, "--out", tmp_path / "x.npz", "--quiet")
    assert re.search(line(*words), text), text
    assert not list(tmp_path.iterdir())
