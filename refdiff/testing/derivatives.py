"""Is a hand-written derivative right? Hold it against a complex step, which is exact to rounding [ComplexStep].

    check_backward(lambda x, p: linear(x, **p), linear_backward, (x, {"weight": W, "bias": b}), rng)

Arrays come alone or in trees: tuples and dictionaries, nested at will. What is differentiated is float64, and its
forward must be analytic and keep complex128: no abs, max or np.var on the way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .measures import quotient
from .trees import inner, leaves, tree_map

__all__ = ["backward_errors", "check_backward", "complex_step"]


def complex_step(f: Callable[[Any], Any], x: Any, v: Any, h: float = 1e-30) -> Any:
    """J v = Im f(x + i h v) / h: nothing is subtracted, so nothing cancels, and the term in h^2 vanishes. [ComplexStep]

    x and v of the same shapes, float64 -> J v, of the shapes that f returns.
    """
    return tree_map(lambda y: np.imag(y) / h, f(tree_map(lambda a, b: a + 1j * h * b, x, v)))


def backward_errors(
    forward: Callable[..., tuple[Any, Any]], backward: Callable[..., Any], inputs: tuple, rng: np.random.Generator
) -> dict[str, float]:
    """How far <dx, v> = <dy, J v> fails for random dy and v: |<dx, v> - <dy, J v>| over the product of norms, which is
    the larger of ||dx|| ||v|| and ||dy|| ||J v||, for either scalar product may be a sum that cancels.   [ComplexStep]

    forward(*inputs) -> (y, saved); backward(dy, saved) -> the gradients of the inputs, of one input without a tuple.
    -> the error of each array by its name ("0", "1/weight"), v being zero elsewhere, and of all together ("all").
    ValueError if names or shapes of the gradients are not those of the inputs.
    """
    y, saved = forward(*inputs)
    dy = tree_map(lambda a: rng.standard_normal(np.shape(a)), y)
    dx = backward(dy, saved)
    x, dx, dy = leaves(inputs), leaves(dx if isinstance(dx, tuple) else (dx,)), leaves(dy)
    expected, actual = ({name: np.shape(a) for name, a in tree.items()} for tree in (x, dx))
    if actual != expected:
        raise ValueError(f"backward: expected gradients of the shapes {expected}, got {actual}")
    direction = {name: rng.standard_normal(shape) for name, shape in expected.items()}

    def error(*names: str) -> float:
        v = {name: direction[name] * (name in names) for name in x}
        values = iter(v.values())
        jv = leaves(complex_step(lambda z: forward(*z)[0], inputs, tree_map(lambda _: next(values), inputs)))
        part = {name: dx[name] for name in names}
        scale = max(_norm(part) * _norm(v), _norm(dy) * _norm(jv))
        return quotient(abs(inner(part, v) - inner(dy, jv)), scale)

    return {name: error(name) for name in x} | {"all": error(*x)}


def check_backward(
    forward: Callable[..., tuple[Any, Any]],
    backward: Callable[..., Any],
    inputs: tuple,
    rng: np.random.Generator,
    bound: float = 1e-13,
) -> None:
    """AssertionError that names the inputs whose gradient is wrong: those of `backward_errors` not within the bound."""
    errors = backward_errors(forward, backward, inputs, rng)
    wrong = {name: error for name, error in errors.items() if not error <= bound}
    assert not wrong, f"backward: expected errors of at most {bound:g}, got {wrong}"


def _norm(a: dict[str, Any]) -> float:
    """||a||, over all its leaves, also where the squares are below the least float."""
    largest = max((float(np.max(np.abs(leaf), initial=0.0)) for leaf in a.values()), default=0.0)
    if not 0 < largest < np.inf:
        return largest
    return largest * float(sum(np.sum(np.abs(np.asarray(leaf) / largest) ** 2) for leaf in a.values())) ** 0.5
