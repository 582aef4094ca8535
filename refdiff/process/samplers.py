"""Sampling: one function per algorithm, whose body is the algorithm. Each yields (t_prev, x) after every step.

    predict(x_t, t) -> (x0_hat, eps_hat)    with x_t = a x0_hat + s eps_hat, see `predictor`; t is one integer; v may be a
                                            third, which `ancestral` takes a learned variance from, and all others ignore
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
from typing import Any, Literal

import numpy as np

from .arrays import Array, Time, floating, like, namespace, narrow, same_shape, single, steps, two, wide
from .learned_variance import learned_log_variance
from .posterior import posterior_mean, posterior_variance
from .schedules import Schedule

__all__ = ["ancestral", "ancestral_step", "ddim", "ddim_step", "euler_ancestral", "final"]

Predict = Callable[[Array, Time], tuple[Any, ...]]
Noise = Callable[[int], Array]
Variance = Callable[[Schedule, Time, Time], np.ndarray] | Literal["learned"]
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
    v: Array | None = None,
) -> Array:
    """x_s ~ N(posterior mean with x0_hat, variance), s = t_prev; no noise when s = 0.   [DDPM] algorithm 2

    variance: `posterior_variance`, `step_variance` (beta_{t|s}) or "learned", of each element what v, of x's shape, says of
    this step, see `learned_log_variance`; else v is ignored. eps: the fresh noise, shape of x.
    shift(x_t, t, mean, variance): what is added to the mean, at s = 0 too, see `classifier_shift` [ADM] algorithm 1; the
    variance is the step's, a number, or if learned of x's shape. x0_hat has been clipped by then: a shift is not.
    """
    same_shape(x=x, x0_hat=x0_hat, eps=eps)
    floating("x", x)
    floating("x0_hat", x0_hat)
    mean = posterior_mean(schedule, x, x0_hat, t, t_prev)
    sigma2, sigma = _moments(schedule, x, t, t_prev, variance, v)
    if shift is not None:
        more = shift(x, t, mean, sigma2)
        same_shape(x=x, shift=more)
        mean = mean + more
    return mean if t_prev == 0 else mean + sigma * eps


def ancestral(
    schedule: Schedule,
    predict: Predict,
    x: Array,
    timesteps: Sequence[int],
    noise: Noise,
    variance: Variance = posterior_variance,
    shift: Shift | None = None,
) -> Trajectory:
    """[DDPM] algorithm 2, over any subsequence of the steps; with a shift [ADM] algorithm 1. x ~ N(0, I).

    variance: as of `ancestral_step`; for "learned" predict must hand v on, (x0_hat, eps_hat, v).
    """
    for t, t_prev in backwards(schedule, timesteps):
        x0_hat, _, v = call_predict_v(predict, x, t)
        x = ancestral_step(schedule, x, t, t_prev, x0_hat, noise(t), variance, shift, v)
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
    x0_hat, eps_hat, _ = call_predict_v(predict, x, t)
    return x0_hat, eps_hat


def call_predict_v(predict: Predict, x: Array, t: Time) -> tuple[Array, Array, Array | None]:
    """x0_hat, eps_hat, and v or None, of a predict that may say v as a third; else as `call_predict`."""
    answer = predict(x, t)
    if isinstance(answer, tuple | list) and len(answer) == 3:
        return answer[0], answer[1], answer[2]
    return *two("predict", "(x0_hat, eps_hat), as of `predictor`", answer), None


def _moments(
    schedule: Schedule, x: Array, t: int, t_prev: int, variance: Variance, v: Array | None
) -> tuple[Array, Array]:
    """The variance of a step and its root, ready to multiply x.

    A root is never that of the other where it is cast: in half precision a variance below 6e-8 is 0.
    """
    if not isinstance(variance, str):
        sigma2 = variance(schedule, t, t_prev)
        return like(sigma2, x), like(np.sqrt(sigma2), x)
    if variance != "learned":
        raise ValueError(f'variance: expected a function, such as posterior_variance, or "learned", got {variance!r}')
    if v is None:
        raise ValueError(
            'v: expected what the model says of the variance, because variance is "learned", got None; give a model that '
            "says (prediction, v), or posterior_variance or step_variance"
        )
    same_shape(x=x, v=v)
    log_variance, _ = learned_log_variance(schedule, wide(v), t, t_prev)
    exp = namespace(log_variance).exp
    return narrow(exp(log_variance), v), narrow(exp(0.5 * log_variance), v)


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
