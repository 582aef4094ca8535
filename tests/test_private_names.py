"""Tests use what is public: a name that begins with `_` may change without a test being wrong.

Read off the sources with ast: imports, attributes (of anything but self and cls), and the names given to getattr, setattr
and their like.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
DOCUMENTED = {
    "_asdict",
    "_fields",
    "_make",
    "_replace",
    "_exit",
}  # of named tuples and of os: public in spite of the name
NAMING = {
    "delattr",
    "getattr",
    "hasattr",
    "object",
    "setattr",
}  # functions that are given a name; mock.patch.object is one

# What is left, the name and where it belongs: to be made public, or asked for in another way. Nothing may be added.
LEFT = {
    "_allowed": "CupyDevice", "_captured": "CupyDevice", "_cupy": "CupyDevice", "_driver": "CupyDevice",
    "_functions": "CupyDevice, cpu/blas", "_index": "CupyDevice", "_load": "CupyDevice", "_modules": "CupyDevice",
    "_nvrtc": "CupyDevice", "_queue": "CupyDevice", "_runtime": "CupyDevice", "_stream": "CupyDevice",
    "_threads": "CupyDevice, cpu/workers", "_recording": "Emulator, cpu/recording", "_compile": "cuda/nvrtc",
    "_first_gpu": "cuda/context", "_KERNELS": "cuda/attention", "_bfloat16_tiles": "cuda/attention", "_has_gpu": "engines",
    "_BUFFER": "cpu/recording", "_KEPT": "cpu/winograd", "_kept": "cpu/winograd", "_BLOCK": "cpu/winograd",
    "_TOGETHER": "cpu/winograd", "_LARGE": "cpu/winograd", "_WORK": "cpu/linear", "_PART": "cpu/optimiser",
    "_SMALL": "cpu/products, data/arrays", "_MOST": "cpu/memory", "_own": "cpu/memory", "_REGION": "cpu/arena",
    "_regions": "cpu/arena", "_free": "cpu/arena, cuda/memory", "_WORTH": "training/halves", "_half": "training/halves",
    "_partner": "training/halves", "_process": "training/partner, benchmark/process", "_idle": "training/partner",
    "_AT_ONCE": "training/evaluation", "_mean": "training/evaluation",
    "_dynamo": "torch, which documents it",
}  # fmt: skip


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
    found = {
        f"{path.relative_to(TESTS)}:{line}: {name}": name
        for path in sorted(TESTS.rglob("*.py"))
        for line, name in private_names(path.read_text())
    }
    assert len(list(TESTS.rglob("*.py"))) > 100
    new = [place for place, name in found.items() if name not in LEFT]
    assert not new, f"expected public names alone, got {', '.join(new)}; make them public, or ask in another way"
    gone = LEFT.keys() - found.values()
    assert not gone, f"expected LEFT to hold what tests still use, got {sorted(gone)} beside; take them out"


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
