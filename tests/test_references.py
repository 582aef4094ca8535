"""Each key cited in the code stands in docs/references.md, and each that stands there is cited."""

import re
import tokenize
from pathlib import Path

ROOT = Path(__file__).parent.parent


def prose(path: Path) -> str:
    """The comments and strings of a Python file."""
    with tokenize.open(path) as file:
        tokens = list(tokenize.generate_tokens(file.readline))
    return "\n".join(token.string for token in tokens if token.type in (tokenize.COMMENT, tokenize.STRING))


def test_citations_and_references_agree():
    listed = set(re.findall(r"^\| \[(\w+)\]", (ROOT / "docs/references.md").read_text(), re.MULTILINE))
    cited = {key for path in (ROOT / "refdiff").rglob("*.py") for key in re.findall(r"\[([A-Z]\w+)\]", prose(path))}
    assert len(listed) > 20
    assert cited - listed == set(), "cited but not listed in docs/references.md"
    assert listed - cited == set(), "listed but cited nowhere"
