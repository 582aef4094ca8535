"""Figures of training runs that a document states are those of the JSON in docs/gallery, and each JSON holds together."""

import math
import re

import numpy as np
import pytest
from documents.reading import documents
from documents.said_of_systems import said_of_systems

from benchmarks.gallery.entries import ENTRIES
from benchmarks.gallery.page import PAGE, page, records, shown
from benchmarks.gallery.work import GALLERY, SEEDS, configuration, digest
from refdiff.config import Config

RECORDS = records()
TEXTS = {name: " ".join(text.split()) for name, text in documents().items() if name != "docs/gallery.md"}
# (entry, value, (least, most)): what was promised of the mean over six sampling seeds, or of a single number.
PROMISED = [
    ("digits", "frechet", (0, 0.60)),
    ("classifier", "accuracy_at_t_1", (0.97, 1)),
    ("classifier", "accuracy_of_the_judge", (0.97, 1)),
    ("guidance", "judged_free/0", (0.05, 0.16)),
    ("guidance", "judged_score/0", (0.05, 0.16)),
    ("guidance", "judged_shift/0", (0.05, 0.16)),
    ("guidance", "judged_free/3", (0.95, 1)),
    ("guidance", "judged_score/8", (0.95, 1)),
    ("guidance", "judged_shift/8", (0.95, 1)),
    ("heartbeat", "bound_bits", (np.log2(5), np.log2(5) + 0.3)),
    ("heartbeat", "samples_among_data", (0.9, 1)),
]
# (entry, less, more): of two values of an entry which is to be the lower.
LOWER = [
    ("digits-autoencoder", "squared_error", "principal_components_error"),
    ("digits-vdm", "bits_per_dim", "ddpm_ends_bits_per_dim"),
    ("digits-vdm", "diffusion_variance", "line_diffusion_variance"),
    ("digits-binary", "bound_bits", "independent_bits"),
    ("swissroll-2015", "bound_bits", "fixed_bound_bits"),
    ("mixture-hvae", "bound/2", "bound/1"),
    ("mixture-hvae", "bound/4", "bound/2"),
]
# A sentence with one of these words and a decimal number, or a share of a hundred, quotes a training run.
ABOUT = re.compile(r"Fr[eé]chet distance|\bjudge|bits per dimension on|\bcosts\b.* bits|trained in \d")
FIGURE = re.compile(r"\d\.\d|\d ?%")


def said():
    """(document, sentence) with figures of the gallery."""
    digits = RECORDS["digits"]["values"]
    yield (
        "README.md",
        f"over six sampling seeds, the Frechet distance of {digits['samples']} samples to the held-out digits is "
        f"{digits['frechet']['mean']:.2f} ± {digits['frechet']['deviation']:.2f}, where that of the training digits "
        f"themselves is {digits['frechet_floor']:.2f}",
    )
    own, floor = digits["frechet_class"]["mean"], digits["frechet_class_floor"]
    yield (
        "docs/training.md",
        f"Of `make gallery NAME=digits`, at n = {digits['frechet_class_n']}, the mean over the classes of this Frechet "
        f"distance is {own:.2f} beside a floor of {floor:.2f}.",
    )

    yield from said_of_classifiers()
    yield from said_of_guidance()
    yield from said_of_variances()
    yield from said_of_systems(RECORDS)


def share(number, digits=1):
    return f"{100 * number:.{digits}f} %"


def said_of_classifiers():
    found = RECORDS["classifier"]["values"]
    accuracy, judge, error = (
        found[key] for key in ("accuracy", "accuracy_of_the_judge", "accuracy_of_the_judge_error")
    )
    middle = list(accuracy)[3]
    first, later, last = (accuracy[t]["mean"] for t in ("1", middle, "1000"))
    yield (
        "docs/guidance.md",
        f"`digits-classifier` is right about {share(first)} of the {found['images']} held-out digits at t = 1, about "
        f"{share(later, 0)} at t = {middle} and {share(last, 0)} at t = 1000, where chance is {share(found['chance'], 0)}; "
        f"`digits-judge` about {share(judge)} ± {share(error)} of them, clean.",
    )


def said_of_guidance():
    found = RECORDS["guidance"]["values"]
    kinds, n = ("free", "score", "shift"), found["samples"]
    for scale in found["judged_free"]:
        cells = [shown(found[f"{name}_{kind}"][scale]) for kind in kinds for name in ("judged", "frechet")]
        yield "docs/guidance.md", f"| {scale} | {' | '.join(cells)} |"
    errors = max(error for kind in kinds for error in found[f"judged_error_{kind}"].values())
    yield (
        "docs/guidance.md",
        f"Each number is the mean over six sampling seeds, of {n} samples each, ± the deviation of one; the standard error "
        f"of a share, of all {len(SEEDS) * n:,} samples, is at most {errors:.3f}, and the floor of the Frechet distances, "
        f"at n = {found['frechet_class_n']}, is {found['frechet_class_floor']:.2f}.",
    )
    free, score = found["judged_free"], found["judged_score"]
    yield (
        "README.md",
        f"A judge, a classifier that never guided, sees the class that was asked for in {share(free['3']['mean'])} of the "
        f"samples at scale 3, and in {share(free['0']['mean'])} at scale 0, where nobody was told; guided by a classifier, "
        f"at scale 8, in {share(score['8']['mean'])}.",
    )


def said_of_variances():
    found = RECORDS["learned-variance"]["values"]
    for chain in found["bits_learned"]:
        name = "all 1,000 steps" if chain == "all" else f"25 steps, `{chain.partition(' ')[2]}`"
        bits = [shown(found[f"bits_{variance}"][chain]) for variance in ("learned", "posterior", "beta")]
        yield "docs/adm.md", f"| {name} | {' | '.join(bits)} |"


def every_number(value):
    if isinstance(value, dict):
        for one in value.values():
            yield from every_number(one)
    elif isinstance(value, list):
        yield from value
    else:
        yield value


def spreads(value):
    if isinstance(value, dict):
        if "each" in value:
            yield value
        else:
            for one in value.values():
                yield from spreads(one)


@pytest.mark.parametrize(("document", "sentence"), list(said()))
def test_what_is_said_of_a_run_is_what_its_json_says(document, sentence):
    assert sentence in TEXTS[document]


@pytest.mark.parametrize("document", TEXTS)
def test_no_figure_of_a_run_is_said_without_its_json(document):
    known = [sentence for name, sentence in said() if name == document]
    text = TEXTS[document]
    for sentence in known:
        text = text.replace(sentence, "")
    loose = [s for s in re.split(r"(?<=[.:;|]) ", text) if ABOUT.search(s) and FIGURE.search(s)]
    assert not loose, f"{document}: expected figures of docs/gallery in `said`, got others: {loose}"


def test_every_entry_has_been_made():
    assert set(RECORDS) == set(ENTRIES)


@pytest.mark.parametrize("name", RECORDS)
def test_the_configurations_of_an_entry_are_still_those_of_its_presets(name):
    """As any old configuration is read: keys that came later have their defaults, renamed ones their new names."""
    record = RECORDS[name]
    for run in record["runs"].values():
        assert digest(run["configuration"]) == run["digest"]
        now = configuration(run["preset"], run["changes"])
        assert Config.from_dict(run["configuration"]) == now, f"make gallery NAME={name}"
        assert run["steps"] == now.train.steps
        assert run["seed"] == now.seed


@pytest.mark.parametrize("name", RECORDS)
def test_an_entry_says_how_it_came_about_and_its_spreads_are_of_six_seeds(name):
    record = RECORDS[name]
    assert (record["name"], record["title"]) == (name, ENTRIES[name][0])
    assert record["command"] == f"make gallery NAME={name}"
    assert re.fullmatch(r"[0-9a-f]{40}", record["commit"]), "made of a checkout with changes"
    assert all(run["commit"] == record["commit"] for run in record["runs"].values())
    assert record["seeds"]["sampling"] == list(SEEDS)
    assert all(math.isfinite(number) for number in every_number(record["values"]))
    for found in spreads(record["values"]):
        assert len(found["each"]) == len(SEEDS) == 6
        assert len(set(found["each"])) > 1 or found["deviation"] == 0
        assert found["mean"] == pytest.approx(np.mean(found["each"]))
        assert found["deviation"] == pytest.approx(np.std(found["each"], ddof=1))


def test_each_picture_is_of_an_entry():
    named = {picture for record in RECORDS.values() for picture in record["pictures"]}
    assert all(record["pictures"] for record in RECORDS.values())
    assert {path.name for path in GALLERY.iterdir()} == named | {f"{name}.json" for name in RECORDS}


@pytest.mark.parametrize(("name", "key", "bounds"), PROMISED)
def test_what_was_promised_is_kept(name, key, bounds):
    assert bounds[0] <= mean_of(name, key) <= bounds[1]


def mean_of(name, key):
    value = RECORDS[name]["values"]
    for part in key.split("/"):
        value = value[part]
    return value["mean"] if isinstance(value, dict) else value


@pytest.mark.parametrize(("name", "less", "more"), LOWER)
def test_what_is_to_be_lower_is(name, less, more):
    assert mean_of(name, less) < mean_of(name, more)


def test_the_inside_of_a_schedule_changes_no_bound():
    """Within three standard errors of both, of one seed each, of the mean over the seeds."""
    found = RECORDS["digits-vdm"]["values"]
    apart = found["diffusion_bits"]["mean"] - found["line_diffusion_bits"]["mean"]
    errors = [found[f"{name}_bits_error"]["mean"] for name in ("diffusion", "line_diffusion")]
    assert abs(apart) < 3 * math.hypot(*errors) / len(SEEDS) ** 0.5


@pytest.mark.parametrize("name", ["digits-autoencoder", "digits-vae", "digits-hvae", "digits-vdm", "heartbeat",
                                  "digits-binary", "swissroll-2015"])  # fmt: skip
def test_a_preset_of_a_system_is_trained_in_five_minutes(name):
    assert RECORDS[name]["runs"][name]["seconds"] < 300


@pytest.mark.parametrize("chain", ["all", "25 quadratic", "25 trailing"])
def test_the_learned_variance_gives_fewer_bits_than_either_fixed_one(chain):
    """By more than the deviations of single seeds; of 25 uniform steps docs/adm.md says why hardly."""
    learned, *others = (
        RECORDS["learned-variance"]["values"][f"bits_{name}"][chain] for name in ("learned", "posterior", "beta")
    )
    assert all(other["mean"] - learned["mean"] > other["deviation"] + learned["deviation"] for other in others)


def test_without_guidance_every_kind_of_it_draws_the_same_digits():
    """Of DDIM to the bit; classes are then asked for in vain."""
    found = RECORDS["guidance"]["values"]
    assert found["judged_free"]["0"] == found["judged_score"]["0"]
    assert found["frechet_free"]["0"] == found["frechet_score"]["0"]


def test_the_page_is_up_to_date():
    assert PAGE.read_text() == page(RECORDS), "run python -m benchmarks.gallery"
