"""The entries of the gallery, a function each: what is trained, what is measured over six seeds, which pictures are made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.gallery.work import SEEDS, Work, spread
from refdiff.config import Config
from refdiff.data import load
from refdiff.evaluation import (
    class_distances,
    classifier_accuracy,
    evaluate,
    judged_accuracy,
    nll,
    plot_accuracy,
    plot_nll,
)
from refdiff.evaluation.judging import Judge
from refdiff.sampling import sample
from refdiff.storage import save_blocks
from refdiff.training import State, every_class, trained
from refdiff.training.demo import save_classes
from refdiff.training.judge import judge_of

__all__ = ["ENTRIES"]

Entry = Callable[[Work], None]
Run = tuple[Config, State]
ENTRIES: dict[str, tuple[str, Entry]] = {}


def entry(title: str) -> Callable[[Entry], Entry]:
    """Makes a function an entry of its name, under this title."""

    def keep(function: Entry) -> Entry:
        ENTRIES[function.__name__.replace("_", "-")] = title, function
        return function

    return keep


@entry("Digits asked for by class")
def digits(work: Work) -> None:
    """The demo's run, and its 512 samples with six seeds: the Frechet distance, of all and of each class."""
    model, data, n = trained(*work.train("digits-classes")), load("digits"), 512
    asked, found = every_class(model, n), list[dict[str, Any]]()
    for seed in SEEDS:
        x = sample(model, n, seed, asked, progress=work.progress)
        found.append(evaluate(model, x, data, seed, asked["label"]))
        if seed == SEEDS[0]:
            save_classes(work.picture("a row a class, ten samples of each, none left out"), x, asked["label"])
    work.note(samples=n, frechet=spread([f["frechet_samples"] for f in found]), frechet_floor=found[0]["frechet_floor"])
    by_class = {key: spread([f[key] for f in found]) for key in ("frechet_class", "frechet_of_class")}
    work.note(**by_class, **{key: found[0][key] for key in _FLOORS})


_FLOORS = ("frechet_class_floor", "frechet_floor_of_class", "frechet_class_n")


@entry("A classifier of digits in noise, and one that judges")
def classifier(work: Work) -> None:
    """The share of held-out digits that are put into their class, over t, and of training digits; six seeds of the noise."""
    data = load("digits")
    (config, state), (clean, weights) = work.train("digits-classifier"), work.train("digits-judge")
    held, own = (data.held_out, data.held_out_labels), (data.x, data.labels)
    network = state.networks(config)["classifier"]
    found = [
        classifier_accuracy(network, config.objective, *held, own, seed, engine=config.engine, progress=work.progress)
        for seed in SEEDS
    ]
    judge = classifier_accuracy(
        weights.networks(clean)["classifier"], clean.objective, *held, engine=clean.engine, progress=False
    )
    work.note(
        accuracy_at_t_1=spread([f["accuracy"][0] for f in found]),
        accuracy_of_the_judge=judge["accuracy"][0],  # at t = 0, where there is no noise to be drawn
        accuracy_of_the_judge_error=judge["accuracy_error"][0],
        chance=found[0]["chance"], images=len(data.held_out), draws=found[0]["draws"],
        accuracy=spread([dict(zip(f["t"], f["accuracy"], strict=True)) for f in found]),
        accuracy_training=spread([dict(zip(f["t"], f["accuracy_training"], strict=True)) for f in found]),
    )  # fmt: skip
    plot_accuracy(found[0], work.picture("the classifier's accuracy over t, with the standard error of one seed"))


SCALES = (0, 1, 3, 8)  # of guidance
GUIDED = 200  # samples, of all classes
KINDS = {
    "free": "sample.guidance={}",
    "score": "sample.guidance=0,sample.classifier_scale={}",
    "shift": "sample.guidance=0,sample.classifier_scale={},sample.method=ancestral",
}


@entry("Guidance at 0, 1, 3 and 8")
def guidance(work: Work) -> None:
    """200 digits, 20 of each class, six times: the share in which the judge sees the class that was asked for, and the
    Frechet distance of each class. Classifier-free (free); by a classifier, on predictions without the label: its gradient
    in the score form, DDIM (score), and as the shift of the mean of ancestral steps (shift)."""
    run, guide, n = work.train("digits-classes"), work.train("digits-classifier"), GUIDED
    judge, blocks = judge_of(*work.train("digits-judge"), trained(*run)), dict[str, list[np.ndarray]]()
    for kind, lines in KINDS.items():
        found = {}
        for scale in SCALES:
            changes = ["sample.steps=50", *lines.format(scale).split(","), *work.changes]
            found[scale], pictures = _guided((run[0].changed(changes), run[1]), guide, judge, n, work.progress)
            blocks.setdefault(kind, []).append(pictures)
        for name in ("judged", "judged_error", "frechet"):
            work.note(**{f"{name}_{kind}": {str(scale): values[name] for scale, values in found.items()}})
        work.note(samples=n, sampling_steps=50, **found[0]["floor"])
    titles = [f"scale {scale}" for scale in SCALES]
    words = "a row a class, a block a scale: 0, 1, 3 and 8"
    save_blocks(work.picture(f"classifier-free guidance, {words}"), np.stack(blocks["free"]), titles, scale=5)
    path = work.picture(f"classifier guidance in the score form, {words}", "classifier")
    save_blocks(path, np.stack(blocks["score"]), titles, scale=5)


def _guided(run: Run, guide: Run, judge: Judge, n: int, progress: bool) -> tuple[dict[str, Any], np.ndarray]:
    """What is measured of n samples of every class with six seeds, and six samples of each class of the first."""
    model, data = trained(*run, guide), load("digits")
    asked = every_class(model, n)
    label = asked["label"]
    samples = [sample(model, n, seed, asked, progress=progress) for seed in SEEDS]
    found = [judged_accuracy(judge, x, label) | class_distances(x, label, data) for x in samples]
    together = judged_accuracy(judge, np.concatenate(samples), np.tile(label, len(samples)))
    values = {
        "judged": spread([f["judged_accuracy"] for f in found]),
        "judged_error": together["judged_accuracy_error"],  # of all samples of all seeds
        "frechet": spread([f["frechet_class"] for f in found]),
        "floor": {key: found[0][key] for key in ("frechet_class_floor", "frechet_class_n")},
    }
    return values, np.stack([samples[0][label == one][:6] for one in np.unique(label)])


CHAINS = {"all": (None, "uniform")} | {f"25 {name}": (25, name) for name in ("quadratic", "trailing", "uniform")}


@entry("A learned variance, in bits")
def learned_variance(work: Work) -> None:
    """The bound of held-out digits with the learned variance and with each fixed one, by the same network: of the chain of
    all steps, and of chains of 25, spaced in three ways; six seeds of the noise. And digits drawn in 25 ancestral steps."""
    run = work.train(
        "digits", "train.steps=2000", "schedule.kind=cosine", "objective.variance=learned", "sample.method=ancestral",
        "sample.steps=25", "sample.spacing=quadratic",
    )  # fmt: skip
    x, bits = load("digits").held_out, {name: dict[str, Any]() for name in ("learned", "posterior", "beta")}
    for chain, (steps, spacing) in CHAINS.items():
        model = trained(run[0].changed([f"sample.spacing={spacing}"]), run[1])
        found = [nll(model, x, seed, steps=steps, progress=work.progress) for seed in SEEDS]
        for name, of_chain in bits.items():
            key = "bits_per_dim" + f"_{name}" * (name != "learned")
            of_chain[chain] = spread([f[key] for f in found])
        if steps is None:
            path = work.picture(
                "the terms of the bound over t, learned variance, all steps, with the error of one seed"
            )
            plot_nll(found[0], path)
    work.note(
        images=len(x), T=run[0].schedule.T, **{f"bits_{name}": of_chain for name, of_chain in bits.items()}
    )  # fmt: skip
    blocks = [
        sample(trained(run[0].changed([f"sample.variance={name}"]), run[1]), 60, progress=work.progress)
        for name in bits
    ]
    path = work.picture("sixty digits in 25 ancestral steps with each variance, the same noise", "samples")
    save_blocks(path, np.stack(blocks).reshape(len(blocks), 6, 10, *x.shape[1:]), list(bits), scale=4)
