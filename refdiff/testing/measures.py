"""How wrong a number is, and the independent means to know: relative errors, 50-digit arithmetic, quadrature."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .trees import leaves

__all__ = ["exact_alpha_bar", "gauss_hermite", "normal_logpdf", "quotient", "relative_error", "standard_errors"]


def relative_error(actual: Any, expected: Any, scale: Any = None) -> float:
    """||actual - expected|| / ||scale||, scale the expected value unless given; of trees, the largest of all their arrays.

    0 / 0 is 0, NaN stays NaN, and what is not 0 over 0 is infinite. ValueError for different shapes.
    """
    a, b = leaves(actual), leaves(expected)
    shapes = [{name: np.shape(leaf) for name, leaf in tree.items()} for tree in (a, b)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"actual: expected the shapes {shapes[1]}, got {shapes[0]}")
    sizes = b if scale is None else leaves(scale)
    return float(np.max([quotient(_norm(_wide(a[n]) - _wide(b[n])), _norm(_wide(sizes[n]))) for n in b]))


def quotient(difference: float, size: float) -> float:
    """difference / size, 0 / 0 = 0: an exact zero that should be one is right."""
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


def _wide(a: Any) -> np.ndarray:
    """In double precision, real or complex."""
    return np.asarray(a, np.complex128 if np.iscomplexobj(a) else np.float64)


def _norm(a: np.ndarray) -> float:
    return float(np.linalg.norm(np.ravel(a)))
