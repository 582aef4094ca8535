"""Plain tables, as TOML files hold them, to dataclasses and back, with every key and type checked."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable
from dataclasses import is_dataclass
from datetime import date, time
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from ..errors import one_of, setting


def build(cls: type, table: dict[str, Any], prefix: str, also: Iterable[str] = (), **ready: Any) -> Any:
    """An instance of the dataclass from plain values, each checked against its field's type.

    ready: fields that are made already, and no keys of the table; also: keys that belong there too, and are read elsewhere.
    """
    hints = {name: hint for name, hint in get_type_hints(cls).items() if name not in ready}
    for key in table:
        one_of("key", prefix + key, [prefix + name for name in (*hints, *also)])
    given = {key: _typed(prefix + key, value, hints[key]) for key, value in table.items()}
    try:
        return cls(**ready, **given)
    except ValueError as error:  # it knows its fields, and not the table that they stand in
        words = str(error)
        if words.split(":")[0] in hints:
            words = prefix + words
        names = "|".join(hints)
        raise ValueError(re.sub(rf"(?<=[ (])({names})=(\S+)", lambda m: setting(prefix + m[1], m[2]), words)) from None


def _typed(name: str, value: Any, hint: Any) -> Any:
    kinds = get_args(hint)
    if get_origin(hint) in (Union, UnionType):
        if value is None and type(None) in kinds:
            return None
        kinds = tuple(kind for kind in kinds if kind is not type(None))
        lists = isinstance(value, list | tuple)
        return _typed(name, value, next((kind for kind in kinds if (get_origin(kind) is tuple) == lists), kinds[0]))
    if get_origin(hint) is tuple and isinstance(value, list | tuple):
        if kinds[-1] is Ellipsis:
            return tuple(_typed(name, v, kinds[0]) for v in value)
        if len(kinds) == len(value):
            return tuple(_typed(name, v, kind) for v, kind in zip(value, kinds, strict=True))
    if get_origin(hint) is dict and isinstance(value, dict):
        return {k: _typed(f"{name}.{k}", v, kinds[1]) for k, v in value.items()}
    if hint is float and type(value) is int:
        return float(value)
    if hint is not type(value):
        advice = ""
        # A bare word that TOML reads as a number or a date.
        if hint is str and not isinstance(value, list | tuple | dict):
            advice = f"; put a name that looks like a number in quotes: {setting(name, quoted(value))}"
        got = value.isoformat() if isinstance(value, date | time) else repr(value)
        raise ValueError(f"{name}: expected {_described(hint)}, got {got}{advice}")
    return value


def _described(hint: Any) -> str:
    """A type in words."""
    if get_origin(hint) is None:
        kind = getattr(hint, "__name__", "value")
        return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
    words = {int: "integers", float: "numbers", str: "names"}
    kinds = get_args(hint)
    if kinds[-1] is Ellipsis:
        return f"a list of {words.get(kinds[0], 'lists')}"
    return f"a list of {len(kinds)}: {', '.join(_described(kind) for kind in kinds)}"


def quoted(value: Any) -> str:
    """A name in quotes that a shell, too, leaves around it, as far as the value still shows how it was written."""
    text = value.isoformat() if isinstance(value, date | time) else json.dumps(value, default=str)
    return f"""'"{text}"'"""


def plain(value: Any) -> Any:
    """Tuples as lists, those in them too: as TOML has them."""
    return [plain(v) for v in value] if isinstance(value, tuple) else value


def table_of(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{name}: expected a table such as [{name}], got {value!r}")
    return value


def merge(table: dict[str, Any], change: dict[str, Any], path: tuple[str, ...] = ()) -> None:
    """Put `change` into `table`, table by table. Another kind, of a network, a schedule or an objective, starts from its own
    defaults; T is every schedule's."""
    if "kind" in change and change["kind"] != table.get("kind", change["kind"]):
        if path == ("schedule",):
            table.pop("options", None)
        else:
            table.clear()
    for key, value in change.items():
        if isinstance(value, dict) and isinstance(table.get(key), dict):
            merge(table[key], value, (*path, key))
        else:
            table[key] = value


def is_text(cls: Any, key: str) -> bool:
    """Whether a key such as data.source, from the dataclass down, is a string."""
    for part in key.split("."):
        cls = get_type_hints(cls).get(part) if is_dataclass(cls) else None
    return cls is str


def toml_value(text: str, is_text: bool = False) -> Any:
    """The value of a --set: TOML where it is TOML, else the bare words as a string, as is what belongs to a string's key."""
    if is_text and not text.startswith(("'", '"')):
        return text
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def keys(table: dict[str, Any], prefix: str = "") -> set[str]:
    """The keys of a table and of the tables in it, as "train.steps"."""
    inner = [keys(v, f"{prefix}{k}.") for k, v in table.items() if isinstance(v, dict)]
    return {prefix + k for k, v in table.items() if not isinstance(v, dict)}.union(*inner)


def toml_text(table: dict[str, Any], prefix: str = "") -> str:
    """The tables as a TOML file: plain values first, then each table under its whole name."""
    nested = {key: value for key, value in table.items() if isinstance(value, dict)}
    text = "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items() if key not in nested)
    if prefix and text:
        text = f"\n[{prefix[:-1]}]\n" + text
    return text + "".join(toml_text(value, f"{prefix}{key}.") for key, value in nested.items())


def positive(table: str, config: Any, *names: str, zero: bool = False) -> None:
    for name in names:
        value = getattr(config, name)
        if not (value > 0 or (zero and value == 0)) or value == float("inf"):
            least = "a number of at least 0" if zero else "a finite number above 0"
            raise ValueError(f"{table}.{name}: expected {least}, got {value}")
