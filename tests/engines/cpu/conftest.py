"""The CPU engine against the reference in float64, on the same numbers."""

from collections.abc import Callable
from copy import deepcopy
from inspect import signature
from typing import Any

import numpy as np
import pytest

from refdiff.engines import cpu, reference
from refdiff.testing.trees import leaves, tree_map

EPS32 = 2.0**-24


@pytest.fixture(scope="session")
def agree() -> Callable[..., None]:
    return _agree


def _agree(
    name: str,
    inputs: tuple,
    parameters: dict | None = None,
    *,
    seed: int,
    terms: int = 16,
    bound: float = 0.0,
    **options: Any,
) -> None:
    """Output and gradients within 4 sqrt(K) eps32 (K = terms) or the bound; shapes, float32, nothing written to; the same
    bits again, from arrays that lie otherwise in memory, and from read-only ones. The inputs are what the operation takes
    first, besides the options."""
    bound = bound or 4 * max(terms, 16) ** 0.5 * EPS32
    f_backward = getattr(cpu, f"{name}_backward")
    free = [key for key in signature(getattr(reference, name)).parameters if key not in options][: len(inputs)]

    def f(*inputs: Any, engine: Any = cpu, **others: Any) -> Any:
        return getattr(engine, name)(**dict(zip(free, inputs, strict=True)), **others)

    inputs, parameters = tree_map(_float32, (inputs, parameters or {}))
    x64, p64 = tree_map(_float64, (inputs, parameters))
    options, options64 = ({key: cast(a) for key, a in options.items()} for cast in (_float32, _float64))
    before = deepcopy((inputs, parameters, options))
    _freeze((inputs, parameters, options))
    y, saved = f(*inputs, **parameters, **options)
    wanted, saved64 = f(*x64, **p64, **options64, engine=reference)
    _near(f"{name}: y", y, wanted, bound)

    rng = np.random.default_rng([seed, 1])
    dy = tree_map(lambda a: rng.standard_normal(np.shape(a)).astype(np.float32), y)
    kept = deepcopy((y, dy))
    _freeze((y, dy))
    dx = f_backward(dy, saved)
    _near(f"{name}: gradient", dx, getattr(reference, f"{name}_backward")(tree_map(_float64, dy), saved64), bound)
    assert _bits((inputs, parameters, options)) == _bits(before), f"{name} writes to its inputs"
    assert _bits((y, dy)) == _bits(kept), f"{name} writes to its output or gradient"

    again, saved = f(*inputs, **parameters, **options)
    assert _bits((again, f_backward(dy, saved))) == _bits((y, dx)), f"{name}: two runs differ"
    if "needs_dx" in signature(f_backward).parameters:
        without, g = f_backward(dy, saved, needs_dx=False)
        assert without is None
        assert _bits(g) == _bits(dx[-1]), f"{name}: without dx the weight's gradient differs"
    others = tree_map(_elsewhere, (inputs, parameters))
    again, saved = f(*others[0], **others[1], **options)
    _near(f"{name}, arrays not contiguous: y", again, y, bound)
    _near(f"{name}, arrays not contiguous: gradient", f_backward(tree_map(_elsewhere, dy), saved), dx, bound)


def _near(what: str, actual: Any, wanted: Any, bound: float) -> None:
    actual, wanted = ({key: a for key, a in leaves(tree).items() if a is not None} for tree in (actual, wanted))
    assert actual.keys() == wanted.keys(), what
    # A few numbers may all happen to be near zero, sums that cancel; they are held against the mean size of all numbers.
    size = float(np.sqrt(np.mean(np.concatenate([np.ravel(b) ** 2 for b in wanted.values()]))))
    for key, a in actual.items():
        b = np.asarray(wanted[key], np.float64)
        assert np.shape(a) == b.shape, what
        assert a.dtype == np.float32, what
        scale = max(np.linalg.norm(b), size * b.size**0.5 if b.size <= 16 else 0.0)
        difference = np.linalg.norm(a.astype(np.float64) - b)
        error = 0.0 if difference == 0 else difference / scale if scale else np.inf
        assert error <= bound, f"{what} {key}: expected an error of at most {bound:.1e}, got {error:.1e}"


def _float32(a: Any) -> Any:
    return a.astype(np.float32) if isinstance(a, np.ndarray) and a.dtype.kind == "f" else a


def _float64(a: Any) -> Any:
    return a.astype(np.float64) if isinstance(a, np.ndarray | np.generic) and a.dtype.kind == "f" else a


def _elsewhere(a: Any) -> Any:
    """The same numbers, every second of a wider array."""
    if not isinstance(a, np.ndarray) or not a.ndim:
        return a
    wide = np.repeat(a, 2, axis=-1)
    wide[..., 1::2] = np.nan
    return wide[..., ::2]


def _freeze(tree: Any) -> None:
    for a in leaves(tree).values():
        if isinstance(a, np.ndarray):
            a.flags.writeable = False


def _bits(tree: Any) -> list[bytes]:
    return [np.asarray(a).tobytes() for a in leaves(tree).values()]
