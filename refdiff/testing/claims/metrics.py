"""Claims about the distance between sets of samples."""

from __future__ import annotations

import mpmath
import numpy as np
from hypothesis import strategies as st

from ...evaluation.metrics import frechet_distance
from ..claim import claim
from ..measures import relative_error
from ..strategies import seeds


@claim(
    r"d^2 = |m - m_w|^2 + \mathrm{tr}\big(C + C_w - 2\, (C C_w)^{1/2}\big)",
    source="[FID] eq. 6", of=frechet_distance, against="the root of the product itself, in 50-digit arithmetic", bound=1e-10,
    seed=seeds(), D=st.integers(1, 4), n=st.integers(2, 12), m=st.integers(2, 12), examples=15,
)  # fmt: skip
def the_frechet_distance_is_the_papers(seed: int, D: int, n: int, m: int) -> float:
    """(C C_w)^(1/2) as the sum of the roots of the eigenvalues of C C_w, which is not symmetric. Sets smaller than D too,
    whose covariances are singular; symmetric; 0 between a set and itself. In units of the traces."""
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((n, D)), 0.5 + rng.standard_normal((m, D)) @ rng.standard_normal((D, D))
    with mpmath.workdps(50):
        means, covariances = [], []
        for x in (a, b):
            rows = [[mpmath.mpf(v) for v in row] for row in x.tolist()]
            mean = [mpmath.fsum(column) / len(x) for column in zip(*rows, strict=True)]
            away = mpmath.matrix([[v - c for v, c in zip(row, mean, strict=True)] for row in rows])
            means.append(mean)
            covariances.append(away.T * away / (len(x) - 1))
        apart = mpmath.fsum((p - q) ** 2 for p, q in zip(*means, strict=True))
        product = covariances[0] * covariances[1]
        values = mpmath.eig(product, left=False, right=False) if D > 1 else [product[0, 0]]
        root = mpmath.fsum(mpmath.sqrt(abs(mpmath.re(v))) for v in values)
        traces = mpmath.fsum(c[i, i] for c in covariances for i in range(D))
        expected, size = float(apart + traces - 2 * root), float(apart + traces)
    if max(abs(frechet_distance(a, a)), abs(frechet_distance(b, b))) > 1e-7 * size:
        return np.inf
    slack = 1e-7 if min(n, m) <= D else 1e-10  # the root of an eigenvalue that should be 0 is the root of a rounding
    return max(
        abs(frechet_distance(a, b) - expected) / size * 1e-10 / slack,
        abs(frechet_distance(a, b) - frechet_distance(b, a)) / size * 1e-10 / slack,
    )


@claim(
    r"y = T x + c,\ T = T^\top > 0 \implies d^2 = \mathbb E\,|x - y|^2",
    source="[Frechet]", of=frechet_distance, against="the mean square length of the map that moves one set to the other",
    bound=1e-9, seed=seeds(), D=st.integers(1, 6), n=st.integers(8, 60),
)  # fmt: skip
def the_frechet_distance_is_what_the_best_map_moves(seed: int, D: int, n: int) -> float:
    """A linear map with positive eigenvalues moves a Gaussian onto its image with the least square length there is, and that
    is the distance; of pixels in any shape. The variances of sets are over n - 1."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, D)) * np.exp(rng.uniform(-1, 1, D))
    vectors, _ = np.linalg.qr(rng.standard_normal((D, D)))
    T, c = vectors * rng.uniform(0.3, 2, D) @ vectors.T, rng.standard_normal(D)
    y = x @ T + c
    away = (x - x.mean(axis=0)) - (y - y.mean(axis=0))
    expected = ((x.mean(axis=0) - y.mean(axis=0)) ** 2).sum() + (away**2).sum() / (n - 1)
    return relative_error(frechet_distance(x.reshape(n, D, 1), y.reshape(n, 1, D)), expected)
