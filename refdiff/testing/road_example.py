"""The example of `road`, in numbers: one number x_0, three steps, decoders of a network that is no perfect denoiser; each
mean an integral by quadrature, and so is what no bound has, log p(x_0)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ..process import (
    PathDensities,
    Schedule,
    fixed_reverse,
    from_alpha_bar,
    joint_ratio,
    kl_gaussian,
    linear,
    path_densities,
    posterior_log_variance,
    posterior_mean,
    predictor,
    q_sample,
    q_step_moments,
)  # fmt: skip
from ..process.arrays import Time
from .chains import every_path, forward_moments
from .measures import gauss_hermite, normal_logpdf

__all__ = [
    "DATA", "NODES", "ONE_LATENT", "SCHEDULE", "averaged_divergences", "decoder_variance", "decoders", "eps_hat", "errors",
    "evidence", "gap", "log_mean_ratio", "mean_ratio", "over_x_t", "paths",
]  # fmt: skip

DATA = 0.8  # x_0
SCHEDULE = linear(3, 0.3, 0.7)
ONE_LATENT = from_alpha_bar([1.0, SCHEDULE.alpha_bar[-1]])  # the same noise in a single step
NODES = 48  # of Gauss-Hermite in each variable, twice as many where there is one


def eps_hat(schedule: Schedule) -> Callable[[np.ndarray, int], np.ndarray]:
    """What the network of the example says: right for data N(0, 1) but for the sine."""
    return lambda x, t: np.sqrt(schedule.one_minus_alpha_bar[t]) * x + 0.3 * np.sin(x)


def decoders(schedule: Schedule) -> Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]:
    """Mean and log variance of p(x_{t-1} | x_t), the variance that of the posterior."""
    return fixed_reverse(schedule, predictor(schedule, eps_hat(schedule)))


def decoder_variance(schedule: Schedule, t: Time) -> np.ndarray:
    """sigma_t^2 of the decoders, at t = 1 that of t = 2."""
    return np.exp(posterior_log_variance(schedule, t))


def paths(schedule: Schedule) -> tuple[PathDensities, np.ndarray]:
    """The log densities of all paths x_0, ..., x_T, at the nodes of a quadrature in T variables, and the weights."""
    path, _, weight = every_path(forward_moments(schedule), schedule.T, DATA, NODES if schedule.T > 1 else 2 * NODES)
    return path_densities(schedule, decoders(schedule), [x[:, None] for x in path]), weight


def evidence(schedule: Schedule) -> float:
    """log p(x_0) = log of the integral of p over x_1 .. x_T, one after another, by the trapezoid rule on [-12, 12]."""
    x = np.linspace(-12, 12, 1201)
    p = np.exp(normal_logpdf(x, 0.0, 1.0)) * (x[1] - x[0])
    for t in range(schedule.T, 0, -1):
        mean, log_variance = decoders(schedule)(x, t)
        to = x[:, None] if t > 1 else np.array([[DATA]])
        p = np.exp(normal_logpdf(to, mean, np.exp(log_variance))) @ p * (x[1] - x[0] if t > 1 else 1.0)
    return float(np.log(p[0]))


def gap(schedule: Schedule) -> float:
    """KL(q(x_{1:T} | x_0) || p(x_{1:T} | x_0)), by the trapezoid rule on a grid of all latents."""
    x = np.linspace(-8, 8, 129)
    path = [np.full(x.size**schedule.T, DATA), *(a.ravel() for a in np.meshgrid(*[x] * schedule.T))]
    log_q = sum(normal_logpdf(path[t], *q_step_moments(schedule, path[t - 1], t)) for t in range(1, schedule.T + 1))
    log_p = normal_logpdf(path[-1], 0.0, 1.0) - evidence(schedule)
    for t in range(1, schedule.T + 1):
        mean, log_variance = decoders(schedule)(path[t], t)
        log_p = log_p + normal_logpdf(path[t - 1], mean, np.exp(log_variance))
    return float(np.sum(np.exp(log_q) * (log_q - log_p)) * (x[1] - x[0]) ** schedule.T)


def log_mean_ratio(schedule: Schedule) -> float:
    """log E_q[p(x_{0:T}) / q(x_{1:T} | x_0)]."""
    d, weight = paths(schedule)
    return float(np.log(weight @ np.exp(joint_ratio(d.forward, d.reverse, d.prior))))


def mean_ratio(schedule: Schedule) -> float:
    """E_q[log p(x_{0:T}) / q(x_{1:T} | x_0)]."""
    d, weight = paths(schedule)
    return float(weight @ joint_ratio(d.forward, d.reverse, d.prior))


def over_x_t(f: Callable[[np.ndarray, np.ndarray], Any], t: int) -> float:
    """E[f(x_t, eps)], x_t made of x_0 and eps."""
    return float(gauss_hermite(lambda e: f(q_sample(SCHEDULE, np.full_like(e, DATA), t, e), e), nodes=NODES))


def errors(kind: str) -> np.ndarray:
    """E |kind - kind_hat|^2 of t = 1 .. T, kind mu, x0 or eps."""
    predict = predictor(SCHEDULE, eps_hat(SCHEDULE))

    def error(x_t: np.ndarray, eps: np.ndarray, t: int) -> np.ndarray:
        x0 = np.full_like(eps, DATA)
        if kind == "mu":
            return (posterior_mean(SCHEDULE, x_t, x0, t) - decoders(SCHEDULE)(x_t, t)[0]) ** 2
        x0_hat, eps_said = predict(x_t, t)
        return (x0 - x0_hat) ** 2 if kind == "x0" else (eps - eps_said) ** 2

    return np.array([over_x_t(partial(error, t=t), t) for t in range(1, SCHEDULE.T + 1)])


def averaged_divergences() -> dict[str, float]:
    """What becomes of the consistency terms when each is taken for a divergence, its neighbours drawn from their own q."""
    path, _, weight = every_path(forward_moments(SCHEDULE), SCHEDULE.T, DATA, NODES)
    found = {}
    for t in range(1, SCHEDULE.T):
        mean, variance = q_step_moments(SCHEDULE, path[t - 1], t)
        step = mean, np.full_like(mean, np.log(variance))
        found[f"t = {t}"] = float(weight @ kl_gaussian(*step, *decoders(SCHEDULE)(path[t + 1], t + 1))[0])
    return found
