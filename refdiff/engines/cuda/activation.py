"""SiLU, GELU and ReLU: kernels/activation.cu. What is saved is x alone, of ReLU y; the backward works out the rest again."""

from __future__ import annotations

from typing import Any

from .runtime.context import Array

__all__ = [
    "gelu", "gelu_backward", "gelu_tanh", "gelu_tanh_backward", "relu", "relu_backward", "silu", "silu_backward",
]  # fmt: skip


def silu(x: Array) -> tuple[Array, Any]:
    """y = x s(x)."""
    return _forward("silu", x), x


def silu_backward(dy: Array, saved: Any) -> Array:
    """dy/dx = s (1 + x (1 - s))."""
    return _backward("silu", dy, saved)


def gelu(x: Array) -> tuple[Array, Any]:
    """y = x Phi(x)."""
    return _forward("gelu", x), x


def gelu_backward(dy: Array, saved: Any) -> Array:
    """dy/dx = Phi(x) + x phi(x)."""
    return _backward("gelu", dy, saved)


def gelu_tanh(x: Array) -> tuple[Array, Any]:
    """y = x (1 + tanh(u)) / 2."""
    return _forward("gelu_tanh", x), x


def gelu_tanh_backward(dy: Array, saved: Any) -> Array:
    """dy/dx = (1 + tanh u) / 2 + x / 2 (1 - tanh^2 u) du/dx."""
    return _backward("gelu_tanh", dy, saved)


def relu(x: Array) -> tuple[Array, Any]:
    """y = x where x > 0, else 0. NaN stays NaN."""
    y = _forward("relu", x)
    return y, y


def relu_backward(dy: Array, saved: Any) -> Array:
    """dx = dy where y > 0, else 0."""
    return _backward("relu", dy, saved)


def _forward(name: str, x: Array) -> Array:
    y = x.context.empty(x.shape, x.dtype)
    x.context.map("activation.cu", name, x.size, x, y, dtype=x.dtype)
    return y


def _backward(name: str, dy: Array, x: Array) -> Array:
    dx = x.context.empty(x.shape, x.dtype)
    x.context.map("activation.cu", f"{name}_backward", x.size, dy, x, dx, dtype=x.dtype)
    return dx
