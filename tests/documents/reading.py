"""What the documents tell a reader to run: their fenced blocks, and the commands in them and in their sentences.

A document says in comments what becomes of a block that a test cannot simply run:

    <!-- not run: needs an NVIDIA GPU -->                       and a reason
    <!-- run in peers: needs diffusers -->                      by `make peers`
    <!-- run by tests/kernels/test_progress.py: on the emulator -->
    <!-- run with train.steps=3 in place of train.steps=1500 -->
    <!-- file mine.py -->                                       other blocks of the document find it under this name
    <!-- excerpt of refdiff/process/posterior.py -->            it stands there line by line

Such a comment speaks of the block that follows it; between a heading and words, of every block of the section; and with the
beginning of a command in brackets, <!-- not run (make bench): takes 25 minutes -->, of those commands, wherever the document
has them. What is put in the place of files, runs and minutes stands in `running`, in one place for all documents.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from helpers import ROOT

KINDS = ("not run", "run in peers", "run by", "run with", "file", "excerpt of")
PROGRAMS = ("refdiff", "make", "python", "python3", "pip", ".venv/bin/python")
SHELL = ("", "sh", "bash", "console")


@dataclass(frozen=True)
class Mark:
    """What a comment says: one of KINDS, the commands it is about ("" for a block), and the rest."""

    kind: str
    command: str
    detail: str


@dataclass(frozen=True)
class Block:
    """A fenced block: its first line is `line` of the document."""

    document: str
    line: int
    language: str
    text: str
    marks: tuple[Mark, ...] = ()

    def __str__(self) -> str:
        return f"{self.document}:{self.line} {self.language or 'sh'}"


@dataclass(frozen=True)
class Command:
    """One line for a shell, from a block or between backticks in a sentence."""

    document: str
    line: int
    text: str
    marks: tuple[Mark, ...] = ()
    inline: bool = False

    def __str__(self) -> str:
        return f"{self.document}:{self.line} {self.text}"


def documents() -> dict[str, str]:
    """The text of each, by its path from the root."""
    paths = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("*/README.md"))]
    return {path.relative_to(ROOT).as_posix(): path.read_text() for path in paths}


def read(document: str, text: str) -> tuple[list[Block], list[Command]]:
    """The blocks and the commands of a document.   ValueError for a comment of another form, or about nothing."""
    blocks: list[Block] = []
    everywhere: list[Mark] = []  # with brackets
    sections: list[tuple[int, Mark]] = []  # (level of its heading, mark)
    pending: list[Mark] = []
    level, heading = 0, False  # the last heading's, and whether nothing but comments came after it
    for line, kind, words in _parts(document, text):
        if kind == "comment":
            mark = _mark(f"{document}:{line}", words)
            (everywhere if mark.command else pending).append(mark)
            continue
        if kind == "block":
            language, _, body = words.partition("\n")
            marks = (*pending, *(mark for _, mark in sections))
            blocks.append(Block(document, line + 1, language.strip(), body, marks))
            pending = []
        elif pending:
            if not heading:
                raise ValueError(f"{document}:{line}: expected a block under the comment above, or a heading over it")
            sections += [(level, mark) for mark in pending]
            pending = []
        heading = kind == "heading"
        if heading:
            level = len(words) - len(words.lstrip("#"))
            sections = [(k, mark) for k, mark in sections if k < level]
    commands = [
        Command(document, block.line + k, command, block.marks)
        for block in blocks
        if block.language in SHELL
        for k, command in _of_shell(block.text)
    ] + _of_sentences(document, text)
    if unused := [m for m in everywhere if not any(c.text.startswith(m.command) for c in commands)] + pending:
        raise ValueError(f"{document}: these comments are about nothing: {unused}")
    own = [tuple(m for m in everywhere if c.text.startswith(m.command)) for c in commands]
    return blocks, [replace(c, marks=(*marks, *c.marks)) for c, marks in zip(commands, own, strict=True)]


def _parts(document: str, text: str) -> Iterator[tuple[int, str, str]]:
    """(number of its first line, what it is, its text) of each block, comment, heading and line that is not empty."""
    lines = iter(enumerate(text.split("\n"), 1))
    for number, line in lines:
        if line.startswith("```"):
            body = []
            for _, more in lines:
                if more.rstrip() == "```":
                    break
                body.append(more + "\n")
            else:
                raise ValueError(f"{document}:{number}: a block without an end")
            yield number, "block", line[3:] + "\n" + "".join(body)
        elif line.startswith("<!--"):
            words = line
            while "-->" not in words:
                words += " " + next(lines, (0, "-->"))[1]
            yield number, "comment", words
        elif line.strip():
            yield number, "heading" if re.match("#+ ", line) else "words", line


def _of_shell(text: str) -> list[tuple[int, str]]:
    """(line, command) of a block, continued lines joined: what stands before a comment, or two spaces and an explanation."""
    commands, start, whole = [], 0, ""
    for k, line in enumerate(text.split("\n")):
        start, whole = (start, f"{whole} {line.strip()}") if whole else (k, line.strip())
        if whole.endswith("\\"):
            whole = whole[:-1].rstrip()
            continue
        if command := re.split(r"\s{2,}|\s#", whole)[0]:
            commands.append((start, command))
        whole = ""
    return commands


def _of_sentences(document: str, text: str) -> list[Command]:
    """The commands between backticks, outside of blocks and comments."""
    text = re.sub(r"^```.*?^```|^<!--.*?-->", lambda m: "\n" * m[0].count("\n"), text, flags=re.DOTALL | re.MULTILINE)
    found = [(text[: m.start()].count("\n") + 1, " ".join(m[1].split())) for m in re.finditer(r"`([^`]+)`", text)]
    return [Command(document, k, c, inline=True) for k, c in found if c.split(" ")[0] in PROGRAMS and " " in c]


def _mark(where: str, comment: str) -> Mark:
    words = " ".join(comment.removeprefix("<!--").partition("-->")[0].split())
    found = re.fullmatch(rf"({'|'.join(KINDS)})(?: \((.+?)\))?:? +(.+)", words)
    if not found:
        raise ValueError(f"{where}: expected a comment of tests/documents/reading.py, got {words!r}")
    return Mark(found[1], found[2] or "", found[3])
