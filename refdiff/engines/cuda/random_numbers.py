"""Random numbers as operations: kernels/random.cu, the numbers of `refdiff.random`.

The step and the first sample of a sequence are integers, or int32 Arrays of shape () that are read when the kernel runs, so
that each replay of a captured step draws anew. Where others take n, for samples 0 .. n - 1, an int32 Array (N,) may say
which samples.
"""

from __future__ import annotations

import ctypes
from math import prod
from typing import Any

from ...random import Sequence, uniform_threshold
from .runtime.context import THREADS, Array, Context, blocks, current
from .structs import Struct, struct

__all__ = ["antithetic", "antithetic_steps", "bernoulli", "categorical", "integers", "normal", "uniform"]

SequenceStruct = struct("philox.cuh", "Sequence")


def normal(sequence: Sequence, n: int | Array, shape: tuple[int, ...]) -> Array:
    """Standard normal numbers [BoxMuller], computed in float64 and cast once.   -> (n, *shape) float32."""
    return _elements("normal", sequence, n, shape)


def uniform(sequence: Sequence, n: int | Array, shape: tuple[int, ...] = ()) -> Array:
    """Uniform on (0, 1), cast once from float64; the largest numbers round to 1.   -> (n, *shape) float32."""
    return _elements("uniform", sequence, n, shape)


def integers(sequence: Sequence, n: int | Array, low: int, high: int) -> Array:
    """Uniform integers from low to high, both included.   -> (n,) int32."""
    assert -(1 << 31) <= low <= high < 1 << 31, f"integers: expected low <= high in int32, got {low} and {high}"
    return _one_a_sample("integers", sequence, n, low, ctypes.c_ulonglong(high - low + 1))


def bernoulli(sequence: Sequence, n: int | Array, rate: float) -> Array:
    """1 where a uniform number does not exceed rate in [0, 1], in exact arithmetic, else 0: where `dropout` drops.

    -> (n,) int32.
    """
    assert 0 <= rate <= 1, f"bernoulli: expected a rate in [0, 1], got {rate}"
    return _one_a_sample("bernoulli", sequence, n, ctypes.c_ulonglong(uniform_threshold(rate)))


def categorical(sequence: Sequence, n: int | Array, cumulative: Array) -> Array:
    """How many entries of `cumulative` a uniform number reaches, at most K - 1; both in float64.

    cumulative (K,) float32, which do not decrease -> (n,) int32.
    """
    assert (cumulative.ndim, cumulative.dtype) == (1, "float32"), (
        f"categorical: expected float32 (K,), got {cumulative}"
    )
    assert len(cumulative), f"categorical: expected cumulative (K,), got {cumulative}"
    return _one_a_sample("categorical", sequence, n, cumulative, len(cumulative), context=cumulative.context)


def antithetic(sequence: Sequence, n: int, total: int) -> Array:
    """t_i = (u + i / total) mod 1 of the samples i = first .. first + n - 1 of a step of `total`, u one uniform number for
    all of them: each t is uniform, and together they are evenly spread.   [VDM] appendix I.1   -> (n,) float32 in [0, 1]
    """
    assert total >= 1, f"antithetic: expected a step of at least one sample, got {total}"
    _, _, context = _samples(sequence, n)
    y = context.empty((n,))
    context.launch("random.cu", "antithetic", blocks(n, THREADS), THREADS, y, n, total, sequence_struct(sequence))
    return y


def antithetic_steps(sequence: Sequence, n: int, total: int, T: int) -> Array:
    """1 + floor(T t_i), t_i those of `antithetic` in float64: steps from 1 to T.   -> (n,) int32"""
    assert T >= 1 and total >= 1, f"antithetic_steps: expected at least one step and one sample, got {T} and {total}"
    _, _, context = _samples(sequence, n)
    y, given = context.empty((n,), "int32"), sequence_struct(sequence)
    context.launch("random.cu", "antithetic_steps", blocks(n, THREADS), THREADS, y, n, total, T, given)
    return y


def advance(counter: Array) -> None:
    """counter += 1, in place, on the device: the number of the step that a captured graph is at. int32, shape ()."""
    assert (counter.shape, counter.dtype) == ((), "int32"), f"advance: expected an int32 scalar, got {counter}"
    counter.context.launch("random.cu", "advance", 1, 32, counter)


def sequence_struct(sequence: Sequence) -> Struct:
    """What kernels take for a sequence."""
    values: dict[str, Any] = {
        "low": sequence.seed & 0xFFFFFFFF, "high": sequence.seed >> 32, "stream": int(sequence.stream)
    }  # fmt: skip
    for name, x in (("step", sequence.step), ("first", sequence.first)):
        on_device = isinstance(x, Array)
        if isinstance(x, Array):
            assert (x.shape, x.dtype) == ((), "int32"), f"sequence.{name}: expected an int32 scalar, got {x}"
        values |= {name: 0 if on_device else x, f"{name}_at": x if on_device else None}
    return SequenceStruct(**values)


def _elements(name: str, sequence: Sequence, n: int | Array, shape: tuple[int, ...]) -> Array:
    sample_ids, samples, context = _samples(sequence, n)
    y, count = context.empty((samples, *shape)), prod(shape)
    grid = blocks(samples * blocks(count, 4), THREADS)
    context.launch("random.cu", name, grid, THREADS, sample_ids, y, samples, count, sequence_struct(sequence))
    return y


def _one_a_sample(
    name: str, sequence: Sequence, n: int | Array, *arguments: Any, context: Context | None = None
) -> Array:
    sample_ids, samples, found = _samples(sequence, n)
    context = context or found
    y, given = context.empty((samples,), "int32"), sequence_struct(sequence)
    context.launch(
        "random.cu", name, blocks(samples, THREADS), THREADS, sample_ids, y, samples, *arguments, given
    )  # fmt: skip
    return y


def _samples(sequence: Sequence, n: int | Array) -> tuple[Array | None, int, Context]:
    """Which samples, null for the first ones; how many; and whose memory the numbers go to."""
    at: tuple[Any, ...] = (n, sequence.step, sequence.first)
    context = next((a.context for a in at if isinstance(a, Array)), None) or current()
    if not isinstance(n, Array):
        return None, int(n), context
    assert (n.dtype, n.ndim) == ("int32", 1), f"n: expected how many samples or which, int32 (N,), got {n}"
    return n, n.shape[0], context
