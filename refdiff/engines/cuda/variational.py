"""A term of the variational bound for a variance that is learned: kernels/variational.cu."""

from __future__ import annotations

import math
from typing import Any

from .per_sample import add_parts, parts_of, scalar_or_array
from .rows import expect
from .runtime.context import THREADS, Array, blocks
from .structs import struct
from .tensor_ops import dense

__all__ = ["variational_term", "variational_term_backward"]

Arguments = struct("variational.cu", "VariationalTerm")


def variational_term(
    v: Array,
    mean: Array,
    x0: Array,
    posterior_mean: Array,
    log_variance: Array,
    half_gap: Array,
    first: Array,
    bins: int | None,
) -> tuple[Array, Any]:
    """L_{t-1} of each sample for the variance that v stands for, L_0 where t = 1, in bits per dimension. [DDPM] eq. 5

    v (N, ..., C) of the network's type; mean, x0, posterior_mean of its shape and log_variance, half_gap, first (N,), all
    float32, for a difference of means is divided by a deviation that may be 1e-3 -> (N,) float32. What is saved is the
    gradient of a term by v. Nothing looks whether x0 lies on the levels of `bins`.
    """
    assert v.shape == mean.shape == x0.shape == posterior_mean.shape, (
        f"variational_term: {v.shape}, {mean.shape}, {x0.shape}, {posterior_mean.shape}"
    )
    assert log_variance.shape == half_gap.shape == first.shape == v.shape[:1], "variational_term: a number a sample"
    assert bins is None or bins >= 2, f"variational_term: expected at least 2 bins, or None, got {bins}"
    v, mean, x0, posterior_mean = dense(v), dense(mean), dense(x0), dense(posterior_mean)
    expect("variational_term", "float32", mean, x0, posterior_mean, log_variance, half_gap, first)
    n, context = v.shape[0], v.context
    count, slope, term = v.size // n, context.empty(v.shape), context.empty((n,))
    parts, scale = parts_of(n, count // 4), 1 / (count * math.log(2))
    out = term if parts == 1 else context.empty((n, parts))
    context.launch(
        "variational.cu", "variational_term", n * parts, THREADS,
        Arguments(
            v=v, mean=mean, x0=x0, posterior_mean=posterior_mean, log_variance=log_variance, half_gap=half_gap,
            first=first, slope=slope, out=out, bins=bins or 0, count=count, parts=parts, scale=scale,
        ),
        dtype=v.dtype,
    )  # fmt: skip
    if parts > 1:
        add_parts(out, None, term, scale)
    return term, (slope, v.dtype)


def variational_term_backward(dterm: Any, saved: Any) -> Array:
    """dv = dterm times the gradient of each sample's term, of v's type.   dterm (N,) float32, or a number."""
    slope, dtype = saved
    dv, n = slope.context.empty(slope.shape, dtype), slope.shape[0]
    given, factor = scalar_or_array("variational_term", n, dterm)
    slope.context.launch(
        "variational.cu", "variational_term_backward", blocks(slope.size, THREADS), THREADS, given, factor, slope, dv,
        slope.size // n, slope.size, dtype=dtype,
    )  # fmt: skip
    return dv
