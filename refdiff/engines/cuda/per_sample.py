"""One number a sample: the squared error of each, lookups by t, sums of two arrays, choices and comparisons:
kernels/per_sample.cu."""

from __future__ import annotations

import ctypes
from typing import Any
from weakref import WeakKeyDictionary, ref

import numpy as np

from .embedding_ops import integers_of
from .rows import FILL_BLOCKS, expect
from .runtime.bfloat16 import to_bfloat16
from .runtime.context import ITEMSIZE, THREADS, Array, Context, blocks, current
from .runtime.device import Device
from .runtime.memory import PerArrayAllocator
from .tensor_ops import cast, dense

__all__ = ["affine", "columns", "gather", "less", "squared_error", "squared_error_backward", "stop", "where"]


def squared_error(x: Array, target: Array, weight: Array | None = None) -> tuple[Array, Any]:
    """loss_n = w_n mean((x_n - target_n)^2) over the elements of each sample, float32.

    x and target of one shape (N, ...), weight (N,) float32 -> (N,). target is rounded to x's type.
    """
    assert x.shape == target.shape, f"squared_error: {x.shape} against {target.shape}"
    x, target, n = dense(x), dense(cast(target, x.dtype)), x.shape[0]
    expect("squared_error", x.dtype, x, target)
    _one_a_sample("squared_error", n, *(() if weight is None else (weight,)))
    count, loss = x.size // n, x.context.empty((n,))
    parts = parts_of(n, count * ITEMSIZE[x.dtype] // 16)
    out = loss if parts == 1 else x.context.empty((n, parts))
    x.context.launch(
        "per_sample.cu", "sample_squares", n * parts, THREADS, x, target, weight, out, count, parts, 1 / count,
        dtype=x.dtype,
    )  # fmt: skip
    if parts > 1:
        add_parts(out, weight, loss, 1 / count)
    return loss, (x, target, weight)


def squared_error_backward(dloss: Any, saved: Any) -> Array:
    """dx_n = dloss_n w_n 2 (x_n - target_n) / count.   dloss (N,) float32, or a number."""
    x, target, weight = saved
    dx, n = x.context.empty(x.shape, x.dtype), x.shape[0]
    given, factor = scalar_or_array("squared_error", n, dloss)
    over_elements(
        "per_sample.cu", "sample_squares_backward", x, given, x, target, weight, dx, factor * 2 * n / x.size, x.size // n,
        x.size,
    )  # fmt: skip
    return dx


def columns(table: np.ndarray, index: Any) -> tuple[Array, ...]:
    """The rows `index` of a table, as its columns, rounded once to float32.

    table (rows, K) of the host, float64 and read-only: it goes to the device the first time, which cannot be in a capture.
    index (N,) integers from 0 to rows - 1; on the device int32, and nothing looks whether they lie in the table
    -> K arrays (N,).
    """
    assert table.ndim == 2 and table.dtype == np.float64 and not table.flags.writeable, (
        "columns: expected a read-only float64 table (rows, K)"
    )
    context = index.context if isinstance(index, Array) else current()
    index = integers_of(index, context, 0, len(table) - 1)
    (n,), k = index.shape, table.shape[1]
    copy, y = _copy_of(table, context), context.empty((k, n))
    context.launch("per_sample.cu", "columns", blocks(k * n, THREADS), THREADS, copy, index, y, k, n)
    return tuple(Array(y.buffer, (n,), y.dtype, y.offset + i * n) for i in range(k))


def gather(values: Array, index: Any) -> Array:
    """values[index].   values (K,) float32, index (N,) integers from 0 to K - 1 -> (N,).

    An index on the device is int32, and nothing looks whether it lies there.
    """
    assert (values.ndim, values.dtype) == (1, "float32"), f"gather: expected values (K,) of float32, got {values}"
    index = integers_of(index, values.context, 0, len(values) - 1)
    assert index.ndim == 1, f"gather: expected index (N,), got {index}"
    y = values.context.empty(index.shape)
    values.context.launch("per_sample.cu", "columns", blocks(len(y), THREADS), THREADS, values, index, y, 1, len(y))
    return y


def affine(a: Array, x: Array, b: Array, y: Array) -> Array:
    """a_n x_n + b_n y_n, in float32 the bits of the other engines.

    a and b (N,) float32, which they stay where x and y (N, ...) are bfloat16 -> of their type, float32 if one of them is.
    """
    assert x.shape == y.shape, f"affine: {x.shape} and {y.shape}"
    _one_a_sample("affine", x.shape[0], a, b)
    if x.dtype != y.dtype:
        x, y = cast(x, "float32"), cast(y, "float32")
    x, y = dense(x), dense(y)
    expect("affine", x.dtype, x, y)
    out = x.context.empty(x.shape, x.dtype)
    over_elements("per_sample.cu", "affine", x, a, x, b, y, out, x.size // x.shape[0], x.size)
    return out


def where(condition: Array, a: Any, b: Array) -> Array:
    """a_n of the samples where the condition holds, b_n of the others.

    condition (N,) of 0 and 1, int32 or float32, b (N, ...) float32, bfloat16 or int32, a an array like b or a number,
    which takes b's type -> like b.
    """
    assert condition.shape == b.shape[:1], f"where: a condition {condition.shape} for {b.shape}"
    assert condition.dtype in ("int32", "float32"), f"where: a condition of {condition.dtype}"
    assert b.dtype in ("int32", "float32", "bfloat16"), f"where: {b}"
    b, fill = dense(b), 0
    if isinstance(a, Array):
        assert (a.shape, a.dtype) == (b.shape, b.dtype), f"where: {a} and {b}"
        a = dense(a)
    else:
        assert b.dtype != "int32" or isinstance(a, int | np.integer), f"where: {a} among int32"
        a, fill = None, _word(a, b.dtype)
    y = b.context.empty(b.shape, b.dtype)
    over_elements("per_sample.cu", "choose", b, condition, a, b, y, ctypes.c_uint(fill), b.size // b.shape[0], b.size)
    return y


def less(a: Array, b: Array) -> Array:
    """1 where a < b, else 0: with a uniform on (0, 1), a bit that is 1 with probability b.

    a, b of one shape, compared as they are -> of b's type.
    """
    assert a.shape == b.shape, f"less: {a.shape} and {b.shape}"
    dtype = b.dtype
    if a.dtype != dtype:
        a, b = cast(a, "float32"), cast(b, "float32")
    a, b = dense(a), dense(b)
    expect("less", a.dtype, a, b)
    y = b.context.empty(b.shape, b.dtype)
    b.context.map("per_sample.cu", "less", b.size, a, b, y, dtype=b.dtype)
    return cast(y, dtype)


def stop(x: Array) -> Array:
    """The value of x without its gradient: x itself."""
    return x


def parts_of(samples: int, packs: int) -> int:
    """How many blocks share a sample of so many packs of 16 bytes: few if there are many samples."""
    return max(1, min(blocks(packs, 2 * THREADS), FILL_BLOCKS // samples))


def add_parts(partial: Array, weight: Array | None, loss: Array, scale: float) -> None:
    """loss_n = w_n scale times the sum of partial (N, parts) over its parts."""
    n, parts = partial.shape
    loss.context.launch(
        "per_sample.cu", "sample_means", blocks(n, THREADS), THREADS, partial, weight, loss, n, parts, scale
    )


def scalar_or_array(name: str, n: int, gradient: Any) -> tuple[Array | None, float]:
    """A gradient of N numbers as what kernels take: the array and 1, or null and the number that all have."""
    if isinstance(gradient, Array):
        _one_a_sample(name, n, gradient)
        return gradient, 1.0
    return None, float(gradient)


def _one_a_sample(name: str, n: int, *arrays: Array) -> None:
    for a in arrays:
        assert (a.shape, a.dtype) == ((n,), "float32"), f"{name}: expected float32 ({n},), got {a}"


def over_elements(source: str, name: str, x: Array, *arguments: Any) -> None:
    """Launch a kernel whose threads take 16 bytes of one sample of x, or one element where that does not divide it."""
    pack = 16 // ITEMSIZE[x.dtype]
    width = 1 if x.size // x.shape[0] % pack else pack
    dtype = "bfloat16" if x.dtype == "bfloat16" else "float32"
    x.context.launch(source, name, blocks(x.size, THREADS * width), THREADS, *arguments, dtype=dtype)


def _word(value: Any, dtype: str) -> int:
    """The bits of a number in 4 bytes; of bfloat16 twice over."""
    if dtype == "int32":
        return int(value) & 0xFFFFFFFF
    bits = int(np.float32(value).view(np.uint32))
    if dtype == "float32":
        return bits
    return int(to_bfloat16(np.array([value], np.float32))[0]) * 0x10001


# Of each device: id of a table -> the table, while it is alive, and its copy, which lies outside every arena.
_copies: WeakKeyDictionary[Device, dict[int, tuple[ref[np.ndarray], Array]]] = WeakKeyDictionary()


def copies_of(device: Device) -> dict[int, tuple[ref[np.ndarray], Array]]:
    """The tables that lie on a device, by id."""
    return _copies.setdefault(device, {})


def _copy_of(table: np.ndarray, context: Context) -> Array:
    """The table on the device, float32: sent there once."""
    copies, name = copies_of(context.device), id(table)
    if name not in copies:
        copy = Context(context.device, PerArrayAllocator(context.device)).array(table)
        copies[name] = ref(table, lambda _: copies.pop(name, None)), copy
    return copies[name][1]
