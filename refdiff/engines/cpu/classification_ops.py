"""The cross entropy of a classifier: little work, done as the reference does it."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import reference
from .runtime.memory import empty
from .runtime.profiler import operation
from .runtime.traced_array import call

__all__ = ["cross_entropy", "cross_entropy_backward"]


@operation
def cross_entropy(logits: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, Any]:
    """loss_n = -log p_n[label_n], p = softmax(logits).   logits (N, K), label (N,) integers from 0 to K - 1 -> (N,)."""
    loss, p = empty((len(logits),)), empty(logits.shape)
    call(_forward, logits, label, loss, p)
    return loss, (p, label)


@operation
def cross_entropy_backward(dloss: Any, saved: Any) -> np.ndarray:
    """dlogits = dloss (p - one_hot(label)).   dloss (N,) or a number. A label has no gradient."""
    p, label = saved
    dlogits = empty(p.shape)
    call(_backward, dloss, p, label, dlogits)
    return dlogits


def _forward(logits: np.ndarray, label: np.ndarray, loss: np.ndarray, p: np.ndarray) -> None:
    loss[...], (p[...], _) = reference.cross_entropy(logits, label)


def _backward(dloss: Any, p: np.ndarray, label: np.ndarray, dlogits: np.ndarray) -> None:
    dlogits[...] = reference.cross_entropy_backward(dloss, (p, label))
