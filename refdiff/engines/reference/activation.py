"""SiLU [SiLU], GELU [GELU], the latter exact and in its tanh form, ReLU, softplus and exp(x) - 1. Any shape in, the same
shape out."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = [
    "expm1", "expm1_backward", "gelu", "gelu_backward", "gelu_tanh", "gelu_tanh_backward", "relu", "relu_backward",
    "silu", "silu_backward", "softplus", "softplus_backward",
]  # fmt: skip

_GAUSS_LEGENDRE = [*zip(*(a.tolist() for a in np.polynomial.legendre.leggauss(24)), strict=True)]  # nodes and weights
_C = np.sqrt(2 / np.pi).item()


def silu(x: np.ndarray) -> tuple[np.ndarray, Any]:
    """y = x s(x), s(x) = 1 / (1 + exp(-x)) = (1 + tanh(x / 2)) / 2, which cannot overflow.   [SiLU]"""
    s = 0.5 + 0.5 * np.tanh(0.5 * x)
    return x * s, (x, s)


def silu_backward(dy: np.ndarray, saved: Any) -> np.ndarray:
    """dy/dx = s (1 + x (1 - s))."""
    x, s = saved
    return dy * (s * (1 + x * (1 - s)))


def gelu(x: np.ndarray) -> tuple[np.ndarray, Any]:
    """y = x Phi(x), Phi(x) = (1 + erf(x / sqrt 2)) / 2, the normal distribution function.   [GELU] section 2"""
    cdf = 0.5 + 0.5 * _erf(x * 0.5**0.5)
    return x * cdf, (x, cdf)


def gelu_backward(dy: np.ndarray, saved: Any) -> np.ndarray:
    """dy/dx = Phi(x) + x phi(x), phi(x) = exp(-x^2 / 2) / sqrt(2 pi)."""
    x, cdf = saved
    return dy * (cdf + x * np.exp(-0.5 * x**2) * (2 * np.pi) ** -0.5)


def gelu_tanh(x: np.ndarray) -> tuple[np.ndarray, Any]:
    """y = x (1 + tanh(u)) / 2, u = sqrt(2 / pi) (x + 0.044715 x^3).   [GELU] section 2"""
    tanh = np.tanh(_C * (x + 0.044715 * x**3))
    return 0.5 * x * (1 + tanh), (x, tanh)


def gelu_tanh_backward(dy: np.ndarray, saved: Any) -> np.ndarray:
    """dy/dx = (1 + tanh u) / 2 + x / 2 (1 - tanh^2 u) du/dx, du/dx = sqrt(2 / pi) (1 + 3 * 0.044715 x^2)."""
    x, tanh = saved
    du = _C * (1 + 3 * 0.044715 * x**2)
    return dy * (0.5 * (1 + tanh) + 0.5 * x * (1 - tanh**2) * du)


def relu(x: np.ndarray) -> tuple[np.ndarray, Any]:
    """y = x where x > 0, else 0. NaN stays NaN."""
    y = np.where(x.real <= 0, np.zeros_like(x), x)
    return y, y


def relu_backward(dy: np.ndarray, saved: Any) -> np.ndarray:
    """dx = dy where y > 0, else 0."""
    y = saved
    return np.where(y.real <= 0, np.zeros_like(dy), dy)


def softplus(x: np.ndarray) -> tuple[np.ndarray, Any]:
    """y = log(1 + exp(x)) = max(x, 0) + log1p(exp(-|x|)), which cannot overflow; -softplus(-x) = log sigmoid(x)."""
    positive = x.real > 0
    return np.where(positive, x, 0) + np.log1p(np.exp(np.where(positive, -x, x))), x


def softplus_backward(dy: np.ndarray, saved: Any) -> np.ndarray:
    """dy/dx = sigmoid(x)."""
    return dy * sigmoid(saved)


def expm1(x: np.ndarray) -> tuple[np.ndarray, Any]:
    """y = exp(x) - 1, small values with all their digits."""
    y = np.expm1(x)
    return y, y


def expm1_backward(dy: np.ndarray, saved: Any) -> np.ndarray:
    """dy/dx = y + 1."""
    return dy * (saved + 1)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), small values with all their digits: what other operations are made of, and none itself."""
    positive = x.real > 0
    e = np.exp(np.where(positive, -x, x))  # of -|x|, which cannot overflow
    y: np.ndarray = np.where(positive, 1, e) / (1 + e)
    return y


def _erf(x: np.ndarray) -> np.ndarray:
    """erf(x) = 2 x / sqrt(pi) times the integral of exp(-x^2 u^2) over u from 0 to 1, by 24 Gauss-Legendre nodes.

    Analytic in x, as a complex step needs; within 3e-15 for |x| <= 6, beyond which erf is 1 to the last bit.
    """
    inside = np.where(np.abs(x.real) < 6, x, 0)
    integral = sum(w / 2 * np.exp(-((inside * (0.5 + 0.5 * node)) ** 2)) for node, w in _GAUSS_LEGENDRE)
    return np.where(np.abs(x.real) < 6, 2 * np.pi**-0.5 * inside * integral, np.sign(x.real)).astype(x.dtype)
