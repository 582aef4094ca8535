"""The entries of the gallery, a function each: what is trained, what is measured over six seeds, which pictures are made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.gallery.work import SEEDS, Work, spread
from refdiff.data import load
from refdiff.evaluation import evaluate
from refdiff.sampling import sample
from refdiff.training import every_class, trained
from refdiff.training.demo import save_classes

__all__ = ["ENTRIES"]

Entry = Callable[[Work], None]
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
