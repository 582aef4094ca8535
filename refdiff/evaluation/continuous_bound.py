"""Bits per dimension in continuous time [VDM] eq. 11: the three terms of the bound, by Monte Carlo in float64, and how much
the estimate of the middle one varies.

A pass takes every sample once, with a t of its own: all the t of a pass are one uniform number and places that are evenly
spread [VDM] appendix I.1, in a random order. Passes are independent, so the standard error is that of their means; what the
samples themselves differ by is not in it.
"""

from __future__ import annotations

from collections.abc import Callable
from math import log, prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..plotting import new_figure
from ..process import (
    ContinuousSchedule,
    antithetic_times,
    diffusion_loss,
    discrete_diffusion_loss,
    linear_gamma,
    prior_loss,
    q_sample_at,
    reconstruction_loss,
)
from ..progress import Progress
from ..random import Key, normal, permutation, uniform
from .uncertainty import standard_error

__all__ = [
    "Estimates", "bound_beside_line", "bound_numbers", "diffusion_estimates", "plot_schedule", "spread_over_time",
]  # fmt: skip

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
    """The bound in bits per dimension, its terms and their standard errors, and the variance of one estimate of the
    diffusion loss, over samples, t and eps.

    found: of `diffusion_estimates` for this schedule and x; bins: levels of the data"""
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
    errors = [standard_error(means) for means in (diffusion, reconstruction)]
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


def bound_beside_line(
    learned: ContinuousSchedule,
    eps_hat: EpsHat,
    x: np.ndarray,
    key: Key,
    bins: int,
    T: int = 0,
    passes: int = 32,
    progress: bool = False,
) -> dict[str, Any]:
    """`bound_numbers` of a learned schedule; its ends; and of a straight line between them, with the same t and eps, the
    diffusion loss, which in continuous time is the same, and how many times larger the variance of an estimate of it is.

    Lists: t and gamma there; loss_over_t and line_loss_over_t, as of `spread_over_time`.
    """
    ends = float(learned.gamma(0.0)), float(learned.gamma(1.0))
    found, of_line = (
        diffusion_estimates(schedule, eps_hat, x, key, T, passes, progress=progress)
        for schedule in (learned, linear_gamma(*ends))
    )
    means, t = of_line.loss.mean(axis=1), np.linspace(0, 1, 101)
    return {
        **bound_numbers(learned, found, x, key, bins),
        "gamma_0": ends[0],
        "gamma_1": ends[1],
        "line_diffusion_bits": float(means.mean()),
        "line_diffusion_bits_error": standard_error(means),
        "line_diffusion_variance": float(of_line.loss.var()),
        "variance_factor": float(of_line.loss.var() / found.loss.var()),
        "t": t.tolist(),
        "gamma": learned.gamma(t).tolist(),
        "loss_over_t": spread_over_time(found),
        "line_loss_over_t": spread_over_time(of_line),
    }


def spread_over_time(found: Estimates, pieces: int = 24) -> list[list[float]]:
    """[t, mean, deviation] of the loss in so many equal pieces of time, t their middles: three lists."""
    t, loss = found.t.ravel(), found.loss.ravel()
    piece = np.minimum((t * pieces).astype(int), pieces - 1)
    inside = {k: loss[piece == k] for k in range(pieces) if np.any(piece == k)}
    middles = [(k + 0.5) / pieces for k in inside]
    return [middles, [float(a.mean()) for a in inside.values()], [float(a.std()) for a in inside.values()]]


def plot_schedule(found: dict[str, Any], path: str | Path) -> None:
    """Draw what `bound_beside_line` found: gamma(t) and the loss over t with its spread, each beside the straight line's.

    ImportError without matplotlib."""
    figure = new_figure(9.6, 3.6)
    of_gamma, of_loss = figure.subplots(1, 2)
    of_gamma.plot([0, 1], [found["gamma_0"], found["gamma_1"]], color="0.6", label="straight line")
    of_gamma.plot(found["t"], found["gamma"], color="C0", label="learned")
    of_gamma.set(xlabel="t", ylabel=r"$\gamma(t) = -\log$ SNR", title="the noise schedule")
    for name, color, label in (("line_loss_over_t", "0.6", "straight line"), ("loss_over_t", "C0", "learned")):
        t, mean, sd = (np.array(values) for values in found[name])
        of_loss.plot(t, mean, color=color, label=label)
        of_loss.fill_between(t, mean - sd, mean + sd, color=color, alpha=0.25, linewidth=0)
    title = f"variance of an estimate {found['variance_factor']:.2f} times smaller"
    of_loss.set(xlabel="t", ylabel="diffusion loss (bits per dimension)", title=title)
    for axes in (of_gamma, of_loss):
        axes.legend(frameon=False)
        axes.grid(True, color="0.92")
    figure.savefig(path, dpi=150)
