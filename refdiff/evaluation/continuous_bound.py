"""Bits per dimension in continuous time [VDM] eq. 11: the three terms of the bound, by Monte Carlo in float64, and how much
the estimate of the middle one varies.

A pass takes every sample once, with a t of its own: all the t of a pass are one uniform number and places that are evenly
spread [VDM] appendix I.1, in a random order. Passes are independent, so the standard error is that of their means; what the
samples themselves differ by is not in it.
"""

from __future__ import annotations

from collections.abc import Callable
from math import log, prod
from typing import NamedTuple

import numpy as np

from ..process import (
    ContinuousSchedule,
    antithetic_times,
    diffusion_loss,
    discrete_diffusion_loss,
    prior_loss,
    q_sample_at,
    reconstruction_loss,
)
from ..progress import Progress
from ..random import Key, normal, permutation, uniform

__all__ = ["Estimates", "bound_numbers", "diffusion_estimates", "spread_over_time"]

EpsHat = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (z_t, gamma) -> eps_hat


class Estimates(NamedTuple):
    """Of each pass and sample: the time, and the diffusion loss there in bits per dimension.   (passes, N) each"""

    t: np.ndarray
    loss: np.ndarray


def diffusion_estimates(
    schedule: ContinuousSchedule,
    eps_hat: EpsHat,
    x: np.ndarray,
    key: Key,
    T: int = 0,
    passes: int = 32,
    batch: int = 256,
    progress: bool = False,
) -> Estimates:
    """1/2 gamma'(t) |eps - eps_hat|^2 at antithetic times, or T/2 expm1(gamma_t - gamma_s) |.|^2 at t = i / T where T > 0.

    eps_hat(z, gamma): z (n, ...), gamma (n,), float64 -> as z. key: two calls with one key take the same t and eps.
    """
    x = np.asarray(x, np.float64)
    n, bits = len(x), 1 / (prod(x.shape[1:]) * log(2))
    times, losses = np.empty((passes, n)), np.empty((passes, n))
    with Progress("bound", passes * n, "sample", progress) as bar:
        for r in range(passes):
            own = key._replace(step=r)
            t = antithetic_times(float(uniform(own("t"), np.arange(1))[0]), n)[permutation(own("order"), n)]
            i = 1 + np.minimum(np.floor(T * t), T - 1).astype(int) if T else None
            times[r] = t if i is None else i / T
            for first in range(0, n, batch):
                part = slice(first, min(first + batch, n))
                eps = normal(own("eps"), np.arange(part.start, part.stop), x.shape[1:], np.float64)
                z = q_sample_at(schedule, x[part], times[r, part], eps)
                said = np.asarray(eps_hat(z, schedule.gamma(times[r, part])), np.float64)
                if i is None:
                    losses[r, part] = diffusion_loss(schedule, t[part], eps, said)
                else:
                    losses[r, part] = discrete_diffusion_loss(schedule, i[part], T, eps, said)
                bar.update(len(eps))
    return Estimates(times, bits * losses)


def bound_numbers(
    schedule: ContinuousSchedule, found: Estimates, x: np.ndarray, key: Key, bins: int
) -> dict[str, float | int]:
    """The bound in bits per dimension, its terms and their standard errors, and the variance of one estimate of the diffusion
    loss, over samples, t and eps.   found: of `diffusion_estimates` for this schedule and x; bins: levels of the data"""
    x = np.asarray(x, np.float64)
    bits, passes = 1 / (prod(x.shape[1:]) * log(2)), len(found.loss)
    prior = bits * float(prior_loss(schedule, x).mean())
    reconstruction = np.array([
        bits * reconstruction_loss(
            schedule, x, normal(key._replace(step=r)("eps_0"), np.arange(len(x)), x.shape[1:], np.float64), bins
        ).mean()
        for r in range(passes)
    ])  # fmt: skip
    diffusion = found.loss.mean(axis=1)
    errors = [float(means.std(ddof=1)) / passes**0.5 for means in (diffusion, reconstruction)]
    return {
        "bits_per_dim": float(diffusion.mean() + reconstruction.mean()) + prior,
        "bits_per_dim_error": float(np.linalg.norm(errors)),
        "diffusion_bits": float(diffusion.mean()),
        "diffusion_bits_error": errors[0],
        "reconstruction_bits": float(reconstruction.mean()),
        "reconstruction_bits_error": errors[1],
        "prior_bits": prior,
        "diffusion_variance": float(found.loss.var()),
        "passes": passes,
        "samples": len(x),
    }


def spread_over_time(found: Estimates, pieces: int = 24) -> dict[str, list[float]]:
    """Mean and standard deviation of the loss in so many equal pieces of time.   -> {"t", "mean", "sd"}: lists"""
    t, loss = found.t.ravel(), found.loss.ravel()
    piece = np.minimum((t * pieces).astype(int), pieces - 1)
    inside = [loss[piece == k] for k in range(pieces)]
    there = [k for k in range(pieces) if len(inside[k]) > 1]
    return {
        "t": [(k + 0.5) / pieces for k in there],
        "mean": [float(inside[k].mean()) for k in there],
        "sd": [float(inside[k].std()) for k in there],
    }
