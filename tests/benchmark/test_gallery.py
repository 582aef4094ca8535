"""The gallery's command, with runs of a few steps: what it writes, what it takes up again, what it refuses."""

import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.gallery import entries, work
from benchmarks.gallery.__main__ import main
from benchmarks.gallery.entries import ENTRIES
from benchmarks.gallery.page import page, records, shown
from benchmarks.gallery.work import SEEDS, Work, configuration, digest, spread
from refdiff.config import Config
from refdiff.data import load

SMALL = ["model.width=8", "train.batch=8", "train.steps=2", "train.warmup=1", "train.grid_every=0", "sample.steps=2"]


@pytest.fixture
def options(tmp_path):
    return [
        "--out",
        str(tmp_path / "gallery"),
        "--runs",
        str(tmp_path / "runs"),
        "--quiet",
        *(f"--set={c}" for c in SMALL),
    ]


@pytest.fixture
def commit(monkeypatch):
    """Of a checkout without changes, with this name."""

    def at(name):
        monkeypatch.setattr(work, "versions", lambda: {"commit": name})

    at("a" * 40)
    return at


def test_an_entry_writes_its_json_its_picture_and_the_page(options, tmp_path, commit):
    assert main(["digits", *options]) == 0
    record = json.loads((tmp_path / "gallery/digits.json").read_text())
    assert record["command"] == "make gallery NAME=digits"
    assert record["commit"] == "a" * 40
    assert list(record["pictures"]) == ["digits.png"]
    assert (tmp_path / "gallery/digits.png").stat().st_size > 1000
    run = record["runs"]["digits-classes"]
    assert run["changes"] == SMALL
    assert run["steps"] == 2
    assert run["digest"] == digest(run["configuration"])
    assert Config.from_dict(run["configuration"]) == configuration("digits-classes", SMALL)
    found = record["values"]["frechet"]
    assert len(set(found["each"])) == len(SEEDS)
    assert found["mean"] > 5  # two steps teach nothing
    assert set(record["values"]["frechet_of_class"]) == set(map(str, range(10)))
    text = (tmp_path / "gallery.md").read_text()
    assert text == page(records(tmp_path / "gallery"))
    assert shown(found) in text
    assert "gallery/digits.png" in text


@pytest.fixture
def few(monkeypatch):
    """Two seeds, few digits held out, networks that are narrow: what the other entries take seconds for."""
    digits = load("digits")
    small = replace(digits, held_out=digits.held_out[::9], held_out_labels=digits.held_out_labels[::9])
    monkeypatch.setattr(entries, "load", lambda name: small)
    monkeypatch.setattr(entries, "SEEDS", (0, 1))
    monkeypatch.setattr(entries, "GUIDED", 20)

    def narrow(preset, changes):
        name = "denoiser" if preset in ("digits", "digits-classes") else "classifier"
        return configuration(preset, [*changes, f"networks.{name}.width=8"])

    monkeypatch.setattr(work, "configuration", narrow)
    return small


@pytest.mark.parametrize("name", ["classifier", "guidance", "learned-variance"])
def test_the_other_entries_write_what_they_measure(name, few, tmp_path, commit):
    small = ["schedule.T=30", "schedule.kind=cosine", "train.steps=1", "train.batch=8", "sample.steps=2"]
    folder = tmp_path / "gallery"
    shared = ["--out", str(folder), "--runs", str(tmp_path / "runs"), "--quiet"]
    assert main([name, *shared, *(f"--set={c}" for c in small)]) == 0
    record = json.loads((folder / f"{name}.json").read_text())
    values = record["values"]
    assert all((folder / picture).stat().st_size > 1000 for picture in record["pictures"])
    if name == "classifier":
        assert set(record["runs"]) == {"digits-classifier", "digits-judge"}
        assert values["accuracy_at_t_1"] == values["accuracy"]["1"]
        assert list(values["accuracy"]) == list(values["accuracy_training"])
        assert len(values["accuracy"]) == 10
        assert values["images"] == len(few.held_out)
    elif name == "guidance":
        assert len(record["pictures"]) == 2
        assert values["judged_free"]["0"] == values["judged_score"]["0"]  # no guidance is no guidance
        assert values["frechet_free"]["0"] == values["frechet_score"]["0"]
        assert values["frechet_score"]["8"] != values["frechet_score"]["0"] != values["frechet_shift"]["0"]
        assert values["frechet_class_n"] == 2
        assert all(list(values[key]) == ["0", "1", "3", "8"] for key in values if "_free" in key or "_shift" in key)
    else:
        assert list(values["bits_learned"]) == list(values["bits_beta"]) == list(entries.CHAINS)
        assert values["bits_learned"]["all"] != values["bits_posterior"]["all"]
        changes = record["runs"]["digits"]["changes"]
        assert "objective.variance=learned" in changes


def test_a_finished_run_of_this_commit_is_taken_up_and_others_are_not(tmp_path, commit, capsys):
    def weights(changes=()):
        made = Work("digits", "", tmp_path / "g", tmp_path / "r", [*SMALL, *changes], progress=False)
        made.train("digits-classes")
        trained = "training digits-classes, 2 steps" in capsys.readouterr().out
        return trained, made.record["runs"]["digits-classes"]["commit"]

    assert weights() == (True, "a" * 40)
    assert weights() == (False, "a" * 40)
    assert weights(["seed=1"]) == (True, "a" * 40)
    commit("b" * 40)
    assert weights() == (True, "b" * 40)
    commit("b" * 40 + "+")
    assert weights() == (True, "b" * 40 + "+")
    assert weights() == (True, "b" * 40 + "+")  # who knows what the changes are


def test_the_spread_of_numbers_and_of_dictionaries():
    each = [1.0, 2.0, 4.0]
    assert spread(each) == {"mean": np.mean(each), "deviation": np.std(each, ddof=1), "each": each}
    assert spread([{3: x} for x in each]) == {"3": spread(each)}
    assert shown(spread(each)) == "2.333 ± 1.528"


def test_a_name_that_is_no_entry_is_refused_before_anything_is_trained(options, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["digits", "digitz", *options])
    assert f"expected one of {', '.join(ENTRIES)}, got 'digitz'" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
