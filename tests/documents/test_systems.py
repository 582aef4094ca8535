"""docs/systems.md: each system has its section, with every field of its objective, and every number that `eval` prints."""

import json
import re
from dataclasses import fields

import pytest
from documents.reading import documents
from documents.running import SYSTEMS, refdiff, short_run
from helpers import ROOT

from refdiff.config import PRESETS
from refdiff.objectives import OBJECTIVES, Objective
from refdiff.systems import system_of

PAGE = documents()["docs/systems.md"]
SECTIONS = {part.partition("\n")[0]: part for part in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]}
OURS = {preset: config for preset, config in PRESETS.items() if system_of(config.objective)}


def module(preset):
    return system_of(OURS[preset].objective).__name__.rpartition(".")[2]


def section(preset):
    """The one that names the file of the preset's system."""
    (found,) = (text for text in SECTIONS.values() if f"`refdiff/systems/{module(preset)}.py`" in text)
    return found


def test_every_system_and_every_preset_of_one_is_in_the_table():
    rows = re.findall(r"^\| \[[^|]*\| `(\w+)\.py` \| ([^|]*) \|", PAGE, re.MULTILINE)
    assert {name: re.findall(r"`([\w-]+)`", presets) for name, presets in rows} == {
        module(preset): [other for other in OURS if module(other) == module(preset)] for preset in OURS
    }
    assert {name for name, _ in rows} == {
        module_.__name__.rpartition(".")[2] for cls in OBJECTIVES.values() if (module_ := _module_of(cls))
    }
    assert set(SYSTEMS.values()) == set(OURS), "the tests of documents have a run of each"


def _module_of(cls):
    """Of a system of ours; tests make others known."""
    found = system_of(cls.__new__(cls))
    return found if found and (ROOT / f"refdiff/systems/{found.__name__.rpartition('.')[2]}.py").exists() else None


@pytest.mark.parametrize("preset", OURS)
def test_a_section_has_every_field_of_the_objective(preset):
    names = {f.name for f in fields(OURS[preset].objective)} - {f.name for f in fields(Objective)}
    assert {name for name in names if f"`objective.{name}`" not in section(preset)} == set()


@pytest.mark.parametrize("run", SYSTEMS)
def test_a_section_has_every_number_that_eval_prints(run, tmp_path, monkeypatch):
    monkeypatch.setattr("refdiff.systems.steps.MEASURED", 100)
    text = section(SYSTEMS[run])
    status, out, err = refdiff(f"refdiff eval {short_run(tmp_path, f'--preset {SYSTEMS[run]}')} --quiet --json")
    assert status == 0, err
    found = json.loads(out)
    table = text[text.index("| `eval` prints |") :].partition("\n\n")[0].splitlines()[2:]
    always = "\n".join(row for row in table if "only where" not in row)
    numbers = {name for name, value in found.items() if name != "step" and not isinstance(value, list)}
    assert numbers <= set(re.findall(r"`(\w+)`", "\n".join(table)))
    assert set(re.findall(r"`(\w+)`", always)) <= numbers
    assert {name for name in set(found) - numbers - {"step"} if f"`{name}`" not in text} == set()
