"""alpha_bar as it was published, by a schedule's name: written from the papers in 50 digits, apart from `refdiff.process`.

A schedule is given by its beta_t, or by a function f with alpha_bar_t = f(t/T) / f(0), where
beta_t = 1 - f(t/T) / f((t-1)/T) is cut off at beta_max [IDDPM] section 3.2. The names are those of this library and of
diffusers; where one name means two schedules (sigmoid) the second is `sigmoid_beta`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import mpmath
import numpy as np
from mpmath import mpf

__all__ = ["PUBLISHED", "published"]

Betas = Iterator[Any]


def _spread(T: int, start: Any, end: Any) -> Iterator[Any]:
    """T numbers spread evenly from start to end."""
    return (start + (end - start) * mpf(i) / max(T - 1, 1) for i in range(T))


def linear(T: int, beta_start: float = 1e-4, beta_end: float = 0.02) -> Betas:
    """beta_t rises evenly [DDPM] section 4."""
    return _spread(T, mpf(beta_start), mpf(beta_end))


def rescaled_linear(T: int, beta_start: float = 1e-4, beta_end: float = 0.02, beta_max: float = 0.999) -> Betas:
    """Both ends of the linear schedule times 1000 / T, in the code of [IDDPM]; at most beta_max."""
    return (min(beta * 1000 / T, mpf(beta_max)) for beta in linear(T, beta_start, beta_end))


def quadratic(T: int, beta_start: float = 1e-4, beta_end: float = 0.02) -> Betas:
    """sqrt(beta_t) rises evenly, in the code of [DDPM]."""
    return (root**2 for root in _spread(T, mpmath.sqrt(beta_start), mpmath.sqrt(beta_end)))


def scaled_linear(T: int, beta_start: float = 0.00085, beta_end: float = 0.012) -> Betas:
    """The same between the ends of [LDM]."""
    return quadratic(T, beta_start, beta_end)


def constant(T: int, beta: float = 0.02) -> Betas:
    """beta_t = beta."""
    return _spread(T, mpf(beta), mpf(beta))


def sigmoid_beta(T: int, beta_start: float = 1e-4, beta_end: float = 0.02) -> Betas:
    """beta_t = beta_start + (beta_end - beta_start) S(x_t), x_t from -6 to 6 evenly, in the code of [GeoDiff]."""
    return (beta_start + (mpf(beta_end) - beta_start) / (1 + mpmath.exp(-x)) for x in _spread(T, mpf(-6), mpf(6)))


def _falling(T: int, f: Callable[[Any], Any], beta_max: float) -> Betas:
    """beta_t = 1 - f(t/T) / f((t-1)/T), at most beta_max."""
    before = f(mpf(0))
    for t in range(1, T + 1):
        now = f(mpf(t) / T)
        yield min(1 - now / before, mpf(beta_max))
        before = now


def cosine(T: int, s: float = 0.008, beta_max: float = 0.999) -> Betas:
    """f(u) = cos^2(pi/2 (u + s) / (1 + s)) [IDDPM] eq. 17; squaredcos_cap_v2 of diffusers."""
    return _falling(T, lambda u: mpmath.cos(mpmath.pi / 2 * (u + s) / (1 + mpf(s))) ** 2, beta_max)


def sigmoid(T: int, start: float = -3.0, end: float = 3.0, tau: float = 1.0, beta_max: float = 0.999) -> Betas:
    """f(u) = S(end / tau) - S((start + u (end - start)) / tau) [Chen23] algorithm 1."""

    def logistic(x: Any) -> Any:
        return 1 / (1 + mpmath.exp(-x))

    return _falling(T, lambda u: logistic(mpf(end) / tau) - logistic((start + u * (end - start)) / tau), beta_max)


def laplace(T: int, mu: float = 0.0, b: float = 0.5, floor: float = 0.0, beta_max: float = 0.999) -> Betas:
    """f(u) = S(lambda), lambda = mu - b sign(1/2 - u) log(1 - |1 - 2u| + floor), the logarithm of the signal-to-noise
    ratio, which is distributed like a Laplace variable [Hang24] section 2. floor keeps it finite at both ends."""

    def f(u: Any) -> Any:
        inside = 1 - abs(1 - 2 * u) + mpf(floor)
        if inside == 0:
            return mpf(1) if u == 0 else mpf(0)
        return 1 / (1 + mpmath.exp(-(mu - b * mpmath.sign(mpf(0.5) - u) * mpmath.log(inside))))

    return _falling(T, f, beta_max)


def exp(T: int, rate: float = 12.0, beta_max: float = 0.999) -> Betas:
    """f(u) = exp(-rate u): beta_t is the same at every t. In the code of diffusers."""
    return _falling(T, lambda u: mpmath.exp(-rate * u), beta_max)


PUBLISHED: dict[str, Callable[..., Betas]] = {
    schedule.__name__: schedule
    for schedule in (
        linear,
        rescaled_linear,
        quadratic,
        scaled_linear,
        constant,
        sigmoid_beta,
        cosine,
        sigmoid,
        laplace,
        exp,
    )
}


def published(name: str, zero_terminal_snr: bool = False, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    """sqrt(alpha_bar_t) and sqrt(1 - alpha_bar_t) of a published schedule, t = 0 .. T.   -> two float64 arrays (T+1,)

    options: T and the schedule's own. zero_terminal_snr: rescaled by [Lin24] algorithm 1. ValueError for an unknown name.
    """
    if name not in PUBLISHED or "T" not in options:
        raise ValueError(f"name: expected one of {', '.join(PUBLISHED)}, with T, got {name!r} with {options}")
    with mpmath.workdps(50):
        product, alpha_bar = mpf(1), [mpf(1)]
        for beta in PUBLISHED[name](**options):
            product *= 1 - beta
            alpha_bar.append(product)
        root = [mpmath.sqrt(v) for v in alpha_bar]
        if zero_terminal_snr:
            first, last = root[1], root[-1]
            root = [mpf(1), *((v - last) * first / (first - last) for v in root[1:])]
        a = np.array([float(v) for v in root])
        return a, np.array([float(mpmath.sqrt(1 - v**2)) for v in root])
