"""A model and its data: the U-Net has the size and the channels of the images, and what does not fit is said first."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data import Dataset, shape_of
from ..errors import DoubtWarning, setting
from ..models.unet import level_sizes

if TYPE_CHECKING:
    from .config import Config, ScheduleConfig

__all__ = ["attention_fits", "check_fit", "doubt_prediction", "doubt_schedule", "follow_data", "lost_in_noise"]

MOST_LEFT = 0.1  # of the data at T; latent diffusion's schedule leaves 0.068, and is used


def follow_data(table: dict[str, Any], given: set[str]) -> None:
    """Put size and channels of the images at data.source into a table of a configuration, unless they are among the keys
    `given`. ValueError for images that are not square, and as `load` for what cannot be read."""
    source, model = table["data"].get("source"), table["model"]
    shape = shape_of(source) if isinstance(source, str) else None
    if shape is None or len(shape) != 3 or shape[2] not in (1, 3):
        return  # nothing there, points, or what `load` will refuse
    height, width, channels = shape
    if "model.size" not in given:
        if height != width:
            raise ValueError(
                f"data.source: expected square images, got {width}x{height} (width x height) in {source}; crop or pad them"
            )
        model["size"] = height
    if "model.channels" not in given:
        model["channels"] = channels


def attention_fits(model: dict[str, Any]) -> bool:
    """Whether a U-Net's table asks for attention at sizes that it has. True too where another key is wrong: that is said
    elsewhere."""
    size, multipliers, attention = (model.get(key) for key in ("size", "multipliers", "attention"))
    if not (isinstance(size, int) and isinstance(multipliers, list | tuple) and isinstance(attention, list | tuple)):
        return True
    return set(attention) <= set(level_sizes(size, multipliers))


def check_fit(config: Config, data: Dataset) -> None:
    """ValueError unless the data and the model speak of the same shape."""
    expected = config.model.shape
    if data.shape != expected:
        if len(data.shape) == 1:
            fix = "choose the mixture preset, whose model takes points"
        elif len(expected) == 1:
            fix = "choose a preset for images, such as digits"
        elif data.shape[0] != data.shape[1]:
            fix = "crop or pad the images to squares"
        else:
            fix = f"give {setting('model.size', data.shape[0])} {setting('model.channels', data.shape[2])}"
        raise ValueError(f"data.source: expected samples of {expected}, the model's shape, got {data.shape}; {fix}")


def doubt_schedule(config: ScheduleConfig) -> None:
    """DoubtWarning where x_T still shows the data: sampling begins from N(0, I), which training then never saw."""
    left = _left(config)
    if left > MOST_LEFT:
        warnings.warn(
            f"schedule: expected x_T to be noise, as sampling begins with noise alone, got sqrt(alpha_bar_T) = {left:.3g} "
            f"of the data left in it at T = {config.T}; {_remedy(config)}",
            DoubtWarning, stacklevel=3,
        )  # fmt: skip


def doubt_prediction(config: Config) -> None:
    """DoubtWarning where x_0 is asked of eps and x_T, which hold less of it than their digits."""
    if lost := lost_in_noise(config):
        warnings.warn(f"train.prediction: {lost}", DoubtWarning, stacklevel=3)


def lost_in_noise(config: Config) -> str:
    """Why x_0 = (x_T - s eps) / a cannot come out at T, if a = sqrt(alpha_bar_T) is below a last digit of float32; or ""."""
    left, digit = _left(config.schedule), float(np.finfo(np.float32).eps)
    if config.train.prediction != "eps" or left >= digit:
        return ""
    return (
        f"expected a schedule that leaves more of the data than float32 resolves ({digit:.1e}) for eps to tell, got "
        f"sqrt(alpha_bar_T) = {left:.1e}; take {setting('train.prediction', 'v')}"
    )


def _left(config: ScheduleConfig) -> float:
    return float(np.sqrt(config.build().alpha_bar[-1]))


def _remedy(config: ScheduleConfig) -> str:
    """Options that scale beta, if they suffice, or else the law that always does."""
    from inspect import signature

    from ..process import SCHEDULES

    law = signature(SCHEDULES[config.law]).parameters
    scaled = {
        name: float(f"{1000 / config.T * config.options.get(name, law[name].default):.6g}")
        for name in law
        if name in ("beta", "beta_start", "beta_end")
    }
    if scaled and max(scaled.values()) < 1:
        changed = type(config)(config.law, config.T, {**config.options, **scaled})
        if _left(changed) <= MOST_LEFT:
            options = " ".join(setting(f"schedule.options.{name}", f"{value:g}") for name, value in scaled.items())
            return f"scale beta by 1000 / T: {options}"
    return f"take {setting('schedule.law', 'cosine')}"
