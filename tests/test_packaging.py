"""What is installed: the wheel's contents, and the library working from it with nothing else at hand."""

import ast
import subprocess
import sys
import zipfile

import pytest
from helpers import ROOT
from setuptools import find_packages


def test_each_folder_of_the_library_is_a_package_and_each_file_says_what_it_is_for():
    files = list((ROOT / "refdiff").rglob("*.py"))
    packages = {path.parent.relative_to(ROOT).as_posix().replace("/", ".") for path in files}
    assert {"refdiff.config", "refdiff.training.trainers", "refdiff.engines.cuda.runtime"} <= packages
    assert packages == set(find_packages(ROOT, include=["refdiff", "refdiff.*"]))
    silent = [str(path.relative_to(ROOT)) for path in files if not ast.get_docstring(ast.parse(path.read_text()))]
    assert not silent, f"expected a docstring that says what the file is for, got none in {', '.join(silent)}"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy so that no build/ of this tree comes into it."""
    import shutil

    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    names = ["pyproject.toml", "setup.py", "README.md", "LICENSE", "refdiff", "kernels"]
    source.mkdir()
    for name in names:
        path = ROOT / name
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(path, source / name, ignore=ignore) if path.is_dir() else shutil.copy(path, source)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--disable-pip-version-check",
        "-w",
        folder,
        source,
    ]
    subprocess.run(command, check=True)
    return next(folder.glob("*.whl"))


@pytest.mark.slow
def test_the_wheel_carries_data_types_kernels_and_licences(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {"refdiff/py.typed", "refdiff/data/digits.npz", "refdiff/data/digits.LICENSE.md",
            "refdiff/_kernels/README.md", "refdiff/process/posterior.py"} <= names  # fmt: skip
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("tests/", "kernels/"))]
    sources = {p.relative_to(ROOT).as_posix() for p in (ROOT / "refdiff").rglob("*.py")}
    assert sources <= names


@pytest.mark.slow
def test_the_library_works_from_the_wheel_alone(wheel, tmp_path):
    code = f"import sys; sys.path.insert(0, {str(wheel)!r}); import refdiff; assert {str(wheel)!r} in refdiff.__file__"
    check = "; assert round(refdiff.process.linear().alpha_bar[-1] * 1e10) == 403583; print(refdiff.__version__)"
    done = subprocess.run(
        [sys.executable, "-c", code + check], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == "0.1.0"
