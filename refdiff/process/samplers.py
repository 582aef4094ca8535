"""Sampling: one function per algorithm, whose body is the algorithm. Each yields (t_prev, x) after every step.

    predict(x_t, t) -> (x0_hat, eps_hat)    with x_t = a x0_hat + s eps_hat, see `predictor`; t is one integer
    timesteps                               any of 1 .. T, increasing, as `uniform_steps` gives them; walked backwards to 0
    noise(t) -> eps ~ N(0, I)               for the step that leaves t

All arrays are of x's shape; another is a ValueError. Where the last of the timesteps is not T, as with `leading_steps`, x is
what is said to be x_t there.

`final(ancestral(...))` runs a sampler to its end; looping over it shows the way there.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import numpy as np

from .arrays import Array, Time, floating, like, same_shape, single, steps, two
from .posterior import posterior_mean, posterior_variance
from .schedules import Schedule

__all__ = ["ancestral", "ancestral_step", "ddim", "ddim_step", "euler_ancestral", "final"]

Predict = Callable[[Array, Time], tuple[Array, Array]]
Noise = Callable[[int], Array]
Variance = Callable[[Schedule, Time, Time], np.ndarray]
Shift = Callable[[Array, int, Array, Array], Array]
Trajectory = Iterator[tuple[int, Array]]


def ancestral_step(
    schedule: Schedule,
    x: Array,
    t: int,
    t_prev: int,
    x0_hat: Array,
    eps: Array,
    variance: Variance = posterior_variance,
    shift: Shift | None = None,
) -> Array:
    """x_s ~ N(posterior mean with x0_hat, variance), s = t_prev; no noise when s = 0.   [DDPM] algorithm 2

    variance: `posterior_variance` or `step_variance` (beta_{t|s}). eps: the fresh noise, shape of x.
    shift(x_t, t, mean, variance): what is added to the mean, at s = 0 too, see `classifier_shift` [ADM] algorithm 1; the
    variance is the step's, a number. x0_hat has been clipped by then: a shift is not.
    """
    same_shape(x=x, x0_hat=x0_hat, eps=eps)
    floating("x", x)
    floating("x0_hat", x0_hat)
    mean, sigma2 = posterior_mean(schedule, x, x0_hat, t, t_prev), variance(schedule, t, t_prev)
    if shift is not None:
        more = shift(x, t, mean, like(sigma2, x))
        same_shape(x=x, shift=more)
        mean = mean + more
    return mean if t_prev == 0 else mean + like(np.sqrt(sigma2), x) * eps


def ancestral(
    schedule: Schedule,
    predict: Predict,
    x: Array,
    timesteps: Sequence[int],
    noise: Noise,
    variance: Variance = posterior_variance,
    shift: Shift | None = None,
) -> Trajectory:
    """[DDPM] algorithm 2, over any subsequence of the steps; with a shift [ADM] algorithm 1. x ~ N(0, I)."""
    for t, t_prev in backwards(schedule, timesteps):
        x0_hat, _ = call_predict(predict, x, t)
        x = ancestral_step(schedule, x, t, t_prev, x0_hat, noise(t), variance, shift)
        yield t_prev, x


def ddim_step(
    schedule: Schedule,
    x: Array,
    t: int,
    t_prev: int,
    x0_hat: Array,
    eps_hat: Array,
    eta: float = 0.0,
    eps: Array | None = None,
) -> Array:
    """x_s = sqrt(alpha_bar_s) x0_hat + sqrt(1 - alpha_bar_s - sigma^2) eps_hat + sigma eps.   [DDIM] eq. 12

    sigma^2 = eta^2 times the posterior's variance [DDIM] eq. 16: eta = 0 is deterministic, eta = 1 the ancestral step.
    What is left for eps_hat, 1 - alpha_bar_s - sigma^2, is computed as
    (1 - alpha_bar_s) (alpha_{t|s} (1 - alpha_bar_s) + (1 - eta^2) beta_{t|s}) / (1 - alpha_bar_t).
    eps: the fresh noise, shape of x; may be left out when eta = 0. ValueError for eta outside 0 .. 1.
    """
    _check_eta(eta, "eps", eps)
    same_shape(x=x, x0_hat=x0_hat, eps_hat=eps_hat, **({"eps": eps} if eta else {}))
    sigma = eta * np.sqrt(posterior_variance(schedule, t, t_prev))
    alpha, beta = schedule.between(t_prev, t)
    one_minus = schedule.one_minus_alpha_bar
    direction_variance = one_minus[t_prev] * (alpha * one_minus[t_prev] + (1 - eta) * (1 + eta) * beta) / one_minus[t]
    mean = like(np.sqrt(schedule.alpha_bar[t_prev]), x) * x0_hat + like(np.sqrt(direction_variance), x) * eps_hat
    return mean + like(sigma, x) * eps if eta else mean


def ddim(
    schedule: Schedule,
    predict: Predict,
    x: Array,
    timesteps: Sequence[int],
    noise: Noise | None = None,
    eta: float = 0.0,
) -> Trajectory:
    """[DDIM] section 4.1, over any subsequence of the steps. x ~ N(0, I); noise may be left out when eta = 0."""
    _check_eta(eta, "noise", noise)
    for t, t_prev in backwards(schedule, timesteps):
        x0_hat, eps_hat = call_predict(predict, x, t)
        x = ddim_step(schedule, x, t, t_prev, x0_hat, eps_hat, eta, noise(t) if eta and noise else None)
        yield t_prev, x


def euler_ancestral(
    schedule: Schedule, predict: Predict, x: Array, timesteps: Sequence[int], noise: Noise
) -> Trajectory:
    """y_s = x0_hat + sigma_down eps_hat + sigma_up eps, in y = x / sqrt(alpha_bar).   [KDiffusion] Euler ancestral

    sigma^2 = (1 - alpha_bar) / alpha_bar, sigma_up^2 = sigma_s^2 (sigma_t^2 - sigma_s^2) / sigma_t^2, and what is left of
    sigma_s^2 is sigma_down^2 = sigma_s^4 / sigma_t^2: in exact arithmetic the ancestral step with the posterior's variance.
    x0_hat + sigma_down eps_hat is y_t + (sigma_down - sigma_t) eps_hat, which would cancel where sigma_t is large.
    No noise at the last step. x ~ N(0, I). ValueError where sigma is infinite.
    """
    a, sigma = scales(schedule, x, timesteps)
    for t, s in backwards(schedule, timesteps):
        x0_hat, eps_hat = call_predict(predict, x, t)
        same_shape(x=x, x0_hat=x0_hat, eps_hat=eps_hat)
        ratio = sigma[s] / sigma[t]
        down, up = ratio * sigma[s], math.sqrt((1 - ratio) * (1 + ratio)) * sigma[s]
        x = a[s] * x0_hat + (a[s] * down) * eps_hat
        if s:
            eps = noise(t)
            same_shape(x=x, noise=eps)
            x = x + (a[s] * up) * eps
        yield s, x


def final(trajectory: Trajectory) -> Array:
    """The last x of a trajectory, x_0."""
    return deque(trajectory, maxlen=1).pop()[1]


def call_predict(predict: Predict, x: Array, t: Time) -> tuple[Array, Array]:
    """x0_hat and eps_hat; ValueError for a predict that does not return two arrays, as one that is a model does not."""
    return two("predict", "(x0_hat, eps_hat), as of `predictor`", predict(x, t))


def _check_eta(eta: float, name: str, noise: object) -> None:
    single("eta", eta)
    if not 0 <= eta <= 1:
        raise ValueError(f"eta: expected a number from 0 (deterministic) to 1 (ancestral), got {eta}")
    if eta and noise is None:
        raise ValueError(f"{name}: expected fresh noise because eta = {eta}, got None")


def backwards(schedule: Schedule, timesteps: Sequence[int]) -> Iterator[tuple[int, int]]:
    """(t, t_prev) from the last of the timesteps down to (first, 0)."""
    chosen = steps(np.asarray(timesteps), schedule.T, name="timesteps")
    if chosen.ndim != 1 or not len(chosen) or np.any(np.diff(chosen) <= 0):
        raise ValueError(f"timesteps: expected at least one, each larger than the last, got {timesteps}")
    down = [*chosen[::-1].tolist(), 0]
    return pairwise(down)


def scales(schedule: Schedule, x: Array, timesteps: Sequence[int]) -> tuple[list[float], list[float]]:
    """a = sqrt(alpha_bar) and sigma = sqrt((1 - alpha_bar) / alpha_bar), the noise in x / a; both indexed by t."""
    floating("x", x)
    if np.any(schedule.alpha_bar[steps(np.asarray(timesteps), schedule.T, name="timesteps")] == 0):
        raise ValueError(
            "timesteps: expected steps with alpha_bar > 0, got one where it is 0 and sigma infinite; "
            "use ddim, ancestral or dpmpp_2m, or leave that step out"
        )
    with np.errstate(divide="ignore"):
        return np.sqrt(schedule.alpha_bar).tolist(), np.sqrt(1 / schedule.snr).tolist()
