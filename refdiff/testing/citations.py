"""What is cited: the keys of docs/references.md with the equations, algorithms, sections ... named after them.

    citations("[DDPM] eqs. 6 and 7, algorithm 2; [Adam] algorithm 1")
    -> {[DDPM] eq. 6, [DDPM] eq. 7, [DDPM] algorithm 2, [Adam] algorithm 1}

One grammar for docstrings, comments of kernels, pages and the `source` of a claim, which is why the two can be compared:
a key in brackets, then nothing, or places separated by commas and "and". A place is a word (eq., eqs., algorithm,
section ..., also in the plural) and its numbers, separated the same way or by "to", which stands for all between.
A number is 5, 1.4, 3a or D.2, of an appendix a letter; a section without a number is named in quotes.
"""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["PROVABLE", "Citation", "citations", "homeless"]

PLACES = {
    "eq.": "eq.", "eqs.": "eq.", "equation": "eq.", "equations": "eq.", "algorithm": "algorithm",
    "algorithms": "algorithm", "prop.": "proposition", "proposition": "proposition", "propositions": "proposition",
    "lemma": "lemma", "theorem": "theorem", "section": "section", "sections": "section", "appendix": "appendix",
    "table": "table", "figure": "figure",
}  # fmt: skip
PROVABLE = ("eq.", "algorithm", "proposition", "lemma", "theorem")  # what says something; a section only is where

_NUMBER = r"(?:\d+(?:\.\d+)*[a-z]?|[A-Z](?:\.\d+)*|'[^']+')(?![\w'])"
_JOIN = r"(?:, and |, | and | to )"
_PLACE = rf"(?:{'|'.join(map(re.escape, sorted(PLACES, key=len, reverse=True)))}) {_NUMBER}(?:{_JOIN}{_NUMBER})*"
_CITED = re.compile(rf"\[([A-Z]\w+)\](?:,? ({_PLACE}(?:(?:, and |, | and ){_PLACE})*))?")
_ALONE = re.compile(rf"(?<![\w.])(?:eqs?\.|algorithms?|proposition|lemma) {_NUMBER}")


class Citation(NamedTuple):
    """key: of docs/references.md; kind: eq., algorithm, section ..., "" for the work as a whole; number: as printed."""

    key: str
    kind: str = ""
    number: str = ""

    def __str__(self) -> str:
        return " ".join(filter(None, (f"[{self.key}]", self.kind, self.number)))


def citations(text: str) -> set[Citation]:
    """All that a text cites; line breaks and comment signs between the words do not matter."""
    found = set()
    for key, places in _CITED.findall(_one_line(text)):
        found |= _places(key, places) if places else {Citation(key)}
    return found


def homeless(text: str) -> list[str]:
    """Equations, algorithms, propositions and lemmas of no work: "eq. 16" with no key in front."""
    return _ALONE.findall(_CITED.sub(" ", _one_line(text)))


def _places(key: str, places: str) -> set[Citation]:
    found, kind = set(), ""
    for part in re.split(r", and |, | and ", places):
        word, _, rest = part.partition(" ")
        if word in PLACES:
            kind, part = PLACES[word], rest
        first, _, last = part.partition(" to ")
        if last and not (first.isdecimal() and last.isdecimal() and int(first) < int(last)):
            raise ValueError(f"[{key}] {places}: expected whole numbers that rise, got {part}")
        numbers = [str(n) for n in range(int(first), int(last) + 1)] if last else [part.strip("'")]
        found |= {Citation(key, kind, number) for number in numbers}
    return found


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"\n\s*(?://|#)\s?", "\n", text))
