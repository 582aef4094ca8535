"""Every command and every block of code of README.md, of docs/ and of `refdiff --help` is run, here or by the test that its
document names; what cannot be run says why. `running` has the replacements, `reading` the form of the comments."""

import ast
import re
import sys
import tomllib
from collections import Counter
from functools import cache

import pytest
from documents.reading import documents as all_documents
from documents.reading import read
from documents.running import (
    TOOLS,
    extras,
    files,
    importing_here,
    make_targets,
    mentioned,
    prepare,
    refdiff,
    registering,
    replaced,
    same_output,
    short_run,
    smaller,
    unknown,
    wrong,
)
from helpers import ROOT

from refdiff.cli import EPILOG

HELP = f"""\
<!-- run in peers (refdiff audit diffusers): needs diffusers -->
```sh
{EPILOG.removeprefix("examples:").strip()}
```
"""
DOCUMENTS = {**all_documents(), "refdiff --help": re.sub(r"^ +", "", HELP, flags=re.MULTILINE)}
READ = {name: read(name, text) for name, text in DOCUMENTS.items()}
BLOCKS = [block for blocks, _ in READ.values() for block in blocks]
COMMANDS = [command for _, commands in READ.values() for command in commands]
ELSEWHERE = ("not run", "run in peers", "run by")


def marked(things, kind):
    return [(thing, mark) for thing in things for mark in thing.marks if mark.kind == kind]


def here(things):
    return [thing for thing in things if not any(mark.kind in ELSEWHERE for mark in thing.marks)]


def beginning(*programs):
    return [c for c in here(COMMANDS) if c.text.split(" ")[0] in programs]


def cases(things):
    """Parameters; the same words in two documents are one case where neither replaces anything."""
    seen = {(getattr(thing, "text", ""), thing.document if thing.marks else ""): thing for thing in reversed(things)}
    return [pytest.param(thing, id=str(thing)) for thing in reversed(seen.values())]


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """Makes the run that a command finds where it looks for one, once for the same options."""
    return cache(lambda options: short_run(tmp_path_factory.mktemp("short"), options))


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    """A bound by Monte Carlo over t is measured with so few that it takes no second."""
    monkeypatch.setattr("refdiff.systems.steps.MEASURED", 1000)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("command", cases(beginning("refdiff")))
def test_a_command_of_refdiff_runs(command, folder, run):
    assert unknown(command.text) == []
    if mentioned(command):
        return
    prepare(folder, command, READ[command.document][0], run)
    text = smaller(replaced(command.text, command.marks))
    status, out, err = refdiff(text)
    assert not wrong(text, status, err)
    assert out or err


@pytest.mark.parametrize("block", cases([b for b in here(BLOCKS) if b.language == "python"]))
def test_a_block_of_python_runs(block, folder, capsys):
    excerpts = [mark.detail for mark in block.marks if mark.kind == "excerpt of"]
    for name in excerpts:
        lines = [line.strip() for line in (ROOT / name).read_text().splitlines()]
        assert "\n".join(line.strip() for line in block.text.splitlines()).strip() in "\n".join(lines)
    if excerpts or any(mark.kind == "file" for mark in block.marks):
        return  # a file is run by the commands that read it
    blocks = READ[block.document][0]
    for name, text in files(blocks).items():
        (folder / name).write_text(text)
    with importing_here(), registering():
        sys.path.insert(0, str(folder))
        exec(compile(replaced(block.text, block.marks), str(block), "exec"), {"__name__": "document"})
    following = blocks[blocks.index(block) + 1 :][:1]
    if following and following[0].language == "text" and following[0] in here(blocks):
        assert same_output(capsys.readouterr().out, following[0].text)


@pytest.mark.parametrize("command", cases(beginning("make")))
def test_a_target_of_make_is_there(command):
    targets, variables = make_targets((ROOT / "Makefile").read_text())
    for word in command.text.split(" ")[1:]:
        name, is_variable, _ = word.partition("=")
        assert name in (variables if is_variable else targets), f"make has no {name}"


@pytest.mark.parametrize("command", cases(beginning("pip")))
def test_what_pip_installs_is_there(command):
    install, *what = command.text.removeprefix("pip ").replace("'", "").replace('"', "").split(" ")
    assert install == "install"
    for name, more in (re.fullmatch(r"([\w.]+)(?:\[(.+)\])?", word).groups() for word in what):
        assert name in (".", "refdiff")
        assert set((more or "").split(",")) - {""} <= extras()


@pytest.mark.parametrize("command", cases(beginning("python", "python3", ".venv/bin/python")))
def test_a_tool_is_called_by_a_test(command):
    words = command.text.partition(" ")[2]
    start = next((start for start in TOOLS if words.startswith(start)), None)
    assert start, f"{command}: add it to TOOLS of running.py, with the test that calls it"
    name = start.removeprefix("-m ").removesuffix(".py").replace("/", ".").split(".")[-1]
    assert re.search(rf"\b{name}\b", (ROOT / TOOLS[start]).read_text())
    if start.startswith("-m benchmarks"):
        source = (ROOT / f"benchmarks/{name}.py").read_text()
        for option, value in re.findall(r"(--[\w-]+)(?: ([\w,]+)\b)?", words):
            assert f'"{option}"' in source, f"{command}: no such option"
            if option == "--parts":
                assert all(re.search(rf"\b{part}\b", source) for part in value.split(",")), f"{command}: no such part"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_extras_that_are_named_are_there(document):
    named = re.findall(r"(?:refdiff|\.)\[([\w,]+)\]", DOCUMENTS[document])
    assert {extra for names in named for extra in names.split(",")} <= extras()


def test_everything_is_run_or_says_why():
    """No block is of a kind that no test here knows, and what is left to another test is read by it."""
    for block in here(BLOCKS):
        is_file = any(mark.kind == "file" for mark in block.marks) or block.text.startswith("# mine.toml")
        assert block.language in ("", "sh", "python") or is_file or block.language == "text", (
            f"{block}: nobody runs this"
        )
    for thing, mark in marked(BLOCKS, "run by") + marked(COMMANDS, "run by"):
        test = mark.detail.partition(":")[0]
        document = thing.document.rpartition("/")[2]
        assert document in (ROOT / test).read_text(), f"{thing}: {test} does not read {document}"
    for command in here(COMMANDS):
        assert not re.match(r"[a-z.]+/", command.text) or command.text.startswith(".venv/"), command


def test_little_is_left_out():
    """Lists what is not run, for the eyes of who changes a document (pytest -s), and keeps it little."""
    left = [f"{thing}: {mark.detail}" for thing, mark in marked(BLOCKS, "not run") + marked(COMMANDS, "not run")]
    elsewhere = Counter(mark.kind for thing in BLOCKS + COMMANDS for mark in thing.marks if mark.kind in ELSEWHERE)
    print(*left, f"of {len(BLOCKS)} blocks and {len(COMMANDS)} commands: {dict(elsewhere)}", sep="\n")
    assert all(len(line.split(": ", 1)[1]) > 10 for line in left)
    assert len(left) <= 12
    assert len(here(COMMANDS)) > 50


@pytest.mark.parametrize("block", [pytest.param(b, id=str(b)) for b in BLOCKS if b.language in ("python", "toml")])
def test_python_and_toml_can_be_parsed(block):
    ast.parse(block.text) if block.language == "python" else tomllib.loads(block.text)
