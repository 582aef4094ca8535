"""An operation of the CUDA engine against the reference in float64, on the same inputs: outputs and every gradient.

The bound is DESIGN's: in float32 4 sqrt(K) eps for sums of K terms, relative in norm; in bfloat16 1.6e-2 in norm.
"""

from __future__ import annotations

from inspect import signature
from typing import Any

import numpy as np

from refdiff.engines import cuda, reference
from refdiff.engines.cuda.runtime.context import Array, Context
from refdiff.testing.measures import relative_error
from refdiff.testing.trees import leaves, tree_map

EPS32 = 2.0**-24


def bound(dtype: str, terms: int = 1) -> float:
    """The largest relative error in norm that a sum of so many terms may have."""
    return 1.6e-2 if dtype == "bfloat16" else 4 * max(terms, 16) ** 0.5 * EPS32


def check_agreement(
    context: Context,
    name: str,
    inputs: tuple[np.ndarray, ...],
    parameters: dict[str, np.ndarray] | None = None,
    *,
    dtype: str = "float32",
    terms: int = 16,
    seed: int = 0,
    float32: tuple[str, ...] = ("bias",),
    **options: Any,
) -> None:
    """AssertionError that names what differs.

    inputs get gradients; parameters too, of which those named in `float32` and all vectors stay float32. terms: of the
    longest sum. Everything is first rounded to dtype, so that both engines see the same numbers.
    """
    x = tuple(context.array(a, dtype) for a in inputs)
    p = {
        key: context.array(a, "float32" if key in float32 or a.ndim == 1 else dtype)
        for key, a in (parameters or {}).items()
    }
    x64, p64 = (tree_map(lambda a: cuda.host(a).astype(np.float64), tree) for tree in (x, p))
    y, saved = getattr(cuda, name)(*x, **p, **options)
    expected, expected_saved = getattr(reference, name)(*x64, **p64, **options)
    _compare(f"{name}: y", y, expected, bound(dtype, terms))

    rng = np.random.default_rng(seed)
    dy = tree_map(lambda a: context.array(rng.standard_normal(a.shape), dtype), y)
    dy64 = tree_map(lambda a: cuda.host(a).astype(np.float64), dy)
    dx = getattr(cuda, f"{name}_backward")(dy, saved)
    expected = getattr(reference, f"{name}_backward")(dy64, expected_saved)
    _compare(f"{name}: gradient", dx, expected, bound(dtype, terms))
    again = getattr(cuda, f"{name}_backward")(dy, saved)
    assert _bits(again) == _bits(dx), f"{name}: two runs differ in bits"
    if "needs_dx" in signature(getattr(cuda, f"{name}_backward")).parameters:
        without, g = getattr(cuda, f"{name}_backward")(dy, saved, needs_dx=False)
        assert without is None
        assert _bits(g) == _bits(dx[-1]), f"{name}: without dx the weight's gradient differs in bits"


def _compare(what: str, actual: Any, expected: Any, most: float) -> None:
    if isinstance(expected, dict):
        assert actual.keys() == expected.keys(), f"{what}: expected {sorted(expected)}, got {sorted(actual)}"
        for key in expected:
            _compare(f"{what} of {key}", actual[key], expected[key], most)
    elif isinstance(expected, tuple):
        assert len(actual) == len(expected), f"{what}: expected {len(expected)}, got {len(actual)}"
        for i, (a, b) in enumerate(zip(actual, expected, strict=True)):
            _compare(f"{what} {i}", a, b, most)
    else:
        assert actual.shape == np.shape(expected), f"{what}: expected {np.shape(expected)}, got {actual.shape}"
        error = relative_error(cuda.host(actual).astype(np.float64), expected)
        assert error <= most, f"{what}: expected an error of at most {most:.1e}, got {error:.1e}"


def _bits(tree: Any) -> list[bytes]:
    return [cuda.host(a).tobytes() for a in leaves(tree).values() if isinstance(a, Array)]
