"""A model and its data: the U-Net has the size and the channels of the images, and what does not fit is said first."""

from __future__ import annotations

import dataclasses
import warnings
from typing import TYPE_CHECKING, Any

from ..data import Data, load, shape_of
from ..errors import DoubtWarning, setting
from ..models import KINDS, inputs
from ..models.encoder_config import level_sizes
from ..objectives import OBJECTIVES, Denoising, Objective, ScheduleConfig, lost_in_noise, signal_left_at_end
from .networks import NetworkConfig

if TYPE_CHECKING:
    from .config import Config

__all__ = [
    "attention_fits",
    "check_fit",
    "doubt_prediction",
    "doubt_schedule",
    "downscale_of",
    "follow_data",
    "follow_low_res",
    "follow_null_label",
    "follow_variance",
    "leave_out_denoiser",
]

MOST_LEFT = 0.1  # of the data at T; latent diffusion's schedule leaves 0.068, and is used


FOLLOWERS = ("denoiser", "classifier")  # networks that have the size and the channels of the images
CODERS = ("encoder", "decoder")  # and those that have them where they are convolutional


def follow_data(table: dict[str, Any], given: set[str]) -> None:
    """Put size, channels and levels of the images at data.source into a table of a configuration, and the classes that a
    classifier learns, unless they are among the keys `given`. ValueError as of `load` for what cannot be read."""
    followers = {name: model for name in (*FOLLOWERS, *CODERS) if (model := _images(table["networks"].get(name)))}
    source = table["data"].get("source")
    shape = shape_of(source) if followers and isinstance(source, str) else None
    if shape is None or len(shape) != 3 or shape[2] not in (1, 3):
        return  # nothing there, points, or what `load` will refuse
    height, width, channels = shape
    for name, model in followers.items():
        if f"networks.{name}.size" not in given:
            model["size"] = height if height == width else [height, width]
        if f"networks.{name}.channels" not in given:
            model["channels"] = channels
    objective = table.get("objective")
    learns = isinstance(objective, dict) and objective.get("kind") == "classification"
    if learns and "classifier" in followers and "networks.classifier.classes" not in given:
        labels = getattr(load(source), "labels", None)
        if labels is not None:
            followers["classifier"]["classes"] = int(labels.max()) + 1
    if "objective.bins" not in given and isinstance(objective, dict) and "bins" in objective:
        objective["bins"] = 17 if source == "digits" else 256  # of bytes


def _images(model: Any) -> dict[str, Any]:
    """The table of a network whose kind has a size and channels; empty for another."""
    kind = KINDS.get(model.get("kind", "unet")) if isinstance(model, dict) else None
    names = {f.name for f in dataclasses.fields(kind)} if kind else set()
    return model if {"size", "channels"} <= names else {}


def follow_low_res(table: dict[str, Any], given: set[str]) -> None:
    """Where the denoiser reads a low-resolution image whose sides are 1/2, 1/4, 1/8, ... of its own, it is made from x:
    objective.downscale says how many times smaller, unless it is among the keys `given`."""
    model, objective = table["networks"].get("denoiser"), table.get("objective")
    if not (isinstance(model, dict) and isinstance(objective, dict) and "downscale" in objective):
        return
    if "objective.downscale" not in given and {"networks.denoiser.low_res", "networks.denoiser.size"} & given:
        objective["downscale"] = downscale_of(model.get("size"), model.get("low_res"))


def downscale_of(size: Any, low_res: Any) -> int:
    """size / low_res, a side or two each, if it is one power of two from 2 on, else 0."""
    sides = [list(value) if isinstance(value, list | tuple) else [value] * 2 for value in (size, low_res)]
    if not all(len(side) == 2 and all(isinstance(n, int) and n > 0 for n in side) for side in sides):
        return 0
    factor = sides[0][0] // sides[1][0]
    whole = all(high == factor * low for high, low in zip(*sides, strict=True))
    return factor if whole and factor > 1 and not factor & (factor - 1) else 0


def leave_out_denoiser(table: dict[str, Any], given: set[str], before: Objective) -> None:
    """An objective of another kind, which does not train the preset's denoiser, has none unless told otherwise; before: the
    objective of the preset."""
    objective = table.get("objective")
    kind = OBJECTIVES.get(objective.get("kind", "")) if isinstance(objective, dict) else None
    if kind is None or isinstance(before, kind) or any(key.startswith("networks.denoiser") for key in given):
        return
    trains = objective.get("trains", kind.trains)  # type: ignore[union-attr]
    if isinstance(trains, list | tuple) and "denoiser" not in trains:
        table["networks"].pop("denoiser", None)


def follow_null_label(table: dict[str, Any], model: dict[str, Any], given: set[str]) -> None:
    """What a preset draws with is no guidance where the network was changed to one that knows no null label."""
    changed = given & {f"networks.denoiser.{key}" for key in ("kind", "classes", "null_label")}
    known = model.get("classes") and model.get("null_label", True)
    if changed and not known and "sample.guidance" not in given and isinstance(table.get("sample"), dict):
        table["sample"]["guidance"] = 1.0


def follow_variance(table: dict[str, Any], model: dict[str, Any], given: set[str]) -> None:
    """A network whose variance is learned says twice as much, and is sampled with it, unless told otherwise."""
    learned = table["objective"]["variance"] == "learned"
    has = {f.name for f in dataclasses.fields(KINDS.get(model.get("kind", "unet"), NetworkConfig))}
    if "networks.denoiser.outputs" not in given and "outputs" in has:
        model["outputs"] = 2 if learned else 1
    if "sample.variance" not in given and isinstance(table.get("sample"), dict):
        table["sample"]["variance"] = "learned" if learned else "posterior"


def attention_fits(model: dict[str, Any]) -> bool:
    """Whether a U-Net's table asks for attention at sizes that it has. True too where another key is wrong: that is said
    elsewhere."""
    size, multipliers, attention = (model.get(key) for key in ("size", "multipliers", "attention"))
    if isinstance(size, list | tuple) and size and all(isinstance(side, int) for side in size):
        size = min(size)
    if not (isinstance(size, int) and isinstance(multipliers, list | tuple) and isinstance(attention, list | tuple)):
        return True
    return set(attention) <= set(level_sizes(size, multipliers))


def check_fit(config: Config, data: Data) -> None:
    """ValueError unless the data and the denoiser or the classifier, if there is one, speak of the same shape and of the
    same classes; and where both the data and the objective would have a say in what low_res is."""
    downscale = getattr(config.objective, "downscale", 0)
    if downscale and "low_res" in data.inputs:
        raise ValueError(
            f"objective.downscale: expected 0, since {config.data.source} has 'low_res', got {downscale}; "
            f"give {setting('objective.downscale', 0)}"
        )
    for name in FOLLOWERS:
        if name in config.networks and "x" in data.inputs:
            _check_network(name, config, data)


def _check_network(name: str, config: Config, data: Data) -> None:
    model, labels = config.networks[name].model, getattr(data, "labels", None)
    classes = getattr(model, "classes", 0)
    if classes and labels is not None and labels.max() >= classes:
        raise ValueError(
            f"data.source: expected labels from 0 to {classes - 1}, the network's classes, got {labels.max()}; give "
            f"{setting(f'networks.{name}.classes', labels.max() + 1)}"
        )
    shape, expected = data.inputs["x"].shape, inputs(model)["x"].shape
    if shape != expected:
        if len(shape) == 1:
            fix = "choose the mixture preset, whose model takes points"
        elif len(expected) == 1:
            fix = "choose a preset for images, such as digits"
        else:
            height, width, channels = shape
            size = height if height == width else f"[{height},{width}]"
            fix = f"give {setting(f'networks.{name}.size', size)} {setting(f'networks.{name}.channels', channels)}"
        raise ValueError(f"data.source: expected samples of {expected}, the model's shape, got {shape}; {fix}")


def doubt_schedule(config: ScheduleConfig) -> None:
    """DoubtWarning where x_T still shows the data: sampling begins from N(0, I), which training then never saw."""
    left = signal_left_at_end(config)
    if left > MOST_LEFT:
        warnings.warn(
            f"schedule: expected x_T to be noise, as sampling begins with noise alone, got sqrt(alpha_bar_T) = {left:.3g} "
            f"of the data left in it at T = {config.T}; {_remedy(config)}",
            DoubtWarning, stacklevel=3,
        )  # fmt: skip


def doubt_prediction(config: Config) -> None:
    """DoubtWarning where x_0 is asked of eps and x_T, which hold less of it than their digits."""
    objective = config.objective
    if isinstance(objective, Denoising) and (lost := lost_in_noise(objective.schedule, objective.prediction)):
        warnings.warn(f"objective.prediction: {lost}", DoubtWarning, stacklevel=3)


def _remedy(config: ScheduleConfig) -> str:
    """Options that scale beta, if they suffice, or else the kind that always does."""
    from inspect import signature

    from ..process import SCHEDULES

    parameters = signature(SCHEDULES[config.kind]).parameters
    scaled = {
        name: float(f"{1000 / config.T * config.options.get(name, parameters[name].default):.6g}")
        for name in parameters
        if name in ("beta", "beta_start", "beta_end")
    }
    if scaled and max(scaled.values()) < 1:
        changed = type(config)(config.kind, config.T, {**config.options, **scaled})
        if signal_left_at_end(changed) <= MOST_LEFT:
            options = " ".join(setting(f"schedule.options.{name}", f"{value:g}") for name, value in scaled.items())
            return f"scale beta by 1000 / T: {options}"
    return f"take {setting('schedule.kind', 'cosine')}"
