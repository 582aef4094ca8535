"""How wrong a number is, and the independent means to know: relative errors, 50-digit arithmetic, quadrature."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["exact_alpha_bar", "gauss_hermite", "normal_logpdf", "relative", "standard_errors"]


def relative(actual: Any, expected: Any, scale: Any = None) -> float:
    """||actual - expected|| / ||scale||, scale the expected value unless given; 0 / 0 is 0, NaN stays NaN."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    difference = float(np.linalg.norm(np.ravel(actual - expected)))
    size = float(np.linalg.norm(np.ravel(np.asarray(expected if scale is None else scale, np.float64))))
    return difference / size if size else (0.0 if difference == 0 else difference * np.inf)


def standard_errors(samples: np.ndarray, expected: Any) -> float:
    """How many standard errors the mean of samples (N, ...) lies from its expected value; the largest over elements."""
    mean, error = samples.mean(axis=0), samples.std(axis=0, ddof=1) / np.sqrt(len(samples))
    return float(np.max(np.abs(mean - expected) / error))


def gauss_hermite(f: Callable[[np.ndarray], np.ndarray], mean: float = 0.0, sd: float = 1.0, nodes: int = 64) -> Any:
    """E[f(x)] for x ~ N(mean, sd^2); exact for polynomials up to degree 2 nodes - 1.   f (nodes,) -> (nodes, ...)."""
    x, w = np.polynomial.hermite_e.hermegauss(nodes)
    return np.tensordot(w / w.sum(), f(mean + sd * x), axes=1)


def normal_logpdf(x: np.ndarray, mean: Any, variance: Any) -> np.ndarray:
    """log N(x; mean, variance), elementwise."""
    return -0.5 * ((x - mean) ** 2 / variance + np.log(2 * np.pi * variance))


def exact_alpha_bar(beta: np.ndarray, k: int, t: int) -> Any:
    """prod_{k < s <= t} (1 - beta_s) in 50-digit arithmetic, from the float64 beta themselves.   -> mpmath.mpf"""
    import mpmath

    with mpmath.workdps(50):
        product = mpmath.mpf(1)
        for b in beta[k + 1 : t + 1].tolist():
            product *= 1 - mpmath.mpf(b)
        return product
