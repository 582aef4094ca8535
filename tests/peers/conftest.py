"""Tests beside other people's code: `make peers` runs them, in one process, with the extra `peers` installed.

Nothing here is skipped for a library that is missing: without it a file does not load, and that is an error.
"""

import importlib
from pathlib import Path

import pytest


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.peer)


@pytest.fixture(params=["torch", "jax.numpy"], scope="session")
def library(request):
    """The libraries for which `refdiff.process` says that it works. JAX has float64 only where it is asked for."""
    if request.param == "jax.numpy":
        importlib.import_module("jax").config.update("jax_enable_x64", True)
    return importlib.import_module(request.param)
