"""Claims about the normalisations: mean 0 and variance 1, within which set, and what of the input no longer shows."""

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

layouts: Any = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(4, 9))
offsets: Any = st.sampled_from([0.0, 1e3])


def _normalised(values: np.ndarray, epsilon: float) -> np.ndarray:
    """(x - mean) / sqrt(variance + epsilon) of all these numbers, in 50-digit arithmetic.   any shape -> the same"""
    with mpmath.workdps(50):
        x = [mpmath.mpf(v) for v in values.ravel().tolist()]
        mean = mpmath.fsum(x) / len(x)
        sd = mpmath.sqrt(mpmath.fsum([(v - mean) ** 2 for v in x]) / len(x) + mpmath.mpf(epsilon))
        return np.array([float((v - mean) / sd) for v in x]).reshape(values.shape)


def _grouped(x: np.ndarray, groups: int, epsilon: float) -> tuple[np.ndarray, float]:
    """Each group of each sample normalised, and the largest of their mean over deviation, which is how many times larger a
    rounding of x is in units of xhat.   (N, positions, C) -> (N, positions, C), number"""
    n, positions, channels = x.shape
    split = x.reshape(n, positions, groups, channels // groups)
    xhat = np.stack([np.stack([_normalised(split[i, :, g], epsilon) for g in range(groups)], 1) for i in range(n)])
    return xhat.reshape(x.shape), float((1 + np.abs(split).max(axis=(1, 3)) / split.std(axis=(1, 3))).max())


def _drawn(seed: int, shape: tuple[int, ...], offset: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return offset + rng.standard_normal(shape), rng.standard_normal(shape[-1]), rng.standard_normal(shape[-1])


@claim(
    r"\hat x_i = \frac{x_i - \mu_i}{\sigma_i},\quad \mu_i,\ \sigma_i^2 = \text{mean and variance over}\ S_i ="
    r" \{k : k_N = i_N,\ \lfloor k_C / (C/G) \rfloor = \lfloor i_C / (C/G) \rfloor\}",
    source="[GN] eqs. 1 and 7", of=reference.group_norm, against="50-digit arithmetic, set by set", bound=1e-14,
    seed=seeds(), layout=layouts, offset=offsets,
)  # fmt: skip
def group_norm_normalises_each_group_of_each_sample(
    seed: int, layout: tuple[int, int, int, int], offset: float
) -> float:
    """G groups of neighbouring channels, all positions of one sample. In units of one rounding of the input, for a mean of 0
    and one of 1000 standard deviations; a shift of the input and, with epsilon's, its scale do not show."""
    n, groups, inner, positions = layout
    x, weight, bias = _drawn(seed, (n, positions, groups * inner), offset)
    y, _ = reference.group_norm(x, weight, bias, groups, 1e-6)
    xhat, rounding = _grouped(x, groups, 1e-6)
    expected = xhat * weight + bias
    other, _ = reference.group_norm(8 * x - 3, weight, bias, groups, 64e-6)
    size = rounding * (np.abs(weight) + np.abs(bias)) * np.ones_like(x)
    return max(relative_error(y, expected, size), relative_error(other, expected, size))


@claim(
    r"\mu = \frac1H \sum_i a_i,\quad \sigma = \sqrt{\frac1H \sum_i (a_i - \mu)^2},\quad"
    r" y = w \odot \frac{a - \mu}{\sigma} + b",
    source="[LN] eq. 3, section 3", of=reference.layer_norm, against="50-digit arithmetic, row by row", bound=1e-14,
    seed=seeds(), rows=st.integers(1, 5), channels=st.integers(4, 40), offset=offsets,
)  # fmt: skip
def layer_norm_normalises_each_row(seed: int, rows: int, channels: int, offset: float) -> float:
    """Each row for itself, its variance with epsilon; in units of one rounding of the input."""
    x, weight, bias = _drawn(seed, (2, rows, channels), offset)
    y, _ = reference.layer_norm(x, weight, bias, 1e-5)
    expected = np.stack([[_normalised(row, 1e-5) for row in rows] for rows in x]) * weight + bias
    rounding = 1 + np.abs(x).max(axis=-1, keepdims=True) / x.std(axis=-1, keepdims=True)
    return relative_error(y, expected, rounding * (np.abs(weight) + np.abs(bias)))


@claim(
    r"\mathrm{AdaGN}(h, y) = y_s\, \mathrm{GroupNorm}(h) + y_b,\quad y_s = 1 + \mathrm{scale},\ y_b = \mathrm{shift}",
    source="[ADM] section 3.1, [SiLU]", of=reference.adaptive_group_norm_silu, bound=1e-13,
    against="50-digit arithmetic, and complex steps", seed=seeds(), layout=layouts,
)  # fmt: skip
def an_adaptive_norm_scales_and_shifts_each_sample_and_channel(seed: int, layout: tuple[int, int, int, int]) -> float:
    """Followed by SiLU, as in a residual block; scale and shift of 0 leave group norm and SiLU; all gradients, those of
    scale and shift among them."""
    n, groups, inner, positions = layout
    x, weight, bias = _drawn(seed, (n, positions, groups * inner), 0.0)
    rng = np.random.default_rng(seed + 1)
    scale, shift = rng.standard_normal((2, n, groups * inner))
    y, _ = reference.adaptive_group_norm_silu(x, scale, shift, weight, bias, groups)
    xhat, rounding = _grouped(x, groups, 1e-6)
    z = (1 + scale)[:, None] * (xhat * weight + bias) + shift[:, None]
    size = rounding * ((1 + np.abs(scale[:, None])) * (np.abs(weight) + np.abs(bias)) + np.abs(shift[:, None]) + 0 * x)
    plain, _ = reference.group_norm_silu(x, weight, bias, groups)
    same, _ = reference.adaptive_group_norm_silu(x, 0 * scale, 0 * shift, weight, bias, groups)
    errors = backward_errors(
        lambda x, a, b, p: reference.adaptive_group_norm_silu(x, a, b, **p, groups=groups),
        reference.adaptive_group_norm_silu_backward, (x, scale, shift, {"weight": weight, "bias": bias}), rng,
    )  # fmt: skip
    silu = z / (1 + np.exp(-z))
    return max(relative_error(y, silu, size), relative_error(same, plain, size), *errors.values())
