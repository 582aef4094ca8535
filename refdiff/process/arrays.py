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
