"""From a Model to a sampler of `process`: thresholding, and the choice that the settings make."""

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
    predictor,
    step_variance,
)  # fmt: skip
from ..process.samplers import Predict, Trajectory
from .denoisers import Model
from .settings import SampleConfig

__all__ = ["choose_sampler", "threshold_of", "x0_and_eps"]

SOLVERS = {"euler": euler, "heun": heun, "dpmpp_2m": dpmpp_2m, "dpmpp_2s": dpmpp_2s}


def threshold_of(settings: SampleConfig) -> tuple[float, float] | Callable[[Any], Any] | None:
    """What holds x0_hat within the range of the data: of the kind that `predictor` takes."""
    return {"none": None, "static": (-1.0, 1.0), "dynamic": dynamic_threshold}[settings.threshold]


def x0_and_eps(schedule: Schedule, model: Model, prediction: str, threshold: Any) -> Predict:
    """predict(x_t, t) -> (x0_hat, eps_hat), of the prediction alone; thresholding comes last, after guidance."""
    return predictor(schedule, lambda x_t, t: model(x_t, t)[0], prediction, threshold)


def choose_sampler(
    schedule: Schedule, settings: SampleConfig, predict: Predict, x: Any, timesteps: list[int], noise: Any
) -> Trajectory:
    """The sampler of `process` that these settings choose, from x at the last timestep on."""
    if settings.method in SOLVERS:
        return SOLVERS[settings.method](schedule, predict, x, timesteps)
    if settings.method == "ddim":
        return ddim(schedule, predict, x, timesteps, noise, settings.eta)
    if settings.method == "euler_ancestral":
        return euler_ancestral(schedule, predict, x, timesteps, noise)
    variance = posterior_variance if settings.variance == "posterior" else step_variance
    return ancestral(schedule, predict, x, timesteps, noise, variance)
