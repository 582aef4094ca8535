"""The source archive is the repository, and the tests run from it."""

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from helpers import ROOT

ADDED = {"PKG-INFO", "setup.cfg"}  # by setuptools, besides refdiff.egg-info/
SOME_TESTS = ["tests/test_references.py", "tests/documents/test_links.py", "tests/documents/test_speeds.py",
              "tests/process/test_spacing.py", "tests/storage/test_header.py", "tests/storage/test_images.py"]  # fmt: skip

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def files():
    """What git holds, as it lies here."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no checkout: git says what should be in the archive")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return {name for name in listed.split("\0") if name and (ROOT / name).exists()}


@pytest.fixture(scope="module")
def archive(files, tmp_path_factory):
    """The archive's folder, built from a copy of what git holds, so that nothing else comes into it, and unpacked."""
    pytest.importorskip("build", reason="build, of the extra `check`, is not installed")
    folder = tmp_path_factory.mktemp("archive")
    for name in files:
        (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / "source" / name)
    command = [sys.executable, "-m", "build", "--sdist", "--outdir", folder, folder / "source"]
    subprocess.run(command, check=True, capture_output=True, cwd=folder)
    with tarfile.open(next(folder.glob("*.tar.gz"))) as packed:
        packed.extractall(folder, filter="data")
    return next(path.parent for path in folder.glob("*/PKG-INFO"))


def test_the_archive_is_what_git_holds(archive, files):
    there = {path.relative_to(archive).as_posix() for path in archive.rglob("*") if path.is_file()}
    there = {name for name in there if not name.startswith("refdiff.egg-info/")}
    assert there == files | ADDED


def test_tests_run_from_the_archive(archive, tmp_path):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *SOME_TESTS]
    code = "import refdiff, pathlib; print(pathlib.Path(refdiff.__file__).parent.parent)"
    environment = {**os.environ, "PYTHONPATH": str(archive)}
    found = subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert Path(found.stdout.strip()) == archive  # it is the archive's library that is tested
    done = subprocess.run(command, cwd=archive, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
