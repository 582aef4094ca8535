"""What is cited stands in docs/references.md, is the source of a claim, and was checked or is marked as not."""

import re
import tokenize
from functools import cache
from pathlib import Path

import pytest
from helpers import ROOT

from refdiff.testing import claims
from refdiff.testing.citations import PROVABLE, Citation, citations, homeless
from refdiff.testing.claim import CLAIMS

ROWS = re.findall(r"^\| \[(\w+)\] \|.*\|(.*)\|(.*)\|$", (ROOT / "docs/references.md").read_text(), re.MULTILINE)
LISTED = {key for key, *_ in ROWS}
MADE = {
    "equations.md",
    "errata.md",
    "from-vae-to-diffusion.md",
    "references.md",
}  # from the claims, and the list itself


def prose(path: Path) -> str:
    """The comments and strings of a Python file, other files whole."""
    if path.suffix != ".py":
        return path.read_text()
    with tokenize.open(path) as file:
        tokens = list(tokenize.generate_tokens(file.readline))
    return "\n".join(token.string for token in tokens if token.type in (tokenize.COMMENT, tokenize.STRING))


@cache
def everything_that_cites():
    """By name: the library, the kernels and the pages written by hand. Not the parser, whose examples cite nothing."""
    python = [path for path in (ROOT / "refdiff").rglob("*.py") if path.name != "citations.py"]
    kernels = [path for path in (ROOT / "kernels").rglob("*") if path.suffix in (".cu", ".cuh", ".md")]
    pages = [path for path in (ROOT / "docs").glob("*.md") if path.name not in MADE]
    return {str(path.relative_to(ROOT)): prose(path) for path in (*python, *kernels, *pages, ROOT / "README.md")}


def places(texts):
    """All citations in these texts, of works that are listed; kernels have brackets that are none."""
    return {citation for text in texts for citation in citations(text) if citation.key in LISTED}


def unclaimed(texts, all_claims):
    """What says something and is cited, but is the source of no claim."""
    sources = places(claim.source for claim in all_claims)
    return {str(citation) for citation in places(texts) - sources if citation.kind in PROVABLE}


def test_citations_and_references_agree():
    cited = {key for path in (ROOT / "refdiff").rglob("*.py") for key in re.findall(r"\[([A-Z]\w+)\]", prose(path))}
    assert len(LISTED) > 20
    assert cited - LISTED == set(), "cited but not listed in docs/references.md"
    assert LISTED - cited == set(), "listed but cited nowhere"


def test_every_equation_that_is_cited_is_the_source_of_a_claim():
    texts = everything_that_cites().values()
    assert claims.operations is not None
    assert len({str(c) for c in places(texts) if c.kind in PROVABLE}) > 40
    assert unclaimed(texts, CLAIMS) == set()


def test_every_work_is_the_source_of_a_claim():
    assert LISTED - {citation.key for citation in places(claim.source for claim in CLAIMS)} == set()


def test_the_source_of_a_claim_can_be_read():
    assert [claim.name for claim in CLAIMS if not citations(claim.source)] == []
    assert [claim.name for claim in CLAIMS if homeless(claim.source)] == []


def test_an_equation_without_a_claim_is_found():
    assert unclaimed(['"""The loss.   [DDPM] eq. 99"""'], CLAIMS) == {"[DDPM] eq. 99"}
    assert unclaimed(["// the step of [AdamW]\n// algorithms 2 and 3"], CLAIMS) == {"[AdamW] algorithm 3"}
    without = [claim for claim in CLAIMS if claim.source != "[SGDR] eq. 5"]
    assert len(without) == len(CLAIMS) - 1
    assert unclaimed(everything_that_cites().values(), without) == {"[SGDR] eq. 5"}


def test_no_number_stands_without_its_work():
    assert {name: found for name, text in everything_that_cites().items() if (found := homeless(text))} == {}


def test_each_cited_number_was_checked_or_is_marked():
    cited = {c for c in places([*everything_that_cites().values(), *(claim.source for claim in CLAIMS)]) if c.number}
    checked = places(f"[{key}] {cell.strip()}" for key, cell, _ in ROWS)
    marked = places(f"[{key}] {cell.strip()}" for key, _, cell in ROWS)
    checked, marked = ({c for c in found if c.number} for found in (checked, marked))
    assert {str(c) for c in cited - checked - marked} == set(), "in neither of the last columns of docs/references.md"
    assert {str(c) for c in checked & marked} == set()
    assert {str(c) for c in (checked | marked) - cited} == set(), "in docs/references.md, but cited nowhere"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x_t   [DDPM] eq. 4   (N, ...) -> same", {("DDPM", "eq.", "4")}),
        ("[DDPM] eqs. 6 and 7.", {("DDPM", "eq.", "6"), ("DDPM", "eq.", "7")}),
        ("[Luo22] eqs. 45, 58", {("Luo22", "eq.", "45"), ("Luo22", "eq.", "58")}),
        ("[DDPM] eqs. 6 to 8, 11, and algorithm 2",
         {("DDPM", "eq.", n) for n in ("6", "7", "8", "11")} | {("DDPM", "algorithm", "2")}),
        ("[DPMpp] prop. 4.1", {("DPMpp", "proposition", "4.1")}),
        ("[ADM] eq. 14, algorithm 2\n\n    prediction: of", {("ADM", "eq.", "14"), ("ADM", "algorithm", "2")}),
        ("the rate's\n// schedule [SGDR]\n// eq. 5 and", {("SGDR", "eq.", "5")}),
        ("[DDIM] appendix D.2; [PD] appendix D: v", {("DDIM", "appendix", "D.2"), ("PD", "appendix", "D")}),
        ("[Frechet] [FID] eq. 6.", {("Frechet", "", ""), ("FID", "eq.", "6")}),
        ("[Luo22] section 'Variational diffusion models'", {("Luo22", "section", "Variational diffusion models")}),
        ("[ADM] and eq. 3", {("ADM", "", "")}),
        ("two of x[i] and 3 more", set()),
    ],
)  # fmt: skip
def test_a_citation_is_read_as_it_is_written(text, expected):
    assert citations(text) == {Citation(*c) for c in expected}


def test_a_number_alone_is_no_citation():
    assert homeless("[IDDPM] eq. 15, the loss of eq. 16") == ["eq. 16"]
    assert homeless("[IDDPM] eqs. 15 and 16; see section 2") == []
    with pytest.raises(ValueError, match="expected whole numbers that rise, got 8 to 6"):
        citations("[DDPM] eqs. 8 to 6")
