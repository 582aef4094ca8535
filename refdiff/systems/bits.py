"""What the diffusion of bits looks up at each t [DPM], and its reverse step as the network has it, in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from ..divergence import require_finite
from ..process import binomial_log_odds, binomial_posterior_coefficients, binomial_posterior_entropy, reciprocal
from .system import Asked

__all__ = ["bits_reverse", "bits_table", "check_bits"]


def check_bits(name: str, x: np.ndarray, advice: str = "") -> None:
    """ValueError, which names them, unless these are bits, -1 and 1."""
    if wrong := int(np.count_nonzero(np.abs(x) != 1)):
        raise ValueError(
            f"{name}: expected bits, each -1 or 1, got {wrong} of {x.size} values that are neither{advice}"
        )


@cache
def bits_table(T: int) -> np.ndarray:
    """Rows (2, 1/2, -1, alpha_bar_t / 2, c_0 / 2, c_t / 2, log odds of x_t, (h + h') / 2, (h - h') / 2, -T / log 2, 1) of
    t = 0 .. T, h the posterior's entropy where x_t = x_0, h' where not.   -> (T + 1, 11) float64, read-only; row 0 is 0"""
    s, t, one = reciprocal(T), np.arange(1, T + 1), np.ones(T)
    _, of_x0, of_xt = binomial_posterior_coefficients(s, t)
    agree, differ = binomial_posterior_entropy(s, t)
    columns = [2 * one, one / 2, -one, s.alpha_bar[1:] / 2, of_x0 / 2, of_xt / 2, binomial_log_odds(s, t)]
    columns += [(agree + differ) / 2, (agree - differ) / 2, -T / np.log(2) * one, one]
    table = np.zeros((T + 1, len(columns)))
    table[1:] = np.stack(columns, axis=1)
    table.flags.writeable = False
    return table


def bits_reverse(denoiser: Asked, T: int) -> Callable[[np.ndarray, Any], np.ndarray]:
    """reverse(x_t, t) -> the logits of p(x_{t-1} = 1 | x_t), x_t bits 0 and 1, float64."""
    s = reciprocal(T)

    def reverse(x: np.ndarray, t: Any) -> np.ndarray:
        sign, t = 2 * x - 1, np.broadcast_to(t, (len(x),))
        said = denoiser({"x": sign.astype(np.float32), "t": t}).astype(np.float64)
        require_finite("networks.denoiser", said, what="logits")  # any comparison with NaN would make a bit of it
        return said + binomial_log_odds(s, t).reshape(-1, *[1] * (x.ndim - 1)) * sign

    return reverse
