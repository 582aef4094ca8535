"""What the documents tell a reader to run: their fenced blocks, and the commands in them and in their sentences.

A document says in comments what becomes of a block that a test cannot simply run:

    <!-- not run: needs an NVIDIA GPU -->                       and a reason
    <!-- run in peers: needs diffusers -->                      by `make peers`
    <!-- run by tests/kernels/test_progress.py: on the emulator -->
    <!-- run with train.steps=3 in place of train.steps=1500 -->
    <!-- file mine.py -->                                       other blocks of the document find it under this name
    <!-- excerpt of refdiff/process/posterior.py -->            it stands there line by line

Such a comment speaks of the block under it; under a heading, of every block of the section; and with the beginning of a
command in brackets, <!-- not run (make bench): takes 25 minutes -->, of those commands wherever the document has them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).parents[2]
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
    """The blocks and the commands of a document.   ValueError for a comment that is none of the above or is about nothing."""
    lines = text.split("\n")
    blocks: list[Block] = []
    commands: list[Command] = []
    everywhere: list[Mark] = []  # marks with brackets
    section: list[tuple[int, Mark]] = []  # (level of its heading, mark)
    pending: list[Mark] = []
    level = 0
    after_heading = False
    prose: list[str] = []  # the same lines without blocks and comments
    i = 0
    while i < len(lines):
        line = lines[i]
        if line.startswith("```"):
            end = next((k for k in range(i + 1, len(lines)) if lines[k].rstrip() == "```"), None)
            if end is None:
                raise ValueError(f"{document}:{i + 1}: a block without an end")
            body = "\n".join(lines[i + 1 : end]) + "\n"
            marks = (*pending, *(mark for _, mark in section))
            blocks.append(Block(document, i + 2, line[3:].strip(), body, marks))
            pending, after_heading = [], False
            prose += [""] * (end + 1 - i)
            i = end + 1
            continue
        if line.startswith("<!--"):
            end = next((k for k in range(i, len(lines)) if "-->" in lines[k]), len(lines) - 1)
            mark = _mark(f"{document}:{i + 1}", " ".join(lines[i : end + 1]))
            (everywhere if mark.command else pending).append(mark)
            prose += [""] * (end + 1 - i)
            i = end + 1
            continue
        if line.strip() and pending:
            if not after_heading:
                raise ValueError(f"{document}:{i}: expected a block under this comment or a heading above it")
            section += [(level, mark) for mark in pending]
            pending = []
        if heading := re.match(r"(#+) ", line):
            level = len(heading[1])
            section = [(k, mark) for k, mark in section if k < level]
            after_heading = True
        elif line.strip():
            after_heading = False
        prose.append(line)
        i += 1
    for block in blocks:
        if block.language in SHELL:
            commands += [Command(document, block.line + k, c, block.marks) for k, c in _of_shell(block.text)]
    for found in re.finditer(r"`([^`]+)`", "\n".join(prose)):
        words = " ".join(found[1].split())
        if words.split(" ")[0] in PROGRAMS and " " in words:
            line_of = "\n".join(prose)[: found.start()].count("\n") + 1
            commands.append(Command(document, line_of, words, inline=True))
    unused = set(everywhere)
    for k, command in enumerate(commands):
        own = [mark for mark in everywhere if command.text.startswith(mark.command)]
        unused -= set(own)
        commands[k] = replace(command, marks=(*own, *command.marks))
    if unused or pending:
        raise ValueError(f"{document}: these comments are about nothing: {[*unused, *pending]}")
    return blocks, commands


def _of_shell(text: str) -> list[tuple[int, str]]:
    """(line, command) of a block: what stands before a comment or before two spaces and an explanation."""
    lines = enumerate(text.split("\n"))
    return [(k, command) for k, line in lines if (command := re.split(r"\s{2,}|\s#", line.strip())[0])]


def _mark(where: str, comment: str) -> Mark:
    words = " ".join(comment.removeprefix("<!--").partition("-->")[0].split())
    found = re.fullmatch(rf"({'|'.join(KINDS)})(?: \((.+?)\))?:? +(.+)", words)
    if not found:
        raise ValueError(f"{where}: expected a comment of tests/documents/reading.py, got {words!r}")
    return Mark(found[1], found[2] or "", found[3])
