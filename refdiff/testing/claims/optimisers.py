"""Claims about what happens to the weights: Adam, its decay, clipping, and the learning rate."""

from __future__ import annotations

import math
from typing import Any

import mpmath
import numpy as np
from hypothesis import strategies as st

from ...training import adamw, clip, global_norm, learning_rate, zeros_like
from ..claim import claim
from ..measures import relative_error
from ..strategies import seeds

betas: Any = st.tuples(st.floats(0, 0.99), st.floats(0.5, 0.9999))
rates: Any = st.floats(1e-5, 0.1)


def _tree(rng: np.random.Generator, size: float = 1.0) -> Any:
    return {"a": size * rng.standard_normal((2, 2)), "b": {"c": size * rng.standard_normal(3)}}


def _flat(tree: Any) -> np.ndarray:
    return np.append(tree["a"].ravel(), tree["b"]["c"])


def _moments(gradients: list[float], beta1: float, beta2: float) -> tuple[Any, Any]:
    """The means of g and of g^2 over all steps, the i-th before the last counting beta^i: the corrected moments."""
    ages = range(len(gradients))
    g = [mpmath.mpf(x) for x in reversed(gradients)]
    means = []
    for beta, power in ((mpmath.mpf(beta1), 1), (mpmath.mpf(beta2), 2)):
        weights = [beta**age for age in ages]
        means.append(mpmath.fsum(w * x**power for w, x in zip(weights, g, strict=True)) / mpmath.fsum(weights))
    return means[0], means[1]


@claim(
    r"\theta_t = \theta_{t-1} - \alpha\, \frac{\hat m_t}{\sqrt{\hat v_t} + \epsilon},\quad \hat m_t ="
    r" \frac{m_t}{1 - \beta_1^t} = \frac{\sum_i \beta_1^{t-i} g_i}{\sum_i \beta_1^{t-i}},\quad \hat v_t ="
    r" \frac{\sum_i \beta_2^{t-i} g_i^2}{\sum_i \beta_2^{t-i}}",
    source="[Adam] algorithm 1", of=adamw, against="weighted means of all gradients, in 50-digit arithmetic", bound=1e-11,
    seed=seeds(), n=st.integers(1, 8), rate=rates, beta=betas, size=st.sampled_from([1e-6, 1.0, 1e6]),
)  # fmt: skip
def adam_divides_the_mean_gradient_by_its_root_mean_square(
    seed: int, n: int, rate: float, beta: tuple[float, float], size: float
) -> float:
    """The weights after n steps, relative to how far they went; no recursion in what they are held against. The first step
    moves every weight by the rate, whatever the size of its gradient, less what epsilon takes."""
    rng = np.random.default_rng(seed)
    p = first = _tree(rng)
    m, v = zeros_like(p), zeros_like(p)
    gradients = [_tree(rng, size) for _ in range(n)]
    for t, g in enumerate(gradients, 1):
        p, m, v = adamw(p, g, m, v, t, rate, 0.0, *beta)
        if t == 1:
            lost = 1e-8 / np.abs(_flat(g)) + 1e-15 * (1 + np.abs(_flat(first))) / rate  # to epsilon, and to rounding
            if np.any(np.abs(np.abs(_flat(p) - _flat(first)) / rate - 1) > 2 * lost):
                return np.inf
    moved = []
    with mpmath.workdps(50):
        for column in np.array([_flat(g) for g in gradients]).T.tolist():
            steps = [_moments(column[:t], *beta) for t in range(1, n + 1)]
            moved.append(
                float(mpmath.fsum(a / (mpmath.sqrt(b) + mpmath.mpf(1e-8)) for a, b in steps) * mpmath.mpf(rate))
            )
    return relative_error(_flat(first) - _flat(p), moved, np.abs(moved) + 1e-4 * np.abs(_flat(first)) + rate)


@claim(
    r"\theta_t = \theta_{t-1} - \eta_t \Big(\frac{\alpha\, \hat m_t}{\sqrt{\hat v_t} + \epsilon} + \lambda\,"
    r" \theta_{t-1}\Big),\quad \text{rate} = \eta_t \alpha,\ \text{weight decay} = \lambda / \alpha",
    source="[AdamW] algorithm 2", of=adamw, against="Adam without decay, and the power that decay alone is", bound=1e-12,
    seed=seeds(), n=st.integers(1, 8), rate=rates, decay=st.floats(0, 1), beta=betas,
)  # fmt: skip
def weight_decay_is_decoupled_from_the_gradient(
    seed: int, n: int, rate: float, decay: float, beta: tuple[float, float]
) -> float:
    """Gradients of 0 shrink the weights by (1 - rate decay)^n exactly, whatever the moments would divide by; with gradients,
    a step with decay is the step without it less rate decay theta, and the moments do not see it."""
    rng = np.random.default_rng(seed)
    p = q = _tree(rng)
    zero = zeros_like(p)
    m, v = zero, zero
    for t in range(1, n + 1):
        q, *_ = adamw(q, zero, zero, zero, t, rate, decay, *beta)
        g = _tree(rng)
        without, m_without, v_without = adamw(p, g, m, v, t, rate, 0.0, *beta)
        new, m, v = adamw(p, g, m, v, t, rate, decay, *beta)
        apart = relative_error(_flat(without) - _flat(new), rate * decay * _flat(p), np.abs(_flat(p)) + rate)
        if (
            not apart <= 1e-12
            or not np.array_equal(_flat(m), _flat(m_without))
            or not np.array_equal(_flat(v), _flat(v_without))
        ):
            return np.inf
        p = new
    with mpmath.workdps(50):
        power = float((1 - mpmath.mpf(rate) * mpmath.mpf(decay)) ** n)
    return relative_error(_flat(q), power * _flat(_tree(np.random.default_rng(seed))))


@claim(
    r"\hat g \leftarrow \frac{\text{threshold}}{\|\hat g\|}\, \hat g\quad\text{if}\ \|\hat g\| \ge \text{threshold}",
    source="[Pascanu] algorithm 1", of=clip, against="the norm by an exact sum of squares", bound=1e-14, seed=seeds(),
    most=st.floats(1e-3, 1e3), size=st.sampled_from([1e-6, 1.0, 1e6]),
)  # fmt: skip
def clipping_bounds_the_norm_of_all_gradients_together(seed: int, most: float, size: float) -> float:
    """Over every array at once, so that the direction stays; a gradient within the bound comes back as it was."""
    g = _tree(np.random.default_rng(seed), size)
    norm = math.sqrt(math.fsum(x * x for x in _flat(g).tolist()))
    clipped = _flat(clip(g, global_norm(g), most))
    if norm < most * (1 - 1e-12):
        return relative_error(global_norm(g), norm) if np.array_equal(clipped, _flat(g)) else np.inf
    after = math.sqrt(math.fsum(x * x for x in clipped.tolist()))
    return max(
        relative_error(global_norm(g), norm), abs(after / most - 1), relative_error(clipped / after, _flat(g) / norm)
    )


@claim(
    r"\eta_t = \eta_{\min} + \tfrac12 (\eta_{\max} - \eta_{\min}) \Big(1 + \cos\Big(\frac{T_{cur}}{T_i} \pi\Big)\Big),\quad"
    r" \eta_{\min} = 0,\ T_{cur} = t - \text{warmup},\ T_i = n - \text{warmup} + 1",
    source="[SGDR] eq. 5", of=learning_rate, against="50-digit arithmetic, and its symmetry about the middle", bound=1e-14,
    n=st.integers(1, 1000), share=st.floats(0, 1), warm=st.floats(0, 1), peak=rates,
)  # fmt: skip
def the_rate_falls_by_half_a_cosine(n: int, share: float, warm: float, peak: float) -> float:
    """In units of the peak: reached at the end of the warm-up, which is even; from there as far above the middle as later
    below it, and above 0 at the last step."""
    warmup = round(warm * n)
    step = 1 + round(share * (n - 1))
    actual = learning_rate(step, n, peak, warmup)
    if not 0 < learning_rate(n, n, peak, warmup) <= peak * (1 + 1e-15):
        return np.inf
    if step <= warmup:
        return abs(actual / peak - step / warmup)
    with mpmath.workdps(50):
        expected = float((1 + mpmath.cos(mpmath.pi * (step - warmup) / (n - warmup + 1))) / 2)
    mirror = n + 1 - (step - warmup)
    both = actual + learning_rate(mirror, n, peak, warmup) if mirror > warmup else peak
    return max(abs(actual / peak - expected), abs(both / peak - 1))
