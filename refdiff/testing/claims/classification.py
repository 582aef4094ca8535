"""Claims about a classifier's loss."""

from __future__ import annotations

import mpmath
import numpy as np
from hypothesis import strategies as st

from ...engines import reference
from ..claim import claim
from ..strategies import seeds


@claim(
    r"L_n = -\log p_n[y_n] = \log \sum_k e^{z_{n,k}} - z_{n,y_n},\quad"
    r" \frac{\partial L_n}{\partial z_{n,k}} = p_{n,k} - [k = y_n]",
    source="[ADM] section 4", of=reference.cross_entropy, against="50-digit arithmetic", bound=1e-15, seed=seeds(),
    n=st.integers(1, 4), classes=st.integers(1, 12), size=st.sampled_from([1e-3, 1.0, 30.0, 1e4]),
    offset=st.sampled_from([0.0, -1e3, 1e5]),
)  # fmt: skip
def cross_entropy_is_minus_the_log_of_the_probability_of_the_label(
    seed: int, n: int, classes: int, size: float, offset: float
) -> float:
    """In units of 1 and the largest difference of two logits, wherever they lie; probabilities in units of 1. That the
    gradient is right is what guides a sampler: it is that of -log p(y | x)."""
    rng = np.random.default_rng(seed)
    logits, label = size * rng.uniform(-1, 1, (n, classes)) + offset, rng.integers(0, classes, n)
    loss, saved = reference.cross_entropy(logits, label)
    dlogits, errors = reference.cross_entropy_backward(1.0, saved), []
    with mpmath.workdps(50):
        for row, of, value, gradient in zip(logits.tolist(), label.tolist(), loss.tolist(), dlogits, strict=True):
            largest, spread = mpmath.mpf(max(row)), max(row) - min(row)
            powers = [mpmath.exp(mpmath.mpf(z) - largest) for z in row]
            total = mpmath.fsum(powers)
            errors.append(abs(value - (mpmath.log(total) + largest - mpmath.mpf(row[of]))) / (1 + spread))
            exact = [power / total - (k == of) for k, power in enumerate(powers)]
            errors += [abs(a - b) / (1 + spread) for a, b in zip(gradient.tolist(), exact, strict=True)]
    return float(max(errors))
