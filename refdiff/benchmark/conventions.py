"""What a user's kernel is given: for each operation its arguments in order, and sizes by which it may choose its launch.

docs/benchmarks.md says the same in words; a test holds the two together. `T` is float, or bfloat16 with -DBF16=1.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["CONVENTIONS", "Convention", "Launch", "launch_of"]

Shape = tuple[int, ...]


class Convention(NamedTuple):
    """arguments: C declarations, in order; sizes: names of the integers among them; shapes: of cases, the first is timed;
    each is (inputs, parameters, options); terms: of the longest sum."""

    arguments: str
    shapes: list[tuple[list[Shape], dict[str, Shape], dict[str, Any]]]
    sizes: Callable[[list[Shape], dict[str, Shape], dict[str, Any]], dict[str, int]]
    terms: Callable[[dict[str, int]], int] = lambda sizes: 16
    scalars: Callable[[dict[str, int]], list[float]] = lambda sizes: []


def _vectors(c: int) -> dict[str, Shape]:
    return {"weight": (c,), "bias": (c,)}


def _elements(x: list[Shape], p: Any, o: Any) -> dict[str, int]:
    n = 1
    for k in x[0]:
        n *= k
    return {"n": n}


def _rows(x: list[Shape], p: Any, o: Any) -> dict[str, int]:
    return {"rows": _elements([x[0][:-1]], p, o)["n"], "C": x[0][-1]}


def _groups(x: list[Shape], p: Any, o: Any) -> dict[str, int]:
    n, *middle, c = x[0]
    return {"N": n, "P": _elements([tuple(middle)], p, o)["n"], "C": c, "G": o["groups"]}


def _linear(x: list[Shape], p: dict[str, Shape], o: Any) -> dict[str, int]:
    return {"rows": _elements([x[0][:-1]], p, o)["n"], "C_in": p["weight"][0], "C_out": p["weight"][1]}


def _conv2d(x: list[Shape], p: dict[str, Shape], o: dict[str, Any]) -> dict[str, int]:
    (n, h, w, c_in), (kh, kw, _, c_out), stride = x[0], p["weight"], o.get("stride", 1)
    before, after = o.get("padding", (kh // 2, kh // 2))
    out = [(size + before + after - k) // stride + 1 for size, k in ((h, kh), (w, kw))]
    return {"N": n, "H": h, "W": w, "C_in": c_in, "H_out": out[0], "W_out": out[1], "C_out": c_out, "kh": kh, "kw": kw,
            "stride": stride, "padding": before}  # fmt: skip


def _attention(x: list[Shape], p: Any, o: dict[str, Any]) -> dict[str, int]:
    return {"N": x[0][0], "S": x[0][1], "L": x[1][1], "C": x[0][2], "heads": o["heads"]}


def _image(c: int, to: int, size: int, n: int, k: int = 3, **options: Any) -> Any:
    return [(n, size, size, c)], {"weight": (k, k, c, to), "bias": (to,)}, options


_MAP = "const T* x, T* y, int n"
_NORMS: list[Any] = [([(128, 32, 32, 128)], _vectors(128), {"groups": 32}), ([(3, 5, 7, 24)], _vectors(24), {"groups": 8}),
                     ([(2, 9, 3, 6)], _vectors(6), {"groups": 3})]  # fmt: skip
_SHAPES: list[Any] = [([(128, 32, 32, 128)], {}, {}), ([(3, 37)], {}, {}), ([(1,)], {}, {})]

CONVENTIONS: dict[str, Convention] = {
    **{name: Convention(_MAP, _SHAPES, _elements) for name in ("silu", "gelu", "gelu_tanh")},
    "add": Convention("const T* a, const T* b, T* y, int n", [(x * 2, p, o) for x, p, o in _SHAPES], _elements),
    "softmax": Convention(
        "const T* x, T* y, int rows, int C", [([(32768, 256)], {}, {}), ([(5, 33)], {}, {}), ([(3, 1)], {}, {})], _rows,
        lambda s: s["C"],
    ),
    "layer_norm": Convention(
        "const T* x, const float* weight, const float* bias, T* y, float epsilon, int rows, int C",
        [([(32768, 512)], _vectors(512), {}), ([(7, 37)], _vectors(37), {})], _rows, lambda s: s["C"], lambda s: [1e-5],
    ),
    **{name: Convention(
        "const T* x, const float* weight, const float* bias, T* y, float epsilon, int N, int P, int C, int G",
        _NORMS, _groups, lambda s: s["P"] * s["C"] // s["G"], lambda s: [1e-6],
    ) for name in ("group_norm", "group_norm_silu")},
    "linear": Convention(
        "const T* x, const T* weight, const float* bias, T* y, int rows, int C_in, int C_out",
        [([(32768, 256)], {"weight": (256, 768), "bias": (768,)}, {}), ([(5, 7)], {"weight": (7, 3), "bias": (3,)}, {})],
        _linear, lambda s: s["C_in"],
    ),
    "conv2d": Convention(
        "const T* x, const T* weight, const float* bias, T* y, int N, int H, int W, int C_in, int H_out, int W_out, "
        "int C_out, int kh, int kw, int stride, int padding",
        [_image(128, 128, 32, 128), _image(3, 5, 7, 2), _image(16, 24, 6, 1, stride=2, padding=(0, 1))],
        _conv2d, lambda s: s["kh"] * s["kw"] * s["C_in"],
    ),
    "attention": Convention(
        "const T* q, const T* k, const T* v, T* y, float scale, int N, int S, int L, int C, int heads",
        [([(128, 256, 256)] * 3, {}, {"heads": 1}), ([(2, 17, 24)] * 3, {}, {"heads": 3})],
        _attention, lambda s: s["L"] + s["C"], lambda s: [(s["C"] / s["heads"]) ** -0.5],
    ),
}  # fmt: skip


class Launch(NamedTuple):
    """What the line `// bench NAME: grid = ..., block = ..., shared = ...` says, evaluated."""

    grid: tuple[int, ...]
    block: tuple[int, ...]
    shared: int


_LINE = r"^\s*//\s*bench\s+{name}\s*:(.*)$"
_PART = re.compile(r"(grid|block|shared)\s*=\s*")
_OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.FloorDiv: operator.floordiv,
              ast.Mod: operator.mod}  # fmt: skip
_FUNCTIONS: dict[str, Callable[..., Any]] = {"min": min, "max": max, "ceil": lambda a, b: -(-a // b)}


def launch_of(source: Path, name: str, sizes: Mapping[str, int]) -> Launch:
    """How the file says that its kernel is launched.

    // bench my_norm: grid = N * G, block = 256, shared = 4 * C

    Integers and the operation's sizes with + - * // %, min, max and ceil(a, b) = a / b rounded up; (a, b) for two axes.
    sizeof_T is 4 or 2. ValueError if the line is missing or says something else.
    """
    found = re.search(_LINE.format(name=re.escape(name)), source.read_text(errors="replace"), re.M)
    example = f"// bench {name}: grid = ceil(n, 256), block = 256"
    if not found:
        raise ValueError(
            f"--kernel: expected a line that says how {name} is launched, such as {example!r}, in {source}"
        )
    pieces = _PART.split(found[1])
    texts = {key: text.strip().rstrip(",") for key, text in zip(pieces[1::2], pieces[2::2], strict=True)}
    values = {}
    for key, text in texts.items():
        try:
            values[key] = _value(ast.parse(text, mode="eval").body, sizes)
        except (SyntaxError, ValueError, TypeError, ZeroDivisionError) as error:
            raise ValueError(
                f"--kernel: {source.name}: {key} = {text!r}: expected integers, {', '.join(sizes)}, + - * // %, min, max "
                f"and ceil(a, b), got {error}"
            ) from None
    if not {"grid", "block"} <= set(values):
        raise ValueError(f"--kernel: expected grid and block in {found[0].strip()!r}, such as {example!r}")

    def axes(value: Any) -> tuple[int, ...]:
        return value if isinstance(value, tuple) else (value,)

    return Launch(axes(values["grid"]), axes(values["block"]), values.get("shared", 0))


def _value(node: ast.AST, sizes: Mapping[str, int]) -> Any:
    match node:
        case ast.Constant(value=int() as value):
            return value
        case ast.Name(id=name) if name in sizes:
            return sizes[name]
        case ast.BinOp() if type(node.op) in _OPERATORS:
            return _OPERATORS[type(node.op)](_value(node.left, sizes), _value(node.right, sizes))
        case ast.Call(func=ast.Name(id=name), args=args) if name in _FUNCTIONS and not node.keywords:
            return _FUNCTIONS[name](*(_value(a, sizes) for a in args))
        case ast.Tuple(elts=parts):
            return tuple(_value(part, sizes) for part in parts)
    raise ValueError(ast.unparse(node))
