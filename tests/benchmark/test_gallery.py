"""The gallery's command, with runs of a few steps: what it writes, what it takes up again, what it refuses."""

import json

import numpy as np
import pytest

from benchmarks.gallery import work
from benchmarks.gallery.__main__ import main
from benchmarks.gallery.entries import ENTRIES
from benchmarks.gallery.page import page, records, shown
from benchmarks.gallery.work import SEEDS, Work, configuration, digest, spread
from refdiff.config import Config

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
