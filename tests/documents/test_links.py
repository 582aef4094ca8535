"""Links lead somewhere, and the files that a document names are there."""

import re

import pytest
from documents.reading import documents
from helpers import ROOT

TEXTS = documents() | {"CHANGELOG.md": (ROOT / "CHANGELOG.md").read_text()}
FOLDERS = ("refdiff/", "kernels/", "tests/", "benchmarks/", "docs/", "examples/")
# Of the wheel; what a GPU is yet to measure; what the reader is about to write.
NOT_HERE = ("refdiff/_kernels", "refdiff/engines/cuda/tiles/", "kernels/scale_add.cu")


def heading(line):
    """The anchor that readers of Markdown give a heading."""
    return re.sub(r"[^\w\- ]", "", line.lower()).strip().replace(" ", "-")


@pytest.mark.parametrize("document", TEXTS)
def test_links_lead_somewhere(document):
    text = re.sub(r"```.*?```", "", TEXTS[document], flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        path = (ROOT / document).parent / name if name else ROOT / document
        assert path.exists(), f"{document}: {target}"
        if anchor:
            assert anchor in [heading(h) for h in re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)], target


@pytest.mark.parametrize("document", TEXTS)
def test_files_that_are_named_are_there(document):
    for name in re.findall(r"`([\w./-]+/[\w./-]*)`", TEXTS[document]):
        if name.startswith(FOLDERS) and name not in NOT_HERE:
            assert (ROOT / name).exists() or (ROOT / document).parent.joinpath(name).exists(), f"{document}: {name}"


@pytest.mark.parametrize("document", ["docs/cpu.md"])
def test_modules_in_brackets_are_there(document):
    for name in re.findall(r"[(,] ?`([\w/]+\.py)`", TEXTS[document]):
        if not name.startswith(FOLDERS):
            assert (ROOT / "refdiff/engines/cpu" / name).exists(), name
