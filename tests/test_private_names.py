"""Tests use what is public: a name that begins with `_` may change without a test being wrong.

Read off the sources with ast: imports, attributes (of anything but self and cls), and the names given to getattr, setattr
and their like.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
# Of named tuples, of os, of ctypes' structures and of torch: public in spite of the name.
DOCUMENTED = {"_asdict", "_fields", "_make", "_replace", "_exit", "_fields_", "_dynamo"}
NAMING = {
    "delattr",
    "getattr",
    "hasattr",
    "object",
    "setattr",
}  # functions that are given a name; mock.patch.object is one


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in DOCUMENTED


def private_names(source: str) -> Iterator[tuple[int, str]]:
    """(line, name) of each private name of another's that the source uses."""
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom):
            names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [part for alias in node.names for part in alias.name.split(".")]
        elif isinstance(node, ast.Attribute):
            own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            names = [] if own else [node.attr]
        elif isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in NAMING:
                texts = [a.value for a in node.args[:2] if isinstance(a, ast.Constant) and isinstance(a.value, str)]
                names = [part for text in texts for part in text.split(".")]
        yield from ((node.lineno, name) for name in names if is_private(name))


def test_no_test_uses_a_private_name():
    found = [
        f"{path.relative_to(TESTS)}:{line}: {name}"
        for path in sorted(TESTS.rglob("*.py"))
        for line, name in private_names(path.read_text())
    ]
    assert len(list(TESTS.rglob("*.py"))) > 100
    assert not found, f"expected public names alone, got {', '.join(found)}; make them public, or ask in another way"


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("from refdiff.cli import _parser", "_parser"),
        ("from refdiff._cli import parser", "_cli"),
        ("import refdiff._cli", "_cli"),
        ("x = worker.halves._partner", "_partner"),
        ("def f(): return module._f()", "_f"),
        ("monkeypatch.setattr(module, '_LIMIT', 1)", "_LIMIT"),
        ("monkeypatch.setattr('refdiff.cli._LIMIT', 1)", "_LIMIT"),
        ("getattr(module, '_LIMIT')", "_LIMIT"),
        ("mock.patch.object(module, '_LIMIT', 1)", "_LIMIT"),
    ],
)
def test_a_private_name_is_found(source, name):
    assert list(private_names(f"\n{source}")) == [(2, name)]


@pytest.mark.parametrize(
    "source", ["self._x = 1", "key._replace(seed=2)", "os._exit(3)", "f.__name__", "_, x = y", "from m import x as _x"]
)
def test_what_is_ones_own_or_documented_is_none(source):
    assert not list(private_names(source))
