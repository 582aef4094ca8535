"""SiLU and GELU: kernels/activation.cu. What is saved is x alone; the backward works out the rest again."""

from __future__ import annotations

from typing import Any

from .runtime.context import Array

__all__ = ["gelu", "gelu_backward", "gelu_tanh", "gelu_tanh_backward", "silu", "silu_backward"]


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


def _forward(name: str, x: Array) -> Array:
    y = x.context.empty(x.shape, x.dtype)
    x.context.map("activation.cu", name, x.size, x, y, dtype=x.dtype)
    return y


def _backward(name: str, dy: Array, x: Array) -> Array:
    dx = x.context.empty(x.shape, x.dtype)
    x.context.map("activation.cu", f"{name}_backward", x.size, dy, x, dx, dtype=x.dtype)
    return dx
