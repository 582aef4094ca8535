"""SiLU, GELU, ReLU, softplus and exp(x) - 1: kernels/activation.cu. What is saved is x alone, of ReLU y; the
backward works out the rest again, in the type of x."""

from __future__ import annotations

from typing import Any

from .runtime.context import Array
from .tensor_ops import cast, dense

__all__ = [
    "expm1", "expm1_backward", "gelu", "gelu_backward", "gelu_tanh", "gelu_tanh_backward", "relu", "relu_backward",
    "silu", "silu_backward", "softplus", "softplus_backward",
]  # fmt: skip


def silu(x: Array) -> tuple[Array, Any]:
    """y = x s(x)."""
    return _forward("silu", x)


def silu_backward(dy: Array, saved: Any) -> Array:
    """dy/dx = s (1 + x (1 - s))."""
    return _backward("silu_backward", dy, saved)


def gelu(x: Array) -> tuple[Array, Any]:
    """y = x Phi(x)."""
    return _forward("gelu", x)


def gelu_backward(dy: Array, saved: Any) -> Array:
    """dy/dx = Phi(x) + x phi(x)."""
    return _backward("gelu_backward", dy, saved)


def gelu_tanh(x: Array) -> tuple[Array, Any]:
    """y = x (1 + tanh(u)) / 2."""
    return _forward("gelu_tanh", x)


def gelu_tanh_backward(dy: Array, saved: Any) -> Array:
    """dy/dx = (1 + tanh u) / 2 + x / 2 (1 - tanh^2 u) du/dx."""
    return _backward("gelu_tanh_backward", dy, saved)


def relu(x: Array) -> tuple[Array, Any]:
    """y = x where x > 0, else 0. NaN stays NaN."""
    y, _ = _forward("relu", x)
    return y, y


def relu_backward(dy: Array, saved: Any) -> Array:
    """dx = dy where y > 0, else 0."""
    return _backward("relu_backward", dy, saved)


def softplus(x: Array) -> tuple[Array, Any]:
    """y = log(1 + exp(x)), which cannot overflow."""
    return _forward("softplus", x)


def softplus_backward(dy: Array, saved: Any) -> Array:
    """dy/dx = sigmoid(x)."""
    return _backward("softplus_backward", dy, saved)


def expm1(x: Array) -> tuple[Array, Any]:
    """y = exp(x) - 1, small values with all their digits."""
    return _forward("expm1_of", x)


def expm1_backward(dy: Array, saved: Any) -> Array:
    """dy/dx = exp(x)."""
    return _backward("expm1_of_backward", dy, saved)


def _forward(name: str, x: Array) -> tuple[Array, Array]:
    """y, and x as it was read."""
    x, y = dense(x), x.context.empty(x.shape, x.dtype)
    x.context.map("activation.cu", name, x.size, x, y, dtype=x.dtype)
    return y, x


def _backward(name: str, dy: Array, x: Array) -> Array:
    dy, dx = cast(dense(dy), x.dtype), x.context.empty(x.shape, x.dtype)
    x.context.map("activation.cu", name, x.size, dy, x, dx, dtype=x.dtype)
    return dx
