"""What a trained network says of x_t: a Model, `model(x_t, t) -> (prediction, v or None)`, and guidance, a Model of two."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from ..models import Batch, Input, Network, inputs
from ..objectives import Denoising
from ..process import classifier_free_guidance

__all__ = ["Model", "Predict", "check_conditions", "denoiser", "guided", "unconditional"]

Model: TypeAlias = Callable[[Any, Any], tuple[Any, Any]]
Predict: TypeAlias = Callable[[Batch], np.ndarray]


def denoiser(predict: Predict, conditions: Batch, learned: bool = False) -> Model:
    """A Model of a network that is told `conditions`, one a sample, at every t; learned: it says v beside its prediction."""

    def model(x_t: Any, t: Any) -> tuple[Any, Any]:
        y = predict({**conditions, "x": x_t, "t": np.broadcast_to(t, (len(x_t),))})
        if not learned:
            return y, None
        c = x_t.shape[-1]
        return y[..., :c], y[..., c:]

    return model


def guided(full: Model, empty: Model, scale: float) -> Model:
    """Classifier-free guidance [CFG] eq. 6: predictions are combined, before anything holds x0_hat within a range.

    The prediction is `full`'s for scale 1, which is then not changed at all and `empty` not asked, and `empty`'s for 0. v is
    `full`'s at any scale: it says how wide the conditional step is, and a variance is no direction to go further in.
    """
    if scale == 1:
        return full

    def model(x_t: Any, t: Any) -> tuple[Any, Any]:
        conditional, v = full(x_t, t)
        unconditional, _ = empty(x_t, t)
        return classifier_free_guidance(conditional, unconditional, scale), v

    return model


def unconditional(objective: Denoising, conditions: Batch) -> Batch:
    """The conditions with the value in place of each that stands for none."""
    null = {entry: value for entry, value, _ in objective.null}
    return {name: np.full_like(value, null[name]) if name in null else value for name, value in conditions.items()}


def check_conditions(networks: dict[str, Network], objective: Denoising, conditions: Batch, n: int) -> Batch:
    """Conditions for n samples, what is left out being null: those that the denoiser takes, or, of one that an encoder
    makes, what the encoder takes. ValueError for one that nobody takes, one of another shape or kind, or a label that the
    network does not know."""
    network, made = networks["denoiser"], dict(objective.encoders)
    takes = {name: entry for name, entry in inputs(network.config).items() if name not in ("x", "t", *made)}
    for encoder in made.values():
        takes |= inputs(networks[encoder].config)
    for name in conditions:
        if name not in takes:
            raise ValueError(
                f"{name}: expected no such condition, since this network takes {', '.join(takes) or 'none'}, got one; "
                "leave it out, or train a network with classes"
            )
    null = {entry: value for entry, value, _ in objective.null}
    whole = {}
    for name in takes:
        if name not in conditions and name not in null:
            raise ValueError(f"{name}: expected this condition, which the network takes, got none")
        value = np.asarray(conditions[name]) if name in conditions else np.full(takes[name].shape, null[name])
        whole[name] = _for_each(name, value, takes[name], n)
    if "label" in whole and hasattr(network.config, "classes"):
        classes, label = network.config.classes, whole["label"]
        null_label = getattr(network.config, "null_label", True)
        if label.min() < 0 or label.max() >= classes + null_label:
            none = f", or {classes} for none" if null_label else ""
            raise ValueError(
                f"label: expected integers from 0 to {classes - 1}{none}, got {label.min()} to {label.max()}"
            )
    return whole


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
