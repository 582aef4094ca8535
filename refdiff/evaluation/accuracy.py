"""How often a classifier is right about images in noise, as a function of t, beside chance.

One number says little of a classifier on noisy images: at small t it should be about as good as one of clean images, near T
nobody can be better than chance. Training images beside those that are held out show whether it learned or memorised: with
few images a class, such as 20, it only memorises.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DoubtWarning
from ..models import Network, inputs
from ..objectives import Classification
from ..plotting import new_figure
from ..process import q_sample, uniform_steps
from ..progress import Progress
from ..random import Key, normal
from ..sampling import network_function

__all__ = ["FEW", "accuracy_lines", "accuracy_steps", "classifier_accuracy", "plot_accuracy"]

STEPS = 10  # values of t
FEW = 50  # images a class, below which what is seen is mostly memory


def classifier_accuracy(
    network: Network,
    objective: Classification,
    x: np.ndarray,
    label: np.ndarray,
    training: tuple[np.ndarray, np.ndarray] | None = None,
    seed: int = 0,
    draws: int = 4,
    engine: str = "auto",
    dtype: str = "float32",
    batch: int = 256,
    progress: bool = False,
) -> dict[str, Any]:
    """The share of images whose label has the largest logit, for ten values of t, each image in `draws` noises of its own.

    x (N, ...), label (N,) integers, usually those held out; training: (x, label) of what was learned from, the first N of
    which are asked too. A classifier that learned from clean images sees them, t = 0, and noisy ones, and is told t = 0 of
    all.   -> t, accuracy, accuracy_error (a list each), chance, classes, images, draws; and with `training`
    accuracy_training and training_images_a_class, the fewest of a class. accuracy_error is the standard error
    sqrt(p (1 - p) / N) of N images: several noises of an image are no further images, so it is, if anything, too large.
    ValueError for images of another shape than the network's, or labels that it does not know. DoubtWarning where a class
    has fewer than 50 training images.
    """
    if draws < 1:
        raise ValueError(f"draws: expected at least 1 noise an image, got {draws}")
    if batch < 1:
        raise ValueError(f"batch: expected at least 1, got {batch}")
    predict, classes = network_function(engine, network, dtype), int(network.config.classes)
    sets = [("x", x, label)] + ([("training", *training)] if training is not None else [])
    for name, images, labels in sets:
        _check(name, network, classes, images, labels)
    sets = [(name, images[: len(x)], labels[: len(x)]) for name, images, labels in sets]
    t = accuracy_steps(objective)
    found: dict[str, list[float]] = {}
    total = sum(len(images) for _, images, _ in sets) * draws * len(t)
    with Progress("accuracy", total, "image", progress) as bar:
        for name, images, labels in sets:
            key = Key(seed).under("accuracy").under(name)
            found[name] = [
                _share_right(predict, objective, images, labels, int(at), key, draws, batch, bar) for at in t
            ]
    share = np.array(found["x"])
    measured = {
        "t": t.tolist(),
        "accuracy": found["x"],
        "accuracy_error": np.sqrt(share * (1 - share) / len(x)).tolist(),
        "chance": 1 / classes,
        "classes": classes,
        "images": len(x),
        "draws": draws,
    }
    if training is None:
        return measured
    fewest = int(np.bincount(training[1], minlength=classes).min())
    if fewest < FEW:
        warnings.warn(
            f"data: expected {FEW} training images of each class or more, got {fewest} of one: with so few a classifier "
            "memorises, and its accuracy on training images says nothing; give more, or fewer classes",
            DoubtWarning, stacklevel=2,
        )  # fmt: skip
    return measured | {"accuracy_training": found["training"], "training_images_a_class": fewest}


def accuracy_steps(objective: Classification) -> np.ndarray:
    """Ten values of t, evenly spread: from 1 to T, or, of a classifier of clean images, from 0."""
    T = objective.schedule.T
    if objective.noised:
        return uniform_steps(T, min(T, STEPS))
    return np.append(0, uniform_steps(T, min(T, STEPS - 1)))


def accuracy_lines(measured: dict[str, Any]) -> dict[str, str]:
    """What `classifier_accuracy` found as a line a t, for people."""
    seen = measured.get("accuracy_training", [None] * len(measured["t"]))
    lines = {
        f"accuracy at t = {t}": f"{share:.4f} ± {error:.4f}" + ("" if own is None else f"   training {own:.4f}")
        for t, share, error, own in zip(
            measured["t"], measured["accuracy"], measured["accuracy_error"], seen, strict=True
        )
    }
    lines["chance"] = f"{measured['chance']:.4f}   1 / {measured['classes']} classes"
    lines["images"] = f"{measured['images']}, each in {measured['draws']} noises"
    if "training_images_a_class" in measured:
        lines["training images"] = f"{measured['training_images_a_class']} of a class, or more"
    return lines


def plot_accuracy(measured: dict[str, Any], path: str | Path) -> None:
    """Draw what `classifier_accuracy` found, over t.   ImportError without matplotlib."""
    t, share, error = (np.array(measured[name]) for name in ("t", "accuracy", "accuracy_error"))
    figure = new_figure(6.4, 3.6)
    axes = figure.add_subplot()
    axes.errorbar(t, share, error, color="C0", linewidth=1.5, marker=".", capsize=2, label="held out")
    if "accuracy_training" in measured:
        axes.plot(t, measured["accuracy_training"], color="C1", linewidth=1, linestyle="--", label="training images")
    axes.axhline(measured["chance"], color="0.6", linewidth=1, linestyle=":", label="chance")
    axes.set(xlabel="t", ylabel="accuracy", ylim=(0, 1.02))
    axes.grid(True, color="0.92")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def _share_right(
    predict: Any, objective: Classification, x: np.ndarray, label: np.ndarray, t: int, key: Key, draws: int, batch: int,
    bar: Progress,
) -> float:  # fmt: skip
    """The share of draws N images at this t that are put into their class."""
    schedule, right = objective.schedule.build(), 0
    draws_here = draws if t else 1  # there is no noise at t = 0
    for first in range(0, len(x) * draws_here, batch):
        ids = np.arange(first, min(first + batch, len(x) * draws_here))
        image = ids % len(x)
        x_t = x[image]
        if t:
            eps = normal(key(f"eps/{t}"), ids, x.shape[1:])
            x_t = q_sample(schedule, x_t, np.full(len(ids), t), eps)
        told = np.full(len(ids), t if objective.noised else 0)
        logits = predict({"x": x_t.astype(np.float32), "t": told})
        right += int((logits.argmax(axis=1) == label[image]).sum())
        bar.update(len(ids) * draws // draws_here)
    return right / (len(x) * draws_here)


def _check(name: str, network: Network, classes: int, x: np.ndarray, label: np.ndarray) -> None:
    shape = inputs(network.config)["x"].shape
    if x.ndim < 2 or not len(x) or x.shape[1:] != shape:
        raise ValueError(f"{name}: expected images (N, {', '.join(map(str, shape))}), got shape {x.shape}")
    if label.shape != (len(x),) or label.dtype.kind not in "iu":
        raise ValueError(f"{name}: expected a label an image, integers ({len(x)},), got {label.dtype} {label.shape}")
    if label.min() < 0 or label.max() >= classes:
        raise ValueError(
            f"{name}: expected labels from 0 to {classes - 1}, the classes of this classifier, got {label.min()} to "
            f"{label.max()}; give the data that it learned from"
        )
