"""Other people's libraries are asked in tests/peers alone, so that `make test` neither needs nor skips any of them."""

import ast
import re
import tomllib
from pathlib import Path

from helpers import ROOT

MODULES = {"scikit-learn": "sklearn", "cupy-cuda13x": "cupy"}


def imported(path: Path) -> set[str]:
    """The first names of what a file imports, by a statement or by `importorskip` and its like."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module)
        elif isinstance(node, ast.Call) and re.search("import", ast.unparse(node.func)):
            names |= {a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)}
    return {name.partition(".")[0] for name in names}


def peers() -> set[str]:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    names = [re.match(r"[\w-]+", requirement)[0] for requirement in extras["peers"] if "refdiff" not in requirement]
    return {MODULES.get(name, name) for name in names}


def test_peers_are_imported_by_their_own_tests_alone():
    named = re.compile(rf"\b({'|'.join(peers())})\b")
    for path in (ROOT / "tests").rglob("*.py"):
        if path.parent.name != "peers" and named.search(path.read_text()):
            assert not imported(path) & peers(), f"{path}: belongs into tests/peers"


def test_each_peer_is_used():
    """torch and jax by name in the fixture `library`, scipy by diffusers too: no peer is installed for nothing."""
    text = "".join(path.read_text() for path in (ROOT / "tests/peers").glob("*.py"))
    assert peers() == {name for name in peers() if re.search(rf"\b{name}\b", text)}
