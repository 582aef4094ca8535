"""What the settings choose: what holds x0_hat within the range of the data, and a sampler of `process` with its variance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..process import (
    Schedule,
    ancestral,
    ddim,
    dpmpp_2m,
    dpmpp_2s,
    dynamic_threshold,
    euler,
    euler_ancestral,
    heun,
    posterior_variance,
    step_variance,
)  # fmt: skip
from ..process.samplers import Predict, Shift, Trajectory, Variance
from .settings import SampleConfig

__all__ = ["choose_sampler", "threshold_of"]

SOLVERS = {"euler": euler, "heun": heun, "dpmpp_2m": dpmpp_2m, "dpmpp_2s": dpmpp_2s}
STEP_VARIANCES: dict[str, Variance] = {"posterior": posterior_variance, "beta": step_variance, "learned": "learned"}


def threshold_of(settings: SampleConfig) -> tuple[float, float] | Callable[[Any], Any] | None:
    """What holds x0_hat within the range of the data: of the kind that `predictor` takes."""
    return {"none": None, "static": (-1.0, 1.0), "dynamic": dynamic_threshold}[settings.threshold]


def choose_sampler(
    schedule: Schedule,
    settings: SampleConfig,
    predict: Predict,
    x: Any,
    timesteps: list[int],
    noise: Any,
    shift: Shift | None = None,
) -> Trajectory:
    """The sampler of `process` that these settings choose, from x at the last timestep on.

    predict: of `predictor`; the variance "learned" of `ancestral` is made of the v that it hands on, which no other method,
    and no other variance, looks at. shift: of its mean, by a classifier; no other method has a mean to be shifted.
    """
    assert shift is None or settings.method == "ancestral", settings.method
    if settings.method in SOLVERS:
        return SOLVERS[settings.method](schedule, predict, x, timesteps)
    if settings.method == "ddim":
        return ddim(schedule, predict, x, timesteps, noise, settings.eta)
    if settings.method == "euler_ancestral":
        return euler_ancestral(schedule, predict, x, timesteps, noise)
    return ancestral(schedule, predict, x, timesteps, noise, STEP_VARIANCES[settings.variance], shift)
