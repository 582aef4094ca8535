"""Arrays of any library: what the equations need of them, and coefficients cast once to the data's dtype.

A NumPy array is served by NumPy alone; any other goes through array-api-compat (CuPy, PyTorch, JAX and others).
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = Any  # an array of any library of the array API standard
Time: TypeAlias = Any  # an integer, or one integer a sample: (N,)


def namespace(x: Array) -> Any:
    """The functions that belong to x: numpy for a NumPy array, the array-API namespace of any other."""
    if isinstance(x, np.ndarray | np.generic):
        return np
    try:
        import array_api_compat
    except ModuleNotFoundError:
        raise ImportError(
            f"arrays of {type(x).__module__} need array-api-compat, which is not installed: pip install array-api-compat"
        ) from None
    try:
        return array_api_compat.array_namespace(x)
    except TypeError:
        raise ValueError(
            f"expected an array (NumPy, CuPy, PyTorch, JAX), got {type(x).__name__}; use numpy.asarray"
        ) from None


def steps(t: Time, T: int, first: int = 1, name: str = "t") -> np.ndarray:
    """t as integers on the host, each checked to lie in first .. T.   scalar -> (), (N,) -> (N,)."""
    get = getattr(t, "get", None)  # a CuPy array comes to the host only when asked
    t = np.asarray(get() if get else t)
    if t.dtype.kind not in "iu" or t.ndim > 1:
        raise ValueError(f"{name}: expected an integer or one a sample (N,), got shape {t.shape}, dtype {t.dtype}")
    if t.size and not first <= t.min() <= t.max() <= T:
        wrong = t.min() if t.min() < first else t.max()
        raise ValueError(f"{name}: expected integers from {first} to T = {T}, got {wrong}")
    return t


def like(coefficient: np.ndarray, x: Array, name: str = "x") -> Any:
    """A float64 coefficient made ready to multiply x, cast once to x's dtype.

    coefficient () -> a Python float, which takes the dtype of whatever it meets; coefficient (N,), one a sample
    -> an array (N, 1, ..., 1) of x's library, dtype and device.
    """
    xp = namespace(x)
    if not xp.isdtype(x.dtype, ("real floating", "complex floating")):
        raise ValueError(f"{name}: expected floating-point numbers, got {x.dtype}; cast them yourself, say to float32")
    if coefficient.ndim == 0:
        return float(coefficient)
    if x.ndim == 0 or len(coefficient) != x.shape[0]:
        raise ValueError(f"t: expected one step a sample of {name} {tuple(x.shape)}, got {coefficient.shape}")
    column = coefficient.reshape(-1, *[1] * (x.ndim - 1))
    if xp is np:
        return column.astype(x.dtype)
    import array_api_compat

    return xp.asarray(column, dtype=x.dtype, device=array_api_compat.device(x))


def same_shape(**arrays: Array) -> None:
    """ValueError, which names both arrays and both shapes, unless all have the shape of the first.

    Every function of `process` that takes several arrays calls it: shapes that differ are a mistake, of which a library that
    broadcasts says nothing. What is meant to be one number a sample, such as t and a weight, is no such array: `like`.
    """
    (first, model), *others = arrays.items()
    for name, array in others:
        if _shape(name, array) != _shape(first, model):
            raise ValueError(
                f"{name}: expected the shape {_shape(first, model)} of {first}, got {_shape(name, array)}; "
                "nothing is broadcast"
            )


def wide(x: Any) -> Any:
    """x for sums and squares: an array of 16-bit numbers as float32, all else as it is. `narrow` is the way back.

    float16 ends at 65,504 and has no digits below 6e-8; bfloat16 has three digits, and a sum of some hundreds none.
    """
    return _cast(x, namespace(x).float32) if hasattr(x, "dtype") and _is_half(x) else x


def narrow(y: Array, x: Array) -> Array:
    """y, which was made of wide(x), in x's dtype if that has 16 bits, else as it is."""
    return _cast(y, x.dtype) if _is_half(x) else y


def full_precision(name: str, x: Array) -> None:
    """ValueError for an array of 16-bit numbers, where they cannot hold what is asked: precisions and log masses."""
    if _is_half(x):
        raise ValueError(f"{name}: expected float32 or float64, got {x.dtype}; cast it yourself, say to float32")


def _cast(x: Array, dtype: Any) -> Array:
    xp = namespace(x)
    return x.astype(dtype) if xp is np else xp.astype(x, dtype)


def _is_half(x: Array) -> bool:
    xp = namespace(x)
    return xp.isdtype(x.dtype, "real floating") and xp.finfo(x.dtype).bits == 16


def _shape(name: str, array: Any) -> tuple[int, ...]:
    shape = getattr(array, "shape", None)
    if shape is None:
        raise ValueError(
            f"{name}: expected an array (NumPy, CuPy, PyTorch, JAX), got {type(array).__name__}; use numpy.asarray"
        )
    return tuple(shape)
