"""The cross entropy of a classifier, and with it the gradient of log p(y | x) that guides a sampler [ADM] section 4."""

from __future__ import annotations

from typing import Any

import numpy as np

from .attention_ops import softmax

__all__ = ["cross_entropy", "cross_entropy_backward"]


def cross_entropy(logits: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, Any]:
    """loss_n = -log p_n[label_n] = log sum_k exp(logits_nk) - logits_n[label_n], p = softmax(logits).

    logits (N, K), label (N,) integers from 0 to K - 1 -> (N,).
    """
    n, k = logits.shape
    assert label.shape == (n,), f"cross_entropy: {logits.shape} and labels {label.shape}"
    assert np.all((label >= 0) & (label < k)), f"cross_entropy: expected labels from 0 to {k - 1}"
    rows, shifted = np.arange(n), logits - logits.real.max(axis=1, keepdims=True)
    p, _ = softmax(logits)
    return np.log(np.exp(shifted).sum(axis=1)) - shifted[rows, label], (p, label)


def cross_entropy_backward(dloss: Any, saved: Any) -> np.ndarray:
    """dlogits = dloss (p - one_hot(label)).   dloss (N,) or a number. A label has no gradient."""
    p, label = saved
    dlogits = p.copy()
    dlogits[np.arange(len(p)), label] -= 1
    return np.broadcast_to(np.asarray(dloss, p.dtype), len(p))[:, None] * dlogits
