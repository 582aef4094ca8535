"""Memory that several processes see."""

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest

from refdiff.engines.cpu.runtime.shared_memory import SharedMemory

NAMES = ("p", "g0", "g1")


@pytest.fixture(params=["memfd", "temporary file"])
def file(request, monkeypatch, tmp_path):
    """An unnamed file of the system, or one in the folder for temporary files where there is no such call."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    if request.param == "temporary file":
        monkeypatch.delattr(os, "memfd_create", raising=False)
    elif not hasattr(os, "memfd_create"):
        pytest.skip("this system has no memfd_create")
    return tmp_path


@pytest.mark.parametrize("count", [1, 1000, 700_000])
def test_every_number_is_zero_at_first(file, count):
    shared = SharedMemory(NAMES, count)
    assert all(shared[name].shape == (count,) and shared[name].dtype == np.float32 for name in NAMES)
    assert not any(shared[name].any() for name in NAMES)


@pytest.mark.parametrize("count", [1, 1000, 700_000])
def test_what_one_side_writes_the_other_reads(file, count):
    here = SharedMemory(NAMES, count)
    there = SharedMemory(NAMES, count, os.dup(here.descriptor))
    for i, name in enumerate(NAMES):
        here[name][...] = i + 1
    assert all((there[name] == i + 1).all() for i, name in enumerate(NAMES))
    there["g0"][-1] = 7
    assert here["g0"][-1] == 7


def test_two_that_are_not_told_of_each_other_share_nothing(file):
    one, other = SharedMemory(NAMES, 10), SharedMemory(NAMES, 10)
    one["p"][...] = 1
    assert not other["p"].any()


def test_the_file_has_no_name(file):
    memory = SharedMemory(NAMES, 10)
    assert memory["p"].size == 10
    assert list(Path(file).iterdir()) == []


def test_its_descriptor_is_closed_with_it(file):
    shared = SharedMemory(NAMES, 10)
    descriptor = shared.descriptor
    os.fstat(descriptor)
    del shared
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(descriptor)


def test_an_array_of_it_may_outlive_it(file):
    array = SharedMemory(NAMES, 10)["g1"]
    array[...] = 3
    assert (array == 3).all()
