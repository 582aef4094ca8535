"""Running what a document says, with what is not there replaced. All replacements are in this file."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import shutil
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from documents.reading import Block, Command
from helpers import ROOT
from PIL import Image

from refdiff.cli import main, make_parser
from refdiff.config import PRESETS, RULES
from refdiff.data import load
from refdiff.data.loading import NAMED
from refdiff.models import KINDS
from refdiff.objectives import OBJECTIVES
from refdiff.storage import save_folder

# What would take minutes takes a second: options added to the end of a command.
SMALL_MODEL = (
    "--set model.width=8 --set train.batch=8 --set train.steps=4 --set train.warmup=2 --set train.grid_every=0"
)
SMALL_CLASSIFIER = "--set networks.classifier.width=8 --set train.batch=8 --set train.steps=4 --set train.warmup=2"
SMALL_SYSTEM = "--set train.batch=8 --set train.steps=4 --set train.warmup=2 --set train.grid_every=0"
# What the documents call a run of each system, and its preset.
SYSTEMS = {
    "runs/autoencoder": "digits-autoencoder",
    "runs/vae": "digits-vae",
    "runs/hvae": "digits-hvae",
    "runs/vdm": "digits-vdm",
    "runs/roll": "swissroll-2015",
    "runs/heartbeat": "heartbeat",
    "runs/bits": "digits-binary",
}
SMALLER = {
    **{f"refdiff train --preset {preset} ": SMALL_SYSTEM for preset in SYSTEMS.values()},
    "refdiff train --config moons.toml": SMALL_SYSTEM,
    **{f"refdiff eval {run}": "" for run in SYSTEMS},
    **{f"refdiff sample {run}": "" for run, preset in SYSTEMS.items() if preset != "digits-vdm"},  # no sample.steps
    "refdiff train --preset digits-classifier": SMALL_CLASSIFIER,
    "refdiff train --preset digits-judge": SMALL_CLASSIFIER,
    "refdiff train --preset digits-adm": f"{SMALL_MODEL} --set networks.denoiser.head_channels=8",
    "refdiff train --preset digits-upsampler": f"{SMALL_MODEL} --set networks.denoiser.head_channels=8",
    "refdiff train --preset digits-binary": "--set networks.denoiser.width=8 --set train.steps=4 --set train.warmup=2",
    "refdiff eval runs/classifier": "",
    "refdiff train": SMALL_MODEL,
    "refdiff demo": f"{SMALL_MODEL} --set sample.steps=3 --n 16",
    "refdiff sample": "--set sample.steps=3",
    "refdiff eval": "--set sample.steps=3 --n 16",
    "refdiff verify": "--match 'prior term'",
    "refdiff audit diffusers": "--match 'add noise'",
    "refdiff bench --profile": "--batch 2",
    "refdiff bench": "--batch 2 --seconds 1",
}
SHORT_RUN = f"refdiff train --quiet --set schedule.T=20 --set sample.steps=3 {SMALL_MODEL}"
CLASSIFIER = "--preset digits-classifier"
UPSAMPLER = "--preset digits-upsampler --set networks.denoiser.groups=4 --set networks.denoiser.head_channels=8"
# What a short run of a system is changed by besides: no network of its preset needs to be large.
SHORT_SYSTEM = {
    "digits-vdm": "--set objective.bins=17 --set networks.denoiser.width=8 --set networks.denoiser.groups=4",
    "heartbeat": "--set objective.T=20",
    "digits-binary": "--set objective.T=20",
}
SHORT_CLASSIFIER = f"refdiff train --quiet {CLASSIFIER} --set schedule.T=20 --set sample.steps=3 {SMALL_CLASSIFIER}"

# Tools of the checkout, each called by the tests of that file on something small.
TOOLS = {
    "-m refdiff.testing.report": "tests/testing/test_claims.py",
    "-m emulator.sanitized": "tests/emulator/test_emulator.py",
    "-m benchmarks.cpu": "tests/benchmark/test_suites.py",
    "-m benchmarks.gpu": "tests/benchmark/test_suites.py",
    "tests/kernels/catalogue.py": "tests/kernels/test_compile.py",
    "examples/ddpm.py": "tests/examples/test_ddpm.py",
    "-m refdiff.testing.imports": "tests/testing/test_imports.py",
}


def pictures(folder: Path) -> None:
    """`path/to/images`: sixteen pictures of 32x32 in colour."""
    save_folder(folder, np.random.default_rng(0).uniform(-1, 1, (16, 32, 32, 3)).astype(np.float32))


def short_run(folder: Path, options: str = "") -> Path:
    """`runs/...` of a command that reads it: four steps on a hundred of the digits; CLASSIFIER: of a classifier; the preset
    of a system: of that, on a hundred of its data."""
    preset = options.removeprefix("--preset ")
    system = preset in SYSTEMS.values()
    data = load(PRESETS[preset].data.source if system else "digits")
    measured = 70 if system else 14  # 64 draws of each
    few = {"x": data.x[::14], "held_out": data.held_out[::measured]}
    if data.labels is not None:
        few |= {"labels": data.labels[::14], "held_out_labels": data.held_out_labels[::measured]}
    np.savez(folder / "few.npz", **few)
    train = SHORT_CLASSIFIER if options == CLASSIFIER else f"{SHORT_RUN} {options}"
    if system:
        train = f"refdiff train --quiet {options} {SMALL_SYSTEM} {SHORT_SYSTEM.get(preset, '')}"
    status, _, err = refdiff(f"{train} --set data.source={folder / 'few.npz'} --out {folder / 'run'}")
    assert status == 0, err
    return folder / "run"


def kernel(path: Path, name: str) -> None:
    """`my.cu`, of which no block of the document says more: the group norm of benchmarks/examples/, called `name`."""
    example = (ROOT / "benchmarks/examples/group_norm.cu").read_text()
    path.write_text(re.sub(r"\bsimple_group_norm\b", name, example))


def replaced(text: str, marks: tuple) -> str:
    """The text with the replacements of its marks.   AssertionError where one replaces nothing."""
    for mark in marks:
        if mark.kind == "run with":
            for one in mark.detail.split("; "):
                new, _, old = one.partition(" in place of ")
                assert old, f"{one!r}: expected NEW in place of OLD"
                assert old in text, f"{old!r} is not in {text!r}"
                text = text.replace(old, new)
    return text


def files(blocks: list[Block]) -> dict[str, str]:
    """The blocks that are files for other blocks of their document: by a mark, or by a first line such as `# mine.toml`."""
    found = {}
    for block in blocks:
        named = [mark.detail for mark in block.marks if mark.kind == "file"]
        named += re.findall(r"\A(?:#|//) ([\w.]+\.\w+)\n", block.text)
        found |= dict.fromkeys(named, block.text)
    return found


def prepare(folder: Path, command: Command, blocks: list[Block], run: Callable[[str], Path]) -> None:
    """Put into the empty folder what the command reads; `run` gives a run of a few steps, with these options more."""
    words = shlex.split(command.text)
    for name, text in files(blocks).items():
        (folder / name).write_text(text)
    if "path/to/images" in command.text:
        pictures(folder / "path/to/images")
    if "path/to/small" in command.text:
        save_folder(folder / "path/to/small", np.random.default_rng(0).uniform(-1, 1, (4, 4, 4, 1)).astype(np.float32))
    for name in re.findall(r"path/to/(mask|digit|noisy).png", command.text):
        (folder / "path/to").mkdir(parents=True, exist_ok=True)
        black_above_white = np.repeat(np.uint8([0, 255]), 32).reshape(8, 8)
        Image.fromarray(black_above_white).save(folder / f"path/to/{name}.png")
    if "--kernel" in words[:-1]:
        source, _, name = words[words.index("--kernel") + 1].partition(":")
        if source.startswith("benchmarks/"):
            (folder / "benchmarks").symlink_to(ROOT / "benchmarks")
        elif name not in files(blocks).get(source, ""):
            kernel(folder / source, name)
    read = [w for w in words if w.startswith("runs/")]
    if words[1] in ("sample", "eval", "info") or "--resume" in words:
        options = "--set networks.denoiser.classes=10" if {"--label", "--guidance"} & set(words) else ""
        for name, before in zip(words[1:], words, strict=False):
            if name in read:
                classifies = before in ("--classifier", "--judge") or name in ("runs/classifier", "runs/judge")
                kind = CLASSIFIER if classifies else UPSAMPLER if name == "runs/upsampler" else options
                kind = f"--preset {SYSTEMS[name]}" if name in SYSTEMS else kind
                shutil.copytree(run(kind), folder / name)


def smaller(text: str) -> str:
    """The command with the first entry of SMALLER that it begins with."""
    return next((f"{text} {more}" for start, more in SMALLER.items() if text.startswith(start)), text)


def unknown(text: str) -> list[str]:
    """The command and the options of a line that `refdiff --help` and `refdiff COMMAND --help` do not have, in full."""
    name, *words = shlex.split(text)[1:]
    if name.startswith("--"):
        return []
    status, told, _ = refdiff(f"refdiff {name} --help")
    options = [word.partition("=")[0] for word in words if word.startswith("--")]
    return [name] if status else [o for o in options if not re.search(rf"{o}(?![\w-])", told)]


def mentioned(command: Command) -> bool:
    """Whether a sentence names a command, or an option of one, without what these need."""
    if not command.inline:
        return False
    err = io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(err), contextlib.suppress(SystemExit):
        make_parser().parse_args(shlex.split(command.text)[1:])
    return bool(re.search("are required|expected one argument", err.getvalue()))


def refdiff(text: str) -> tuple[int, str, str]:
    """Exit status, output and errors of a command line that begins with `refdiff`."""
    out, err = io.StringIO(), io.StringIO()
    with importing_here(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(shlex.split(text)[1:])
        except SystemExit as end:  # --help
            status = int(end.code or 0)
    return status, out.getvalue(), err.getvalue()


@contextlib.contextmanager
def importing_here() -> Iterator[None]:
    """Inside, sys.path may change, and what is imported of this folder is forgotten: mine.py of one test is not that of the
    next."""
    modules, path = set(sys.modules), list(sys.path)
    try:
        yield
    finally:
        sys.path[:] = path
        for name in set(sys.modules) - modules:
            if Path(getattr(sys.modules[name], "__file__", None) or "/").parent == Path.cwd():
                del sys.modules[name]


@contextlib.contextmanager
def registering() -> Iterator[None]:
    """Inside, networks, objectives, rules and data sets may be made known; afterwards they are not."""
    known = [(names, dict(names)) for names in (KINDS, OBJECTIVES, RULES, NAMED)]
    try:
        yield
    finally:
        for names, before in known:
            names.clear()
            names.update(before)


def wrong(text: str, status: int, err: str) -> str:
    """What is wrong with how a command ended, or nothing."""
    if text.startswith("refdiff audit") and status == 1 and not err:
        return ""  # claims that fail are what an audit is for
    if text.startswith("refdiff bench --kernel") and status == 2 and "it compiles for" in err:
        return ""  # without a GPU, as docs/benchmarks.md says
    if text.startswith("refdiff bench") and status == 1 and not err:
        return ""  # in the second that SMALLER gives it, not every case is measured
    return f"exit status {status}: {err}" if status or "error" in err else ""


def make_targets(makefile: str) -> tuple[set[str], set[str]]:
    """(targets, variables that may be given) of a Makefile."""
    targets = re.findall(r"^([a-z][\w-]*):", makefile, re.MULTILINE)
    return set(targets), set(re.findall(r"^(\w+) \?=", makefile, re.MULTILINE))


def extras() -> set[str]:
    return set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])


def same_output(actual: str, told: str) -> bool:
    """The same words, and the same numbers but for the last digits of float32, which are the machine's."""
    number = r"-?\d+\.?\d*(?:e[-+]?\d+)?"
    ours, theirs = (re.sub(r"\s+", " ", text.replace("[ ", "[").replace(" ]", "]")).strip() for text in (actual, told))
    if re.split(number, ours) != re.split(number, theirs):
        return False
    pairs = zip(re.findall(number, ours), re.findall(number, theirs), strict=True)
    return all(a == b or abs(float(a) - float(b)) <= 1e-5 * abs(float(b)) for a, b in pairs)
