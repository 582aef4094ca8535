"""Arrays of any library: what the equations need of them, and coefficients cast once to the data's dtype.

A NumPy array is served by NumPy alone; any other goes through array-api-compat (CuPy, PyTorch, JAX and others).
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = Any  # an array of any library of the array API standard
Time: TypeAlias = Any  # an integer, or one integer a sample: (N,)


def namespace(x: Array, name: str = "") -> Any:
    """The functions that belong to x: numpy for a NumPy array, the array-API namespace of any other. name: in the error."""
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
        raise _no_array(name, x) from None


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


def not_later(name: str, k: np.ndarray, t: np.ndarray, strictly: bool = False) -> None:
    """ValueError unless k <= t (k < t if strictly), for two of what `steps` returns: of one shape, or one of them alone."""
    if k.ndim and t.ndim and k.shape != t.shape:
        raise ValueError(f"{name}: expected one integer, or one for each of t {t.shape}, got {k.shape}")
    if np.any(k >= t if strictly else k > t):
        which = "before" if strictly else "no later than"
        raise ValueError(f"{name}: expected a step {which} t, got {name} = {k} with t = {t}")


def one_a_sample(shape: tuple[int, ...], x: Array, name: str, of: str = "t") -> None:
    """ValueError unless `shape`, of what `of` names, is that of one number, (), or of one a sample of x (N, ...), (N,)."""
    if shape and tuple(shape) != tuple(x.shape[:1]):
        what = "step" if of == "t" else "number"
        raise ValueError(f"{of}: expected one {what} a sample of {name} {tuple(x.shape)}, got {shape}")


def floating(name: str, x: Array) -> Any:
    """x's namespace; ValueError for what is no array of floating-point numbers."""
    xp = namespace(x, name)
    if not xp.isdtype(x.dtype, ("real floating", "complex floating")):
        raise ValueError(f"{name}: expected floating-point numbers, got {x.dtype}; cast them yourself, say to float32")
    return xp


def like(coefficient: np.ndarray, x: Array, name: str = "x", of: str = "t") -> Any:
    """A float64 coefficient made ready to multiply x, cast once to x's dtype.

    coefficient () -> a Python float, which takes the dtype of whatever it meets; coefficient (N,), one a sample
    -> an array (N, 1, ..., 1) of x's library, dtype and device. Errors call x by name, and the coefficient by what it is of.
    """
    xp = floating(name, x)
    if coefficient.ndim == 0:
        return float(coefficient)
    one_a_sample(coefficient.shape, x, name, of)
    column = coefficient.reshape(-1, *[1] * (x.ndim - 1))
    if xp is np:
        return column.astype(x.dtype)
    import array_api_compat

    return xp.asarray(column, dtype=x.dtype, device=array_api_compat.device(x))


def only_bits(name: str, x: Array, advice: str = "") -> None:
    """ValueError unless all of x are 0 or 1, as floating-point numbers."""
    xp = floating(name, x)
    if not bool(xp.all((x == 0) | (x == 1))):
        raise ValueError(
            f"{name}: expected bits, each 0 or 1, got values from {float(xp.min(x)):g} to {float(xp.max(x)):g}{advice}"
        )


def same_shape(**arrays: Array) -> None:
    """ValueError, which names both arrays and both shapes, unless all have the shape of the first, and its library.

    Every function of `process` that takes several arrays calls it: shapes that differ are a mistake, of which a library that
    broadcasts says nothing. What is meant to be one number a sample, such as t and a weight, is no such array: `like`.
    """
    (first, model), *others = arrays.items()
    shape = shape_of(first, model)
    for name, array in others:
        if shape_of(name, array) != shape:
            raise ValueError(
                f"{name}: expected the shape {shape} of {first}, got {shape_of(name, array)}; nothing is broadcast"
            )
        if type(array) is not type(model):  # seldom so of one library: NumPy's scalars beside its arrays
            same_library(first, model, name, array)


def same_library(first: str, model: Array, name: str, array: Array) -> None:
    """ValueError, which names both libraries, unless the second array is of the first one's."""
    ours, theirs = namespace(model, first), namespace(array, name)
    if theirs is not ours:
        ours, theirs = (xp.__name__.removeprefix("array_api_compat.").partition(".")[0] for xp in (ours, theirs))
        raise ValueError(f"{name}: expected an array of {ours}, as {first} is, got one of {theirs}; convert it first")


def shape_of(name: str, array: Any) -> tuple[int, ...]:
    """The array's shape; ValueError for what has none."""
    shape = getattr(array, "shape", None)
    if shape is None:
        raise _no_array(name, array)
    return tuple(shape)


def sample_sum(x: Array) -> Array:
    """The sum over the elements of each sample.   (N, ...) -> (N,)"""
    xp = namespace(x)
    return xp.sum(xp.reshape(x, (x.shape[0], -1)), axis=1)


def single(name: str, value: Any) -> None:
    """ValueError unless value is one number: Python's, or an array without axes."""
    shape = getattr(value, "shape", None)
    if shape is None and not isinstance(value, int | float | complex):
        raise ValueError(f"{name}: expected a single number, got {type(value).__name__}; nothing is broadcast")
    if shape:
        raise ValueError(f"{name}: expected a single number, got shape {tuple(shape)}; nothing is broadcast")


def two(name: str, expected: str, answer: Any) -> tuple[Array, Array]:
    """What the function of that name answered; ValueError unless that is two arrays, in a tuple or a list."""
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        got = f"{len(answer)} values" if isinstance(answer, tuple | list) else type(answer).__name__
        raise ValueError(f"{name}: expected two arrays {expected}, got {got}")
    return answer[0], answer[1]


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
    if _is_half(x, name):
        raise ValueError(f"{name}: expected float32 or float64, got {x.dtype}; cast it yourself, say to float32")


def _cast(x: Array, dtype: Any) -> Array:
    xp = namespace(x)
    return x.astype(dtype) if xp is np else xp.astype(x, dtype)


def _is_half(x: Array, name: str = "") -> bool:
    xp = namespace(x, name)
    return xp.isdtype(x.dtype, "real floating") and xp.finfo(x.dtype).bits == 16


def _no_array(name: str, x: Any) -> ValueError:
    head = f"{name}: " if name else ""
    return ValueError(f"{head}expected an array (NumPy, CuPy, PyTorch, JAX), got {type(x).__name__}; use numpy.asarray")
