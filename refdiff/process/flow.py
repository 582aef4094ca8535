"""The likelihood of data under the probability-flow ODE, by the change of density along it [SDE] section 4.3.

With y = x / sqrt(alpha_bar) and sigma^2 = (1 - alpha_bar) / alpha_bar the flow is dy = eps_hat(y, sigma) dsigma, and

    log p(x_0) = log p(y_T) + integral of div_y eps_hat dsigma from 0 to sigma_T        [SDE] eq. 39
               = log p(x_T) + D/2 log alpha_bar_T + the same

D is the number of elements of a sample. For few elements: the exact divergence asks 2 D predictions at each point.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from .arrays import Array, namespace
from .samplers import Predict, backwards, scales
from .schedules import Schedule

__all__ = ["flow_log_likelihood"]


def flow_log_likelihood(
    schedule: Schedule,
    predict: Predict,
    x0: Array,
    timesteps: Sequence[int],
    probes: Array | None = None,
    prior: Callable[[Array], Array] | None = None,
) -> Array:
    """log p(x_0) in nats, by Heun's rule over the steps from 0 up.   [SDE] eq. 39   x0 (N, ...) -> (N,)

    At t = 0, where no model can be asked, eps_hat = -sigma score is 0 as long as the data have a smooth density.
    probes: None for the exact divergence; or (M, N, ...) independent numbers of mean 0 and variance 1 (signs are best),
        for the estimate sum(e . Je) / M of Hutchinson [SDE] eq. 40, for data of many elements.
    prior: log p(x_T) (N, ...) -> (N,); the standard normal density unless given.
    Error: of second order in the steps, and from central differences 1e-9 in float64, 1e-4 in float32.
    """
    if x0.ndim < 2 or (probes is not None and tuple(probes.shape[1:]) != tuple(x0.shape)):
        came = tuple(x0.shape) if probes is None else (tuple(x0.shape), tuple(probes.shape))
        raise ValueError(f"x0, probes: expected samples (N, ...), and probes (M, N, ...) or None, got {came}")
    a, sigma = scales(schedule, x0, timesteps)
    size = math.prod(x0.shape[1:])
    directions = _axes(x0) if probes is None else probes
    weight = 1.0 if probes is None else 1 / probes.shape[0]

    def field(y: Array, t: int) -> tuple[Array, Array]:
        """eps_hat at y and its divergence in y."""
        x = a[t] * y
        return predict(x, t)[1], a[t] * weight * _divergence(lambda x: predict(x, t)[1], x, directions)

    t, y, total, slope, growth = 0, x0, 0.0, 0.0 * x0, 0.0
    for u, _ in reversed([*backwards(schedule, timesteps)]):
        step = sigma[u] - sigma[t]
        slope_there, growth_there = field(y + step * slope, u)
        y = y + step / 2 * (slope + slope_there)
        total = total + step / 2 * (growth + growth_there)
        t, (slope, growth) = u, field(y, u)
    x_T = a[t] * y
    log_prior = prior(x_T) if prior else -0.5 * (_sum(x_T**2) + size * math.log(2 * math.pi))
    return log_prior + size * math.log(a[t]) + total


def _divergence(f: Callable[[Array], Array], x: Array, directions: Array) -> Array:
    """sum_i d_i . (df/dx) d_i by central differences.   x (N, ...), directions (M, N, ...) -> (N,)."""
    xp = namespace(x)
    h = float(xp.finfo(x.dtype).eps) ** (1 / 3)
    total = 0.0
    for i in range(directions.shape[0]):
        d = directions[i, ...]
        total = total + _sum(d * (f(x + h * d) - f(x - h * d))) / (2 * h)
    return total


def _axes(x: Array) -> Array:
    """The D unit vectors of a sample's space, each for every sample.   (N, ...) -> (D, N, ...)."""
    size = math.prod(x.shape[1:])
    unit = np.broadcast_to(np.eye(size).reshape(size, 1, *x.shape[1:]), (size, *x.shape))
    xp = namespace(x)
    if xp is np:
        return unit.astype(x.dtype)
    import array_api_compat

    return xp.asarray(np.ascontiguousarray(unit), dtype=x.dtype, device=array_api_compat.device(x))


def _sum(x: Array) -> Array:
    """Over all elements of each sample.   (N, ...) -> (N,)."""
    return namespace(x).sum(x, axis=tuple(range(1, x.ndim)))
