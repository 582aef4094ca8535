"""What kernels and the host share, read out of kernels/, where it is defined once: structs, constants, tables of numbers.

    Norm = struct("group_norm.cu", "GroupNorm")
    context.launch("group_norm.cu", "group_norm", grid, block, Norm(x=x, y=y, ...), ...)

The text that the compiler sees is the definition, and ctypes lays the fields out as C++ does: a test has g++ and NVRTC
assert the size, the offsets and the number of fields of every struct. A launch takes the address of an argument and copies
as many bytes as the kernel was compiled for, so a struct is given by value as any ctypes value is, on every device.
"""

from __future__ import annotations

import ast
import ctypes
import re
from functools import cache
from typing import Any

from .runtime.context import Array
from .runtime.sources import KERNELS

__all__ = ["Struct", "constant", "members", "pitched", "struct", "table"]

_TYPES = {
    "int": ctypes.c_int,
    "unsigned": ctypes.c_uint,
    "long long": ctypes.c_longlong,
    "unsigned long long": ctypes.c_ulonglong,
    "float": ctypes.c_float,
    "double": ctypes.c_double,
}
_REAL = (ctypes.c_float, ctypes.c_double)
_MEMBER = re.compile(r"(?:const )?((?:unsigned )?long long|\w+)(?:<[^<>]*>)?([ *].*)", re.DOTALL)
_NAME = re.compile(r"(\*?)\s*(\w+)(?:\[(\d+)\])?")
_INCLUDE = re.compile(r"^#include <(\w+\.cuh)>", re.MULTILINE)


class Struct(ctypes.Structure):
    """A struct of kernels/ by value: an argument of a launch. A field that is a `Pitched` is given as an Array."""

    def __init__(self, **values: Any) -> None:
        """An Array is given for a pointer; a pointer that is left out is null. Every other field must be given, of an array
        of numbers the first ones."""
        super().__init__()
        for name, kind in members(type(self)):
            setattr(self, name, _value(f"{type(self).__name__}.{name}", kind, values.pop(name, None)))
        assert not values, f"{type(self).__name__} has no field {', '.join(values)}"


def members(made: type[Struct]) -> list[tuple[str, type]]:
    """(name, type) of each member, in order."""
    return made._fields_  # type: ignore[return-value]


def struct(source: str, name: str) -> type[Struct]:
    """The struct of this name in a file of kernels/ or in a header that it includes.

    Its members are declared without methods: `const float *weight, *bias;`, `int rows, C;`, `float unused[2];`, pointers
    to anything, and structs of this form. A template's arguments may change what its pointers point to, no more.
    """
    form = rf"^struct (?:alignas\((\d+)\) )?{name} \{{\n(.*?)^\}};"
    for file, text in _texts(source).items():
        if found := re.search(form, text, re.MULTILINE | re.DOTALL):
            return _made(file, name, found[2], int(found[1] or 1))
    raise ValueError(f"{source}: expected a struct {name}")


@cache
def _made(file: str, name: str, body: str, alignment: int) -> type[Struct]:
    fields = [field for line in body.split(";") if line.strip() for field in _fields(file, name, line.strip())]
    made = type(name, (Struct,), {"_fields_": fields})
    assert ctypes.sizeof(made) % alignment == 0, f"{name}: its alignment pads it, which ctypes does not"
    return made


def constant(source: str, name: str) -> int:
    """The value of `constexpr int NAME = 8;`."""
    for text in _texts(source).values():
        if found := re.search(rf"^constexpr int {name} = (\d+);", text, re.MULTILINE):
            return int(found[1])
    raise ValueError(f"{source}: expected constexpr int {name} = a number")


def table(source: str, name: str) -> tuple[Any, ...]:
    """The numbers of `constexpr TYPE NAME[] = {{1, {2, 3}}, ...};` as nested tuples."""
    for text in _texts(source).values():
        if found := re.search(rf"^constexpr \w+ {name}\[\] = (\{{.*?\}});", text, re.MULTILINE | re.DOTALL):
            return tuple(ast.literal_eval(found[1].replace("{", "(").replace("}", ")").replace("\n", " ")))
    raise ValueError(f"{source}: expected constexpr {name}[] = {{...}}")


@cache
def _texts(source: str) -> dict[str, str]:
    """A file and the headers it includes, without comments."""
    names, texts = [source], {}
    for name in names:  # grows by what is included
        text = (KERNELS / name).read_text()
        texts[name] = re.sub(r"\s*//[^\n]*", "", text)
        names += [other for other in _INCLUDE.findall(text) if other not in names and (KERNELS / other).exists()]
    return texts


def _fields(source: str, owner: str, line: str) -> list[tuple[str, Any]]:
    """Those of one declaration, "const float *weight, *bias"."""
    found = _MEMBER.fullmatch(line)
    names = [_NAME.fullmatch(part.strip()) for part in found[2].split(",")] if found else []
    if not found or not all(names):
        raise ValueError(
            f"{source}, struct {owner}: expected members such as `const float *weight, *bias`, got {line!r}"
        )
    fields = []
    for star, name, count in (part.groups() for part in names if part):
        kind: Any = ctypes.c_void_p if star else _TYPES.get(found[1]) or struct(source, found[1])
        fields.append((name, kind * int(count) if count else kind))
    return fields


def _value(name: str, kind: Any, x: Any) -> Any:
    if kind is ctypes.c_void_p:
        return x.pointer if isinstance(x, Array) else x
    if issubclass(kind, Struct):
        if isinstance(x, Array) or x is None:
            return kind(data=x, pitch=0 if x is None else x.pitch)
        assert isinstance(x, kind), f"{name}: expected {kind.__name__}, got {x!r}"
        return x
    assert x is not None, f"{name} is not given"
    if issubclass(kind, ctypes.Array):
        assert len(x) <= kind._length_, f"{name}: expected at most {kind._length_} numbers, got {len(x)}"
        return kind(*(_value(name, kind._type_, each) for each in x))
    if kind in _REAL:
        return float(x)
    value = kind(int(x)).value
    if value != x:
        bits, signed = 8 * ctypes.sizeof(kind), kind(-1).value < 0
        low, past = (f"-2^{bits - 1}", f"2^{bits - 1}") if signed else (0, f"2^{bits}")
        raise AssertionError(f"{name}: expected an integer from {low} to {past} - 1, got {x}")
    return value


_Pitched = struct("device.cuh", "Pitched")


def pitched(x: Array) -> Struct:
    """An array with its pitch, as an argument."""
    return _Pitched(data=x, pitch=x.pitch)
