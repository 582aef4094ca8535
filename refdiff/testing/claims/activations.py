"""Claims about the activations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
from hypothesis import strategies as st

from ...engines import reference
from ...random import Sequence, normal
from ..claim import claim
from ..strategies import seeds

NORMALS = np.sort(normal(Sequence(0, 8), np.arange(1 << 16), (), np.float64))  # everywhere within 2.8 standard errors


def _exact(f: Callable[[Any], Any], x: np.ndarray) -> np.ndarray:
    """f in 50-digit arithmetic, element by element."""
    with mpmath.workdps(50):
        return np.array([float(f(mpmath.mpf(a))) for a in x.ravel().tolist()]).reshape(x.shape)


def _reach(seed: int, size: float) -> np.ndarray:
    """Numbers of every size up to `size`, both signs, and 0."""
    rng = np.random.default_rng(seed)
    return np.append(size * rng.uniform(-1, 1, 30) ** 3, 0.0)


def _worst(actual: np.ndarray, expected: np.ndarray, x: np.ndarray) -> float:
    """The largest error in units of |x|; at 0 every activation here is 0."""
    nonzero = x != 0
    if np.any(actual[~nonzero]):
        return np.inf
    return float(np.max(np.abs(actual[nonzero] - expected[nonzero]) / np.abs(x[nonzero])))


@claim(
    r"\mathrm{SiLU}(x) = \frac{x}{1 + e^{-x}}",
    source="[SiLU]", of=reference.silu, against="50-digit arithmetic", bound=1e-15, seed=seeds(),
    size=st.sampled_from([1.0, 30.0, 1e3, 1e300]),
)  # fmt: skip
def silu_is_the_logistic_function_times_its_argument(seed: int, size: float) -> float:
    """Relative to |x|, each element for itself; nothing overflows up to 1e300."""
    x = _reach(seed, size)
    return _worst(reference.silu(x)[0], _exact(lambda a: a / (1 + mpmath.exp(-a)), x), x)


@claim(
    r"\mathrm{GELU}(x) = x\, \Phi(x) = \frac x2 \Big(1 + \mathrm{erf}\frac{x}{\sqrt 2}\Big)",
    source="[GELU] section 2", of=reference.gelu, against="50-digit arithmetic, and the probability that a normal number"
    " lies below x", bound=3e-15, seed=seeds(), size=st.sampled_from([1.0, 6.0, 40.0]),
)  # fmt: skip
def gelu_keeps_x_with_the_probability_of_a_normal_number_below_it(seed: int, size: float) -> float:
    """Relative to |x|, each element for itself. The share of 65536 random numbers below x is within 5 standard errors of
    GELU(x) / x."""
    x = _reach(seed, size)
    y, _ = reference.gelu(x)
    nonzero = x != 0
    share, p = np.searchsorted(NORMALS, x[nonzero]) / NORMALS.size, y[nonzero] / x[nonzero]
    if np.any(np.abs(share - p) > 5 * np.sqrt(np.clip(p * (1 - p), 1e-9, None) / NORMALS.size) + 1e-9):
        return np.inf
    return _worst(y, _exact(lambda a: a * mpmath.ncdf(a), x), x)


@claim(
    r"\tfrac x2 \Big(1 + \tanh\big(\sqrt{2/\pi}\, (x + 0.044715\, x^3)\big)\Big) \approx x\, \Phi(x)",
    source="[GELU] section 2", of=reference.gelu_tanh, against="50-digit arithmetic", bound=1e-15, seed=seeds(),
    size=st.sampled_from([1.0, 6.0, 40.0, 1e90]),
)  # fmt: skip
def the_tanh_form_of_gelu_is_the_papers(seed: int, size: float) -> float:
    """Relative to |x|, each element for itself; and within 5e-4 of x Phi(x) everywhere, which is what the form is for."""
    x = _reach(seed, size)

    def tanh_form(a: Any) -> Any:
        return a / 2 * (1 + mpmath.tanh(mpmath.sqrt(2 / mpmath.pi) * (a + mpmath.mpf("0.044715") * a**3)))

    y, _ = reference.gelu_tanh(x)
    if size < 100 and np.abs(y - _exact(lambda a: a * mpmath.ncdf(a), x)).max() > 5e-4:
        return np.inf
    return _worst(y, _exact(tanh_form, x), x)
