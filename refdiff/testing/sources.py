"""What the files of a package import of each other, read off the sources with ast: nothing is imported.

An import counts wherever it stands, also inside a function, and so does a module that is reached by a dot from one that was
imported; what stands under `if TYPE_CHECKING` is apart. That Python imports a file's package before it counts for nothing.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

__all__ = ["Import", "Sources", "read", "room_of"]

Nodes: TypeAlias = list[tuple[ast.AST, bool]]


def room_of(module: str) -> str:
    return module.split(".")[0]


@dataclass(frozen=True)
class Import:
    """source, target: modules by their names in the package, such as "training.loop"; the package itself is "refdiff"."""

    source: str
    target: str
    line: int
    types_only: bool = False


@dataclass
class Sources:
    """files: of each module, its path in the package; about: the first sentence of its docstring. unread: places of imports
    whose module is named while they run."""

    files: dict[str, str]
    about: dict[str, str] = field(default_factory=dict)
    imports: list[Import] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)

    def arrows(self, types_only: bool = False) -> list[Import]:
        """The imports between different modules that run, or those that only types need."""
        return [i for i in self.imports if i.types_only == types_only and i.source != i.target]

    def between_rooms(self) -> list[Import]:
        return [i for i in self.arrows() if room_of(i.source) != room_of(i.target)]


def read(folder: Path) -> Sources:
    """The imports that the Python files of a package make of each other. A module is a file, or a folder's __init__.py."""
    names = {}
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        names[path] = ".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "refdiff"
    sources = Sources({name: path.relative_to(folder).as_posix() for path, name in names.items()})
    for path, name in names.items():
        package = [folder.name, *path.relative_to(folder).parent.parts]
        tree = ast.parse(path.read_text(encoding="utf-8"))
        sources.about[name] = (ast.get_docstring(tree) or "").replace("\n", " ").partition(". ")[0].rstrip(".")
        nodes = list(_nodes(tree))
        found, bound = set(), {}
        for line, target, text, types_only in sorted(_imports(nodes, package)):
            if not target:
                sources.unread.append(f"{sources.files[name]}:{line}: {text}")
            elif target.split(".")[0] == folder.name:
                inside = target.split(".")[1:]
                found.add(Import(name, _module(inside, sources.files), line, types_only))
                bound[text or folder.name] = inside if text else []
        targets = {i.target for i in found}
        for line, (first, *rest) in _chains(nodes):  # of what is imported, a module in it is reached by a dot
            if first in bound:
                module = _module([*bound[first], *rest], sources.files)
                if module not in {*targets, _module(bound[first], sources.files)}:
                    found.add(Import(name, module, line))
                    targets.add(module)
        sources.imports += sorted(found, key=lambda i: (i.line, i.target))
    return sources


def _nodes(tree: ast.AST) -> Iterator[tuple[ast.AST, bool]]:
    """Each import, call and attribute of a tree, and whether it stands under `if TYPE_CHECKING`."""
    waiting = [(tree, False)]
    while waiting:
        node, types_only = waiting.pop()
        if isinstance(node, ast.Import | ast.ImportFrom | ast.Call | ast.Attribute):
            yield node, types_only
        guards = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for name in node._fields:
            value = getattr(node, name)
            inner = types_only or (guards and name == "body")
            if isinstance(value, list):
                waiting += [(child, inner) for child in value if isinstance(child, ast.AST)]
            elif isinstance(value, ast.AST) and name != "ctx":
                waiting.append((value, inner))


def _module(parts: list[str], files: dict[str, str]) -> str:
    """The module in which a dotted name stands: itself, or the longest part of it that is a file."""
    while parts and ".".join(parts) not in files:
        parts = parts[:-1]
    return ".".join(parts) or "refdiff"


def _imports(nodes: Nodes, package: list[str]) -> Iterator[tuple[int, str, str, bool]]:
    """(line, absolute name of what is imported, the name it gets here, whether only types need it); an import whose module
    is named while it runs has no name, and its source in the place of the second."""
    for node, types_only in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, alias.asname or "", types_only
        elif isinstance(node, ast.ImportFrom):
            base = _absolute("." * node.level + (node.module or ""), package)
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}", alias.asname or alias.name, types_only
        elif isinstance(node, ast.Call) and _name(node.func) in ("import_module", "__import__"):
            name = node.args[0] if node.args else None
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                yield node.lineno, _absolute(name.value, package), "", types_only
            else:
                yield node.lineno, "", ast.unparse(node), types_only


def _name(function: ast.expr) -> str:
    """The last name of what is called."""
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _chains(nodes: Nodes) -> Iterator[tuple[int, list[str]]]:
    """(line, ["a", "b", "c"]) for each a.b.c."""
    for node, _ in nodes:
        names: list[str] = []
        inner = node
        while isinstance(inner, ast.Attribute):
            names.append(inner.attr)
            inner = inner.value
        if names and isinstance(inner, ast.Name):
            yield inner.lineno, [inner.id, *names[::-1]]


def _absolute(name: str, package: list[str]) -> str:
    """A module's name, which may begin with dots, as read in this package."""
    level = len(name) - len(name.lstrip("."))
    return ".".join([*package[: len(package) - level + 1], *name.lstrip(".").split(".")]).strip(".") if level else name
