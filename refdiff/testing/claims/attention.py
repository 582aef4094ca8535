"""Claims about attention: softmax and the weighted mean of the values, head by head."""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np
from hypothesis import strategies as st

from ...engines import reference
from ..claim import claim
from ..derivatives import backward_errors
from ..measures import relative_error
from ..strategies import seeds

lengths: Any = st.integers(1, 5)


def _weighted_mean(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    """The row of one query q (d,), keys and values (L, d): sum_l v_l exp(q.k_l / sqrt d) / sum_l exp(...), 50 digits."""
    with mpmath.workdps(50):
        rows = [[mpmath.mpf(a) for a in row] for row in k.tolist()]
        query = [mpmath.mpf(a) for a in q.tolist()]
        weights = [mpmath.exp(mpmath.fdot(query, row) / mpmath.sqrt(len(query))) for row in rows]
        total = mpmath.fsum(weights)
        return np.array([float(mpmath.fdot(weights, map(mpmath.mpf, column)) / total) for column in v.T.tolist()])


@claim(
    r"\mathrm{Attention}(Q, K, V) = \mathrm{softmax}\Big(\frac{Q K^\top}{\sqrt{d_k}}\Big) V",
    source="[Attention] eq. 1", of=reference.attention, against="50-digit arithmetic, query by query", bound=1e-14,
    seed=seeds(), heads=st.integers(1, 3), d=st.integers(1, 4), queries=lengths, keys=lengths,
    size=st.sampled_from([1.0, 30.0]),
)  # fmt: skip
def attention_is_the_weighted_mean_of_the_values(
    seed: int, heads: int, d: int, queries: int, keys: int, size: float
) -> float:
    """Each head has channels of its own; as many keys as there are, self or cross; scores up to thousands. In units of the
    values and of one rounding of a score."""
    rng = np.random.default_rng(seed)
    q = size * rng.standard_normal((2, queries, heads * d))
    k, v = size * rng.standard_normal((2, keys, heads * d)), rng.standard_normal((2, keys, heads * d))
    y, _ = reference.attention(q, k, v, heads)
    parts = [slice(h * d, h * d + d) for h in range(heads)]
    expected = np.array(
        [[np.concatenate([_weighted_mean(q[n, i, p], k[n, :, p], v[n, :, p]) for p in parts]) for i in range(queries)]
         for n in range(2)]
    )  # fmt: skip
    return float(np.abs(y - expected).max() / ((1 + size**2 * 4 * d**0.5) * np.abs(v).max()))


@claim(
    r"\pi K,\ \pi V \mapsto \text{the same rows};\quad K + \mathbf 1 c^\top \mapsto \text{the same rows};\quad"
    r" \textstyle\sum_l p_{sl} = 1",
    source="[Attention] eq. 1", of=reference.attention, against="the operation itself on other inputs, and complex steps",
    bound=1e-12, seed=seeds(), heads=st.integers(1, 3), queries=lengths, keys=lengths,
)  # fmt: skip
def attention_does_not_see_the_order_of_its_keys(seed: int, heads: int, queries: int, keys: int) -> float:
    """Nor a vector added to all keys, which the softmax divides out; values that are all alike come back; values alone enter
    linearly; and the gradients are those of complex steps."""
    rng = np.random.default_rng(seed)
    q, (k, v) = rng.standard_normal((2, queries, 2 * heads)), rng.standard_normal((2, 2, keys, 2 * heads))
    y, _ = reference.attention(q, k, v, heads)
    order, shift = rng.permutation(keys), rng.standard_normal((2, 1, 2 * heads))
    moved, _ = reference.attention(q, k[:, order], v[:, order], heads)
    shifted, _ = reference.attention(q, k + shift, v, heads)
    alike, _ = reference.attention(q, k, 0 * v + shift, heads)
    errors = backward_errors(
        lambda q, k, v: reference.attention(q, k, v, heads), reference.attention_backward, (q, k, v), rng
    )
    size = np.abs(v).max() * np.ones_like(y)
    same = [relative_error(a, b, size) for a, b in ((moved, y), (shifted, y), (alike, shift + 0 * y))]
    return max(*same, *errors.values())
