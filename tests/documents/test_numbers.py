"""Numbers and lists that a sentence states and the code knows: README, CHANGELOG and docs say what is so."""

import re
from importlib import import_module

import numpy as np
import pytest
from documents.reading import documents
from helpers import ROOT

from refdiff import models
from refdiff.benchmark import harness
from refdiff.config import PRESETS
from refdiff.data import load
from refdiff.engines.cpu import winograd
from refdiff.engines.cpu.runtime import captured
from refdiff.engines.cuda.runtime.device import Device
from refdiff.process import SCHEDULES, SPACINGS
from refdiff.sampling.settings import METHODS as SAMPLERS
from refdiff.testing.report import CLAIMS
from refdiff.testing.scheduler import SCHEDULER_METHODS

TEXTS = {name: " ".join(text.split()) for name, text in (documents() | {"CHANGELOG.md": ""}).items()}
TEXTS["CHANGELOG.md"] = " ".join((ROOT / "CHANGELOG.md").read_text().split())
WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def public(cls):
    return [name for name in vars(cls) if not name.startswith("_") and callable(getattr(cls, name))]


def said():
    """(document, words that it must hold), with the number from where it comes from."""
    digits = load("digits")
    yield "README.md", f"trains on {len(digits.x):,} handwritten digits"
    yield "CHANGELOG.md", f"{WORDS[len(SCHEDULER_METHODS)]} methods"
    yield "docs/verify-your-own.md", f"at most {WORDS[len(SCHEDULER_METHODS)]} methods"
    yield "docs/kernels.md", f"(`refdiff/engines/cuda/runtime/device.py`, {WORDS[len(public(Device))]} methods)"
    yield "docs/benchmarks.md", f"a rest of {1000 * harness.SETTLE:.0f} ms"
    yield "docs/benchmarks.md", f"less than {1000 * harness.WARM:.0f} ms"
    yield "docs/cpu.md", f"up to {winograd.CACHE_BYTES >> 20} MiB"
    yield "docs/cpu.md", f"a buffer of {np.getbufsize():,} numbers"
    yield "docs/cpu.md", f"it is {captured.BUFFER:,}"
    for name in ("cifar10", "celebahq256"):
        yield "CHANGELOG.md", f"({models.count(models.layout(PRESETS[name].model)):,}"
    for name in [*SPACINGS, *SAMPLERS]:
        yield "docs/training.md", f"`{name}`"
    for name in SCHEDULES:
        yield "CHANGELOG.md", name.replace("_", " ")


@pytest.mark.parametrize(("document", "words"), list(said()))
def test_what_is_said_is_so(document, words):
    assert words in TEXTS[document]


def test_there_are_more_than_a_hundred_claims():
    assert "There are more than a hundred" in TEXTS["README.md"]
    assert len(CLAIMS) > 100


def test_the_models_use_what_changelog_says_they_use():
    models = "".join(path.read_text() for path in (ROOT / "refdiff/models").rglob("*.py"))
    for name in re.search(r"`(\w+)` and `(\w+)`, which the models use", TEXTS["CHANGELOG.md"]).groups():
        assert f"engine.{name}(" in models
        assert hasattr(import_module("refdiff.engines.reference"), name)
