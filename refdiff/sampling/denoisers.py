"""What a trained network says of x_t: a Model, `model(x_t, t) -> (prediction, v or None)`, and guidance, a Model of two, or
of one and a classifier."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np

from ..errors import setting
from ..models import Batch, Input, Network, inputs
from ..objectives import Denoising
from ..process import classifier_free_guidance, rescaled_guidance
from .settings import SampleConfig

__all__ = [
    "Guide", "Model", "Predict", "check_conditions", "conditions_taken", "denoiser", "guided", "unconditional",
]  # fmt: skip

Model: TypeAlias = Callable[[Any, Any], tuple[Any, Any]]
Function: TypeAlias = Callable[[ModuleType, Network, Batch], Any]  # of what is asked of a network, on an engine
Predict: TypeAlias = Callable[[Batch], np.ndarray]
Guide: TypeAlias = Callable[[Any, Any, Any], Any]  # (x_t, t, prediction) -> the prediction, guided
ROUNDING = 1e-3  # how far beyond [-1, 1] an image may lie that somebody has averaged
_TRAINED_WITH = {"low_res": setting("networks.denoiser.low_res", "SIDE")}  # what makes a network take a condition


def denoiser(predict: Predict, conditions: Batch, learned: bool = False) -> Model:
    """A Model of a network that is told `conditions`, one a sample, at every t; learned: it says v beside its prediction."""

    def model(x_t: Any, t: Any) -> tuple[Any, Any]:
        y = predict({**conditions, "x": x_t, "t": np.broadcast_to(t, (len(x_t),))})
        if not learned:
            return y, None
        c = x_t.shape[-1]
        return y[..., :c], y[..., c:]

    return model


def guided(
    full: Model,
    empty: Model | None,
    scale: float,
    classifier: Guide | None = None,
    settings: SampleConfig = SampleConfig(),
) -> Model:
    """Guidance: predictions are combined, before anything holds x0_hat within a range.

    First classifier-free [CFG] eq. 6: `full`'s for scale 1, `empty` then not asked, and `empty`'s for 0; then by a
    classifier [ADM] algorithm 2; then the result is scaled back, sample by sample, as settings.guidance_rescale says [Lin24]
    section 3.4. At a t outside of settings.guidance_interval it is `full`'s, and nobody else is asked; so it is where
    nothing guides. v is `full`'s at any scale: it says how wide the conditional step is, and a variance is no direction to
    go further in. t is one integer for all samples where there is an interval.
    """
    if scale == 1 and classifier is None:
        return full

    def model(x_t: Any, t: Any) -> tuple[Any, Any]:
        conditional, v = full(x_t, t)
        if not settings.guides_at(t):
            return conditional, v
        prediction = conditional
        if scale != 1:
            assert empty is not None
            prediction = classifier_free_guidance(conditional, empty(x_t, t)[0], scale)
        if classifier is not None:
            prediction = classifier(x_t, t, prediction)
        if settings.guidance_rescale:
            prediction = rescaled_guidance(conditional, prediction, settings.guidance_rescale)
        return prediction, v

    return model


def unconditional(objective: Denoising, conditions: Batch) -> Batch:
    """The conditions with the value in place of each that stands for none."""
    null = {entry: value for entry, value, _ in objective.null}
    return {name: np.full_like(value, null[name]) if name in null else value for name, value in conditions.items()}


def conditions_taken(networks: dict[str, Network], objective: Denoising) -> dict[str, Input]:
    """The conditions that the denoiser takes, by name, or, of one that an encoder makes, what the encoder takes."""
    made = dict(objective.encoders)
    takes = {
        name: entry for name, entry in inputs(networks["denoiser"].config).items() if name not in ("x", "t", *made)
    }
    for encoder in made.values():
        takes |= inputs(networks[encoder].config)
    return takes


def check_conditions(
    networks: dict[str, Network], objective: Denoising, conditions: Batch, n: int, classifier: Network | None = None
) -> Batch:
    """Conditions for n samples, what is left out being null: those of `conditions_taken`; with a classifier also the label
    to which it guides. ValueError for one that nobody takes, one of another shape or kind, a label that a network does not
    know, or small images out of the range in which the objective makes them of x."""
    network, takes = networks["denoiser"], conditions_taken(networks, objective)
    told = "label" in takes
    if classifier is not None:
        takes["label"] = Input((), "int")
        if "label" not in conditions:
            raise ValueError("label: expected the class to which the classifier guides, got none; give one")
    for name in conditions:
        if name not in takes:
            raise ValueError(
                f"{name}: expected no such condition, since this network takes {', '.join(takes) or 'none'}, got one; "
                f"leave it out, or train a network with {_TRAINED_WITH.get(name, 'classes')}"
            )
    null = {entry: value for entry, value, _ in objective.null}
    whole = {}
    for name in takes:
        if name not in conditions and name not in null:
            raise ValueError(f"{name}: expected this condition, which the network takes, got none; give {name}")
        value = np.asarray(conditions[name]) if name in conditions else np.full(takes[name].shape, null[name])
        whole[name] = _for_each(name, value, takes[name], n)
    if classifier is not None:
        _check_label(whole["label"], classifier.config.classes, ", the classifier's classes")
    elif told and hasattr(network.config, "classes"):
        _check_label(whole["label"], network.config.classes, null=getattr(network.config, "null_label", True))
    if objective.downscale:
        _check_range("low_res", whole["low_res"])
    return whole


def _check_range(name: str, value: np.ndarray) -> None:
    """ValueError unless an image is one in [-1, 1]; its own rounding may lead out of it."""
    if not (value.min() >= -1 - ROUNDING and value.max() <= 1 + ROUNDING):  # NaN is nowhere
        advice = "scale bytes by v / 127.5 - 1" if value.min() >= 0 else "scale them"
        raise ValueError(f"{name}: expected images in [-1, 1], got {value.min():g} to {value.max():g}; {advice}")


def _check_label(label: np.ndarray, classes: int, whose: str = "", null: bool = False) -> None:
    """ValueError unless all labels are classes, or stand for none where one does."""
    if label.min() < 0 or label.max() >= classes + null:
        none = f", or {classes} for none" if null else ""
        raise ValueError(
            f"label: expected integers from 0 to {classes - 1}{none}{whose}, got {label.min()} to {label.max()}"
        )


def _for_each(name: str, value: np.ndarray, entry: Input, n: int) -> np.ndarray:
    """The value of each of n samples, given as one for all or one for each. ValueError for another shape or kind."""
    kinds = "iu" if entry.kind == "int" else "iuf"
    if value.dtype.kind not in kinds:
        raise ValueError(f"{name}: expected {entry.kind} numbers, got {value.dtype}")
    one = len(entry.shape) == value.ndim
    value = np.broadcast_to(value, (n, *value.shape)) if one else value
    fits = value.ndim == len(entry.shape) + 1 and all(
        e in (-1, a) for a, e in zip(value.shape[1:], entry.shape, strict=True)
    )
    if not fits or len(value) != n:
        got = value.shape[1:] if one else value.shape
        raise ValueError(f"{name}: expected shape {entry.shape}, or ({n}, ...) with one for each sample, got {got}")
    return value
