"""What every operation of an engine promises, as one check that the tests of this folder call with inputs of their own."""

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from inspect import signature
from typing import Any

import numpy as np
import pytest

from refdiff.engines import reference
from refdiff.testing.derivatives import check_backward
from refdiff.testing.measures import relative_error
from refdiff.testing.trees import inner, leaves, tree_map


@pytest.fixture(scope="session")
def check_contract() -> Callable[..., None]:
    return _check_contract


def _check_contract(
    name: str, inputs: tuple, parameters: dict | None = None, *, seed: int, linear: bool = False, **options: Any
) -> None:
    """Section 3 of the design, for one operation of the reference engine.

    inputs (arrays) and parameters are float64 and get gradients; options get none. linear: in all of them together. The
    inputs are what the operation takes first, besides the options.
    """
    rng = np.random.default_rng(seed)
    operation, operation_backward = getattr(reference, name), getattr(reference, f"{name}_backward")
    x = (*inputs, parameters) if parameters else inputs
    free = [name for name in signature(operation).parameters if name not in options][: len(inputs)]

    def forward(*x: Any) -> tuple[Any, Any]:
        named = dict(zip(free, x, strict=False))
        return operation(**named, **(x[-1] if parameters else {}), **options)

    def backward(dy: Any, saved: Any) -> tuple:
        dx = operation_backward(dy, saved)
        return tuple(d for d in dx if d is not None) if isinstance(dx, tuple) else (dx,)

    def noise(y: Any) -> Any:
        return tree_map(lambda a: rng.standard_normal(np.shape(a)), y)

    # The derivative is right, and has the names and shapes of what is differentiated.
    check_backward(forward, backward, x, rng)

    # Nothing that came in or was saved is written to: all of it may be read-only.
    before = deepcopy((x, options))
    _freeze((x, options))
    y, saved = forward(*x)
    dy, kept = noise(y), deepcopy((y, saved))
    _freeze((dy, saved))
    dx = backward(dy, saved)
    assert _same((x, options), before)
    assert _same((y, saved), kept)

    # Every gradient is fresh.
    others = _arrays((x, options, y, saved, dy))
    for gradient in _arrays(dx):
        assert gradient.flags.writeable
        assert not any(np.shares_memory(gradient, other) for other in others)
        others.append(gradient)

    # The backward is linear in dy, and can be called again.
    other = noise(y)
    combined = backward(tree_map(lambda u, v: 1.7 * u - 0.6 * v, dy, other), saved)
    assert relative_error(_flat(combined), 1.7 * _flat(dx) - 0.6 * _flat(backward(other, saved))) <= 1e-12
    assert _same(backward(dy, saved), dx)

    # Where dx is not asked for, the rest is as before, bit for bit.
    if "needs_dx" in signature(operation_backward).parameters:
        without, g = operation_backward(dy, saved, needs_dx=False)
        assert without is None
        assert _same(g, dx[-1])

    # <A x, y> = <x, A' y>, in real numbers alone.
    if linear:
        y_, dy_, x_, dx_ = map(leaves, (y, dy, x, dx))
        scale = max(inner(y_, y_) * inner(dy_, dy_), inner(x_, x_) * inner(dx_, dx_)) ** 0.5
        assert abs(inner(y_, dy_) - inner(x_, dx_)) <= 1e-14 * scale

    # How an array lies in memory does not matter.
    y_, saved_ = forward(*tree_map(np.asfortranarray, x))
    dx_ = backward(tree_map(np.asfortranarray, dy), saved_)
    assert _shapes((y_, dx_)) == _shapes((y, dx))
    assert relative_error(_flat((y_, dx_)), _flat((y, dx))) <= 1e-13

    # float32 stays float32 and complex128 complex128, and both say what float64 says.
    for dtype, bound in ((np.float32, 1e-4), (np.complex128, 1e-13)):
        cast = partial(_cast, dtype)
        x_, p_, dy_ = (tree_map(cast, tree) for tree in (inputs, parameters or {}, dy))
        options_ = {key: cast(option) for key, option in options.items()}
        y_, saved_ = operation(**dict(zip(free, x_, strict=True)), **p_, **options_)
        dx_ = backward(dy_, saved_)
        assert all(a.dtype == dtype for a in leaves((y_, dx_)).values())
        assert _shapes((y_, dx_)) == _shapes((y, dx))
        assert relative_error(_flat((y_, dx_)), _flat((y, dx))) <= bound


def _cast(dtype: type, a: Any) -> Any:
    """Only what is an array or NumPy scalar of floating point numbers."""
    return a.astype(dtype) if isinstance(a, np.ndarray | np.generic) and a.dtype.kind == "f" else a


def _arrays(tree: Any) -> list[np.ndarray]:
    return [leaf for leaf in leaves(tree).values() if isinstance(leaf, np.ndarray)]


def _flat(tree: Any) -> np.ndarray:
    """All numbers in one row, by name: a single number that happens to be near zero then does not stand alone."""
    by_name = leaves(tree)
    return np.concatenate([np.ravel(by_name[name]) for name in sorted(by_name)])


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    return {name: np.shape(leaf) for name, leaf in leaves(tree).items()}


def _freeze(tree: Any) -> None:
    for a in _arrays(tree):
        a.flags.writeable = False


def _same(a: Any, b: Any) -> bool:
    return all(np.array_equal(u, v) for u, v in zip(_arrays(a), _arrays(b), strict=True))
