"""How kernels over samples are given arrays of either type, and how sums over a sample are launched: the other half of
kernels/samples.cuh."""

from __future__ import annotations

from typing import Any

from .per_sample import add_parts, parts_of
from .runtime.context import THREADS, Array, Context, blocks
from .structs import Struct, struct
from .tensor_ops import cast

__all__ = ["blocks_a_sample", "launch_sums", "like", "one_a_sample", "results", "values"]

Values = struct("samples.cuh", "Values")
Results = struct("samples.cuh", "Results")


def values(x: Array | None, one_a_sample: bool = False) -> Struct:
    """An array to be read, float32 or bfloat16, or zeros. one_a_sample: (N,), beside arrays of more elements."""
    return Values(**_side(x), shared=one_a_sample)


def results(y: Array | None) -> Struct:
    """An array to be written, or none."""
    return Results(**_side(y))


def one_a_sample(a: Array | None, x: Array) -> bool:
    """Whether a is one number a sample and x more. An assertion: it is that, or of x's shape."""
    assert a is None or a.shape in (x.shape, x.shape[:1]), f"expected {x.shape} or {x.shape[:1]}, got {a}"
    return a is not None and a.shape != x.shape


def launch_sums(
    context: Context,
    source: str,
    name: str,
    made: type[Struct],
    n: int,
    count: int,
    sums: tuple[str, ...],
    **fields: Any,
) -> tuple[Array, ...]:
    """Launch a kernel over n samples of count elements whose only argument is a struct with the fields `count` and `parts`,
    and with those named in `sums`, each a number a sample (n,) float32.   -> those."""
    parts, block = blocks_a_sample(n, count)
    partial = {field: context.empty((n, parts)) for field in sums}
    context.launch(source, name, n * parts, block, made(count=count, parts=parts, **partial, **fields))
    return tuple(_total(a) for a in partial.values())


def blocks_a_sample(n: int, count: int) -> tuple[int, int]:
    """How many blocks share each of n samples of count elements, and how many threads a block has."""
    return parts_of(n, count // 4), min(THREADS, blocks(count, 32) * 32)


def like(d: Array, a: Array) -> Array:
    """A gradient in the type of what it is the gradient of."""
    return cast(d, a.dtype)


def _total(partial: Array) -> Array:
    n, parts = partial.shape
    if parts == 1:
        return partial.view((n,))
    total = partial.context.empty((n,))
    add_parts(partial, None, total, 1.0)
    return total


def _side(x: Array | None) -> dict[str, Array]:
    if x is None:
        return {}
    assert x.dense and x.dtype in ("float32", "bfloat16"), f"expected a dense array of float32 or bfloat16, got {x}"
    return {"wide" if x.dtype == "float32" else "narrow": x}
