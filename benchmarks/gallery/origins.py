"""The entries of models that come before diffusion or beside it: their bounds of held-out data over six seeds of what they
draw, and their pictures."""

from __future__ import annotations

from typing import Any

from benchmarks.gallery.entries import Run, entry
from benchmarks.gallery.work import SEEDS, Work, spread
from refdiff.data import load
from refdiff.storage import save_grid
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


@entry("Binary digits: diffusion of bits")
def digits_binary(work: Work) -> None:
    """The bound of held-out binary digits in bits, beside the entropy of independent pixels."""
    _diffusion(work, "digits-binary", "a hundred samples, none left out")


@entry("The heartbeat of 2015: diffusion of bits")
def heartbeat(work: Work) -> None:
    """The bound of sequences of 20 bits, beside their entropy, log2 5."""
    _diffusion(work, "heartbeat", "a hundred samples, none left out", columns=5)


def _diffusion(work: Work, preset: str, words: str, columns: int = 10) -> None:
    run = work.train(preset)
    model, found = measured(work, run)
    work.note(**numbers(found))
    save_grid(work.picture(words), draw(model, 100, progress=work.progress), columns)
    shown_by_the_system(work, run, model, found[0], "the terms of the bound over t, and samples", "terms")


@entry("The Swiss roll of 2015: variances that are learned")
def swissroll_2015(work: Work) -> None:
    """The bound with learned and with fixed variances of the forward steps, the same network and as many steps."""
    run = work.train("swissroll-2015")
    model, found = measured(work, run)
    work.note(**numbers(found))
    words = "above: q at the beginning, the middle and the end; below: samples of p at the same times, and the drift"
    shown_by_the_system(work, run, model, found[0], words, "")
    _, found = measured(work, work.train("swissroll-2015", "networks.beta.learning_rate=0", called="fixed variances"))
    work.note(**{f"fixed_{name}": value for name, value in numbers(found).items()})
