"""What prediction, variance, sampler, schedule and network of a configuration must be to each other, where it denoises."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import setting
from ..objectives import Denoising
from ..process import SPACINGS
from ..sampling.checking import check_settings
from ..sampling.settings import FINITE_SIGMA, METHODS
from .fitting import downscale_of

if TYPE_CHECKING:
    from .config import Config

__all__ = ["check_denoising"]


def check_denoising(config: Config, objective: Denoising) -> None:
    """ValueError where prediction, variance, sampler and network do not fit together."""
    outputs, expected = getattr(config.model, "outputs", None), 2 if objective.learned else 1
    if outputs is not None and outputs != expected:
        raise ValueError(
            f"networks.denoiser.outputs: expected {expected} with objective.variance = {objective.variance!r}, got "
            f"{outputs}; leave it out"
        )
    _check_low_res(config, objective)
    check_settings(config.sample, objective, config.model)
    if config.schedule.build().alpha_bar[-1] == 0:
        _check_without_signal(config, objective)


def _check_low_res(config: Config, objective: Denoising) -> None:
    """ValueError unless what is made of x has the size that the denoiser reads."""
    size, low_res = getattr(config.model, "size", 0), getattr(config.model, "low_res", 0)
    if objective.downscale and objective.downscale != downscale_of(size, low_res):
        raise ValueError(
            "objective.downscale: expected networks.denoiser.size over low_res, a power of two, or 0 for data that have "
            f"low_res, got {objective.downscale} with size {size} and low_res {low_res}; leave it out"
        )


def _check_without_signal(config: Config, objective: Denoising) -> None:
    """ValueError for what asks x_T about the data, where alpha_bar_T = 0 leaves nothing of them in it."""
    if objective.prediction == "eps":  # x_0 = (x_T - eps) / 0
        raise ValueError(
            "objective.prediction: expected v or x0 with this schedule, whose alpha_bar_T = 0, got eps, which says "
            f"nothing of the data there; take {setting('objective.prediction', 'v')}"
        )
    if config.sample.method in FINITE_SIGMA:
        others = ", ".join(method for method in METHODS if method not in FINITE_SIGMA)
        raise ValueError(
            f"sample.method: expected one of {others} with this schedule, whose alpha_bar_T = 0 makes sigma infinite, "
            f"got {config.sample.method}; take {setting('sample.method', 'ddim')}"
        )
    if config.sample.spacing == "karras":
        others = ", ".join(spacing for spacing in SPACINGS if spacing != "karras")
        raise ValueError(
            f"sample.spacing: expected one of {others} with this schedule, whose alpha_bar_T = 0 makes "
            f"sigma infinite, got karras; take {setting('sample.spacing', 'trailing')}"
        )
