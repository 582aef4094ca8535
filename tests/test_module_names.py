"""A module does not hide behind a function of its name: `refdiff.process.samplers` is the file, however it is reached."""

import importlib
import pkgutil

import pytest

import refdiff

# In two engines an operation's file is called as the operation, and the engine's package holds the operations.
HIDDEN = ("refdiff.engines.reference", "refdiff.engines.cpu")
PACKAGES = [p.name for p in pkgutil.walk_packages(refdiff.__path__, "refdiff.") if p.ispkg and p.name not in HIDDEN]


@pytest.mark.parametrize("package", PACKAGES)
def test_each_module_is_found_under_its_name(package):
    parent = importlib.import_module(package)
    modules = [m.name for m in pkgutil.iter_modules(parent.__path__)]
    hidden = [n for n in modules if importlib.import_module(f"{package}.{n}") is not getattr(parent, n)]
    assert not hidden, f"{package}: expected modules, got what hides {', '.join(hidden)}"
