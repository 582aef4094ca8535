"""Plain tables, as TOML files hold them, to dataclasses and back, with every key and type checked."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import is_dataclass
from datetime import date, time
from typing import Any, get_args, get_origin, get_type_hints

from ..errors import one_of, setting


def build(cls: type, table: dict[str, Any], prefix: str, **ready: Any) -> Any:
    """An instance of the dataclass from plain values, each checked against its field's type."""
    hints = get_type_hints(cls)
    for key in table:
        one_of("key", prefix + key, [prefix + name for name in hints])
    given = {key: _typed(prefix + key, value, hints[key]) for key, value in table.items()}
    try:
        return cls(**ready, **given)
    except ValueError as error:  # it knows its fields, and not the table that they stand in
        words = str(error)
        if words.split(":")[0] in hints:
            words = prefix + words
        names = "|".join(hints)
        raise ValueError(re.sub(rf"(?<=[ (])({names})=(\S+)", lambda m: setting(prefix + m[1], m[2]), words)) from None


def _typed(name: str, value: Any, wanted: Any) -> Any:
    if get_origin(wanted) is tuple and isinstance(value, list | tuple):
        return tuple(_typed(name, v, get_args(wanted)[0]) for v in value)
    if get_origin(wanted) is dict and isinstance(value, dict):
        return {k: _typed(f"{name}.{k}", v, get_args(wanted)[1]) for k, v in value.items()}
    if wanted is float and type(value) is int:
        return float(value)
    if wanted is not type(value):
        kind = getattr(wanted, "__name__", "value") if get_origin(wanted) is None else "list of integers"
        advice = ""
        if wanted is str:  # a bare word that TOML reads as a number or a date
            advice = f"; put a name that looks like a number in quotes: {setting(name, quoted(value))}"
        came = value.isoformat() if isinstance(value, date | time) else repr(value)
        raise ValueError(f"{name}: expected {'an' if kind[0] in 'aeiou' else 'a'} {kind}, got {came}{advice}")
    return value


def quoted(value: Any) -> str:
    """A name in quotes that a shell, too, leaves around it, as far as the value still shows how it was written."""
    text = value.isoformat() if isinstance(value, date | time) else json.dumps(value, default=str)
    return f"""'"{text}"'"""


def table_of(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{name}: expected a table such as [{name}], got {value!r}")
    return value


def merge(table: dict[str, Any], change: dict[str, Any]) -> None:
    """Put `change` into `table`, table by table. Another kind of model starts from its own defaults."""
    kind = table_of("model", change.get("model", {})).get("kind")
    if kind is not None and "model" in table and kind != table["model"].get("kind"):
        table["model"] = {}
    if isinstance(change.get("schedule"), dict) and change["schedule"].get(
        "law", table.get("schedule", {}).get("law")
    ) != (table.get("schedule", {}).get("law")):
        table["schedule"].pop("options", None)
    for key, value in change.items():
        if isinstance(value, dict) and isinstance(table.get(key), dict):
            merge(table[key], value)
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


def lines(table: dict[str, Any]) -> str:
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())


def positive(table: str, config: Any, *names: str, zero: bool = False) -> None:
    for name in names:
        value = getattr(config, name)
        if not (value > 0 or (zero and value == 0)) or value == float("inf"):
            least = "a number of at least 0" if zero else "a finite number above 0"
            raise ValueError(f"{table}.{name}: expected {least}, got {value}")
