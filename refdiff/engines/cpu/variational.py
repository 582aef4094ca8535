"""A term of the variational bound: divergences in float32, the few samples at t = 1 in float64, as log masses need."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...process import kl_gaussian, kl_gaussian_backward
from .. import reference
from .runtime.memory import empty
from .runtime.profiler import operation
from .runtime.traced_array import call

__all__ = ["variational_term", "variational_term_backward"]


@operation
def variational_term(
    v: np.ndarray,
    mean: np.ndarray,
    x0: np.ndarray,
    posterior_mean: np.ndarray,
    log_variance: np.ndarray,
    half_gap: np.ndarray,
    first: np.ndarray,
    bins: int | None,
) -> tuple[np.ndarray, Any]:
    """L_{t-1} of each sample for the variance that v stands for, L_0 where t = 1, in bits per dimension. As the reference.

    v, mean, x0, posterior_mean (N, ..., C), log_variance, half_gap, first (N,) -> (N,). What is saved is the gradient of a
    term by v. ValueError for x0 off the levels of `bins`, of samples at t = 1.
    """
    assert v.shape == mean.shape == x0.shape == posterior_mean.shape, (
        f"variational_term: {v.shape}, {mean.shape}, {x0.shape}, {posterior_mean.shape}"
    )
    assert log_variance.shape == half_gap.shape == first.shape == v.shape[:1], "variational_term: a number a sample"
    term, slope = empty((len(v),)), empty(v.shape)
    call(_work_out, v, mean, x0, posterior_mean, log_variance, half_gap, first, bins, term, slope)
    return term, slope


@operation
def variational_term_backward(dterm: Any, saved: Any) -> np.ndarray:
    """dv = dterm times the gradient of each sample's term.   dterm (N,) or a number -> (N, ..., C)."""
    slope, dv = saved, empty(saved.shape)
    column = dterm.reshape(-1, *[1] * (slope.ndim - 1)) if isinstance(dterm, np.ndarray) else np.float32(dterm)
    np.multiply(column, slope, out=dv)
    return dv


def _work_out(
    v: np.ndarray,
    mean: np.ndarray,
    x0: np.ndarray,
    posterior_mean: np.ndarray,
    log_variance: np.ndarray,
    half_gap: np.ndarray,
    first: np.ndarray,
    bins: int | None,
    term: np.ndarray,
    slope: np.ndarray,
) -> None:
    """Into term (N,), and into slope (N, ..., C) its gradient by v."""
    at_first = first != 0
    later = ~at_first
    if later.any():
        arrays = (a[later] for a in (v, mean, posterior_mean, log_variance, half_gap))
        term[later], slope[later] = _divergence(*arrays)
    if at_first.any():
        given = (v, mean, x0, posterior_mean, log_variance, half_gap, first)
        v, mean, x0, posterior_mean, log_variance, half_gap, first = (a[at_first].astype(np.float64) for a in given)
        term[at_first], saved = reference.variational_term(
            v, mean, x0, posterior_mean, log_variance, half_gap, first, bins
        )
        slope[at_first] = reference.variational_term_backward(1.0, saved)


def _divergence(
    v: np.ndarray, mean: np.ndarray, posterior_mean: np.ndarray, log_variance: np.ndarray, half_gap: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Term and slope for t > 1: see the reference."""
    column = (-1, *[1] * (v.ndim - 1))
    scale, half_gap, zero = np.float32(len(v) / (v.size * math.log(2))), half_gap.reshape(column), np.zeros_like(v)
    away = (posterior_mean - mean) * np.exp(np.float32(-0.5) * log_variance).reshape(column)
    kl, saved = kl_gaussian(away, zero, zero, (1 + v) * half_gap)
    slope = kl_gaussian_backward(np.ones_like(v), saved)[3] * (scale * half_gap)
    return kl.reshape(len(v), -1).sum(axis=1) * scale, slope
