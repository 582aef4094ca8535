"""The entries of models that come before diffusion or beside it: their bounds of held-out data over six seeds of what they
draw, and their pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gallery.entries import Run, entry
from benchmarks.gallery.work import SEEDS, Work, spread
from refdiff.data import Dataset, load
from refdiff.models import Batch
from refdiff.plotting import new_figure
from refdiff.random import Key, normal, uniform
from refdiff.storage import save_blocks, save_grid
from refdiff.systems import SystemModel, draw, measure
from refdiff.training import system_model

__all__: list[str] = []


def measured(work: Work, run: Run) -> tuple[SystemModel, list[dict[str, Any]]]:
    """The model of a run, and what is measured of it with each seed."""
    model, data = system_model(*run), load(run[0].data.source)
    return model, [measure(model, data, seed, work.progress) for seed in SEEDS]


def numbers(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Each number of an evaluation: with its spread over the seeds, or as it is where it does not depend on them."""
    values = {name: [f[name] for f in found] for name, value in found[0].items() if isinstance(value, int | float)}
    return {name: each[0] if len(set(each)) == 1 else spread(each) for name, each in values.items()}


def shown_by_the_system(work: Work, run: Run, model: SystemModel, found: dict[str, Any], words: str, name: str) -> None:
    """The picture that `refdiff eval --plot` makes."""
    path = work.picture(words, name)
    model.module.plot(model.networks, model.objective, load(run[0].data.source), found, path)


@entry("Digits through two numbers: an autoencoder")
def digits_autoencoder(work: Work) -> None:
    """The error of held-out digits, beside that of as many principal components, and the map of their codes."""
    run = work.train("digits-autoencoder")
    model, found = measured(work, run)
    work.note(**numbers(found))
    words = (
        "held-out digits and what is decoded of their codes; along each unit; the codes by digit, and what lies between"
    )
    shown_by_the_system(work, run, model, found[0], words, "")


@entry("Digits in black and white: a variational autoencoder")
def digits_vae(work: Work) -> None:
    """The bound of held-out digits with sixteen latent numbers, and with two, of which there is a map."""
    run, flat = work.train("digits-vae"), work.train("digits-vae", *TWO, called="two latent numbers")
    model, found = measured(work, run)
    work.note(**numbers(found))
    save_grid(work.picture("a hundred samples, the mean of p(x|z) of each, none left out"), draw(model, 100), 10)
    words = "held-out digits and what is decoded of their codes; along the units that say most, from -3 to 3"
    shown_by_the_system(work, run, model, found[0], words, "traversals")
    model, found = measured(work, flat)
    work.note(
        **{
            f"two_{name}": value
            for name, value in numbers(found).items()
            if name.startswith("bits") or name.endswith("bits")
        }
    )
    words = "two latent numbers: held-out digits, along each unit, the codes by digit, and what lies between"
    shown_by_the_system(work, flat, model, found[0], words, "map")


TWO = ("networks.encoder.latent=2", "networks.decoder.latent=2")


FILLINGS = 4  # of each image in a picture
FLIPPED = 0.1  # of the pixels of a digit that is seen in noise
ROOT_FLIPPED = 1 / (1 + (1 / FLIPPED - 1) ** 0.5)  # the square root of its likelihood: in small steps that counts twice
DEVIATION = 0.3  # of the noise in which a point is seen
HALF = np.where(np.arange(8) < 4, 1.0, 0.0).reshape(8, 1, 1)  # of a digit, the upper one is kept
THREE_OF_FIVE = np.where(np.arange(20) % 5 < np.where(np.arange(20) < 15, 3, 1), 1.0, 0.0).reshape(1, 20, 1)  # ten bits


@entry("Binary digits: diffusion of bits")
def digits_binary(work: Work) -> None:
    """The bound of held-out binary digits in bits, below the entropy of independent pixels; how often the pixels of a lower
    half that is filled in are those of the digit, beside those of another digit. Of digits seen in noise, how often pixels
    of samples are those of the digit, and how often those seen, which of the digit itself is one less FLIPPED."""
    model, x = _diffusion(work, "digits-binary")
    told = {"known": x, "mask": np.broadcast_to(HALF, x.shape)}
    filled, hidden = _drawn(work, model, told), told["mask"] == 0
    work.note(
        filled_agreement=spread([(f == x)[hidden].mean() for f in filled]),
        filled_agreement_by_chance=spread([(f == np.roll(x, 1, axis=0))[hidden].mean() for f in filled]),
    )
    words = "twelve held-out digits; the half that is kept of each; four fillings of the other"
    _save_fillings(work.picture(words, "filling"), x, x * HALF, filled)
    flips = uniform(Key(0).under("gallery")("flips"), np.arange(len(x)), x.shape[1:]) < FLIPPED
    seen = np.where(flips, -x, x)
    cleaned = {
        "the likelihood": _drawn(work, model, {"observed": seen, "flipped": FLIPPED}),
        "its square root": _drawn(work, model, {"observed": seen, "flipped": ROOT_FLIPPED}),
    }
    work.note(
        agreement_of_seen=float((seen == x).mean()),
        agreement={told: spread([(c == x).mean() for c in each]) for told, each in cleaned.items()},
        agreement_with_seen={told: spread([(c == seen).mean() for c in each]) for told, each in cleaned.items()},
    )
    words = (
        "twelve held-out digits; each with a tenth of its pixels turned over; four samples of what may lie behind it"
    )
    _save_fillings(work.picture(words, "noise"), x, seen, cleaned["its square root"])


@entry("The heartbeat of 2015: diffusion of bits")
def heartbeat(work: Work) -> None:
    """The bound of sequences of 20 bits, above their entropy, log2 5, by so much; and the share of fillings of ten hidden
    bits that are a heartbeat, beside that of coins and of heartbeats that were told nothing. The bits kept show three of the
    five phases; in the two others both are right."""
    model, x = _diffusion(work, "heartbeat", columns=5)
    x, pulses = x[:100], x[:5]
    told = {"known": x, "mask": np.broadcast_to(THREE_OF_FIVE, x.shape)}
    filled, kept = _drawn(work, model, told), told["mask"] == 1
    right = ((x[:, None] == pulses) | ~kept[:, None]).all(axis=(2, 3, 4))  # which pulses agree with what is kept
    found = [((f[:, None] == pulses).all(axis=(2, 3, 4)) & right).any(axis=1).mean() for f in filled]
    work.note(
        filled_right=spread(found),
        filled_right_by_heartbeats=float(right.mean()),
        filled_right_by_coins=float(right.sum(axis=1).mean() / 2.0 ** (THREE_OF_FIVE == 0).sum()),
    )
    words = "a sequence a row: as it was; the ten bits that are kept; four fillings of the ten others"
    titles = ("as it was", "kept", *(f"filling {i + 1}" for i in range(FILLINGS)))
    blocks = np.stack([x[:10], (x * THREE_OF_FIVE)[:10], *filled[:FILLINGS, :10]])[:, :, None]
    save_blocks(work.picture(words, "filling"), blocks, titles, scale=8)


def _diffusion(work: Work, preset: str, columns: int = 10) -> tuple[SystemModel, np.ndarray]:
    """The entry's run, its bound beside what is known of the data, and its samples.   -> the model, and held-out data"""
    run = work.train(preset)
    model, found = measured(work, run)
    work.note(**numbers(found))
    if entropy := found[0].get("entropy_bits"):
        work.note(above_entropy_bits=spread([f["bound_bits"] - entropy for f in found]))
    work.note(below_independent_bits=spread([f["independent_bits"] - f["bound_bits"] for f in found]))
    words = "a hundred samples, none left out"
    save_grid(work.picture(words), draw(model, 100, progress=work.progress), columns)
    shown_by_the_system(work, run, model, found[0], "the terms of the bound over t, and samples", "terms")
    return model, load(run[0].data.source).held_out


def _drawn(work: Work, model: SystemModel, conditions: Batch) -> np.ndarray:
    """A sample of each that the conditions tell of, with each seed.   -> (6, N, ...)"""
    n = max(len(value) for value in conditions.values() if np.ndim(value))
    return np.stack([draw(model, n, seed, conditions, progress=work.progress) for seed in SEEDS])


def _save_fillings(path: Path, x: np.ndarray, told: np.ndarray, drawn: np.ndarray) -> None:
    """Twelve images, evenly chosen, in columns: as they are, what is told of them, and samples beneath."""
    ids = np.linspace(0, len(x) - 1, 12).astype(int)
    save_grid(path, np.concatenate([x[ids], told[ids], *drawn[:FILLINGS, ids]]), 12)


@entry("The Swiss roll of 2015: variances that are learned")
def swissroll_2015(work: Work) -> None:
    """The bound with learned and with fixed variances of the forward steps, the same network and as many steps; by how much
    the learned ones are better, seed by seed. Of points seen in noise, how far samples lie from the roll."""
    run = work.train("swissroll-2015")
    model, learned = measured(work, run)
    work.note(**numbers(learned))
    _seen_points(work, model, load(run[0].data.source))
    words = "variances learned: q above and p in the middle at the beginning, half-way and at the end; below its drift"
    shown_by_the_system(work, run, model, learned[0], words, "")
    run = work.train("swissroll-2015", "networks.beta.learning_rate=0", called="fixed variances")
    model, fixed = measured(work, run)
    work.note(**{f"fixed_{name}": value for name, value in numbers(fixed).items()})
    both = zip(fixed, learned, strict=True)
    work.note(learned_below_fixed_bits=spread([f["bound_bits"] - l["bound_bits"] for f, l in both]))
    shown_by_the_system(work, run, model, fixed[0], "the same with variances that stay as they were", "fixed")


def _seen_points(work: Work, model: SystemModel, data: Dataset) -> None:
    """A thousand held-out points and what may lie behind them when they are seen in noise; of both, and of the points
    themselves, the distance to the nearest point learned from, root mean square."""
    x = data.held_out[:1000]
    seen = x + DEVIATION * normal(Key(0).under("gallery")("noise"), np.arange(len(x)), x.shape[1:])
    cleaned = {
        "the likelihood": _drawn(work, model, {"observed": seen, "deviation": DEVIATION}),
        "its square root": _drawn(work, model, {"observed": seen, "deviation": 2**0.5 * DEVIATION}),
    }

    def distance(points: np.ndarray) -> float:
        return float(np.sqrt(((points[:, None] - data.x[::4]) ** 2).sum(axis=-1).min(axis=1).mean()))

    work.note(distance_of_held_out=distance(x), distance_of_seen=distance(seen))
    work.note(distance={told: spread([distance(c) for c in each]) for told, each in cleaned.items()})
    figure = new_figure(9, 3)
    panels = (("as they were", x), ("seen in noise", seen), ("what may lie behind", cleaned["its square root"][0]))
    for axis, (title, points) in zip(figure.subplots(1, 3, sharex=True, sharey=True), panels, strict=True):
        axis.plot(*points.T, ".", markersize=2)
        axis.set(title=title, aspect="equal", xlim=(-3, 3), ylim=(-3, 3))
    figure.savefig(work.picture("held-out points; seen in noise; a sample of what may lie behind each", "noise"))
