"""The cross entropy of a classifier: kernels/softmax.cu. Logits of the network's type, the loss in float32."""

from __future__ import annotations

from typing import Any

from .embedding_ops import integers_of
from .per_sample import scalar_or_array
from .rows import MAX_THREADS, tiling
from .runtime.context import Array, blocks
from .tensor_ops import dense

__all__ = ["cross_entropy", "cross_entropy_backward"]


def cross_entropy(logits: Array, label: Any) -> tuple[Array, Any]:
    """loss_n = -log p_n[label_n], p = softmax(logits), float32.

    logits (N, K), label (N,) integers from 0 to K - 1; on the device int32, and nothing checks that they lie there -> (N,).
    """
    (n, k), context = logits.shape, logits.context
    logits, label = dense(logits), integers_of(label, context, 0, k - 1)
    assert label.shape == (n,), f"cross_entropy: {logits} and labels {label}"
    loss, kept = context.empty((n,)), context.empty((n, 2))
    _launch("cross_entropy", logits, logits, label, loss, kept, n, k)
    return loss, (logits, label, kept)


def cross_entropy_backward(dloss: Any, saved: Any) -> Array:
    """dlogits = dloss (p - one_hot(label)), of the type of the logits.   dloss (N,) float32, or a number."""
    logits, label, kept = saved
    (n, k), dlogits = logits.shape, logits.context.empty(logits.shape, logits.dtype)
    given, factor = scalar_or_array("cross_entropy", n, dloss)
    _launch("cross_entropy_backward", logits, given, logits, label, kept, dlogits, factor, n, k)
    return dlogits


def _launch(name: str, logits: Array, *arguments: Any) -> None:
    """A warp a row."""
    grid = blocks(logits.shape[0], MAX_THREADS // 32)
    logits.context.launch(
        "softmax.cu", name, grid, MAX_THREADS, *arguments, dtype=logits.dtype, PACKED=tiling(logits).packed
    )
