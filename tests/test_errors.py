"""Messages speak Python in Python and options at the command line; what is missing is named with the way to install it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import refdiff
from refdiff.cli import main
from refdiff.config import Config
from refdiff.errors import argument, at_the_command_line, extra, option, setting
from refdiff.training import train

PACKAGE = Path(refdiff.__file__).parent


def test_an_argument_is_written_as_its_reader_writes_it():
    said = lambda: (option("resume"), option("engine", "cpu"), argument("out"), setting("train.steps", 5))  # noqa: E731
    python = ("resume=True", 'engine="cpu"', "out", "train.steps=5")
    assert said() == python
    with at_the_command_line():
        assert said() == ("--resume", "--engine cpu", "--out", "--set train.steps=5")
    with pytest.raises(ZeroDivisionError), at_the_command_line():
        1 / 0  # noqa: B018
    assert said() == python


def test_the_same_error_names_arguments_in_python_and_options_at_the_command_line(tmp_path, capsys):
    (tmp_path / "config.toml").write_text("")
    with pytest.raises(
        ValueError, match=r"^out: .* holds a run \(config.toml\); add resume=True, force=True or choose"
    ):
        train(Config(), tmp_path, progress=False)
    with pytest.raises(ValueError, match=r"^resume: expected .* does not exist; leave resume=True out to begin"):
        train(Config(), tmp_path, resume=True, progress=False)
    assert main(["train", "--quiet", "--out", str(tmp_path)]) == 2
    assert "error: --out: " in (err := capsys.readouterr().err)
    assert "add --resume, --force or choose another" in err
    assert main(["train", "--quiet", "--out", str(tmp_path), "--set", "schedule.T=40"]) == 2
    assert "add --set sample.steps=40" in capsys.readouterr().err


def test_no_message_outside_the_commands_names_an_option():
    # Those of `commands`, `cli` and the bench command are read at the command line alone.
    spoken = {"cli.py", "command.py", "kernel.py", "conventions.py"}
    options = ("--out", "--resume", "--force", "--set", "--engine", "--dtype", "--match", "--data", "--n ")
    for path in PACKAGE.rglob("*.py"):
        if path.name in spoken or path.parent.name in ("commands", "testing"):
            continue
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Raise):
                words = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
                found = [word for word in words if any(each in word for each in options)]
                assert not found, f"{path}: {found}"


def test_no_message_advises_an_index_that_the_package_may_not_be_on():
    assert extra("test") == 'pip install ".[test]" in a checkout of refdiff'
    folders = [PACKAGE, PACKAGE.parent / "docs", PACKAGE.parent / "kernels"]
    texts = [p for folder in folders for p in folder.rglob("*") if p.suffix in (".py", ".md")] + [
        PACKAGE.parent / "README.md"
    ]
    for path in texts:
        lines = path.read_text().splitlines()
        assert not [line for line in lines if "pip install" in line and "refdiff[" in line.replace("/refdiff", "")], (
            path
        )


@pytest.mark.parametrize("command", [["verify"], ["audit", "a:B"]])
@pytest.mark.parametrize("missing", ["hypothesis", "mpmath"])
def test_claims_without_their_libraries_name_the_extra(command, missing):
    program = f"import sys; sys.modules[{missing!r}] = None; from refdiff.cli import main; sys.exit(main({command!r}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f'refdiff: error: claims need {missing}, which is not installed: pip install ".[test]" in a checkout of refdiff'
    ]


def test_every_part_is_there_after_import_refdiff_and_none_is_loaded_before():
    program = (
        "import sys, refdiff; assert 'refdiff.training' not in sys.modules; assert 'tqdm' not in sys.modules; "
        "assert {'engines', 'models', 'storage', 'testing', 'training', 'benchmark', 'config'} <= set(dir(refdiff)); "
        "assert {'data', 'objectives', 'sampling', 'evaluation'} <= set(dir(refdiff)); "
        "assert refdiff.config.Config().seed == 0; assert 'refdiff.training' not in sys.modules; "
        "assert refdiff.models is sys.modules['refdiff.models']; print(hasattr(refdiff, 'trainig'))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    with pytest.raises(AttributeError, match="module 'refdiff' has no attribute 'trainig'"):
        refdiff.trainig  # noqa: B018
