"""Samples from a trained model: noise that depends on the sample's number alone, and the samplers of `process`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np

from .. import engines
from ..divergence import Overflows, require_finite
from ..models import Batch
from ..objectives import lost_in_noise
from ..process import SPACINGS, classifier_guidance, classifier_shift, predictor
from ..process.samplers import Shift
from ..progress import Progress
from ..random import Key, normal
from .checking import check_guidance
from .denoisers import Guide, Model, Predict, check_conditions, denoiser, guided, unconditional
from .methods import choose_sampler, threshold_of
from .networks import Gradient, encoder_function, gradient_function, network_function
from .trained import Trained

__all__ = ["conditioned", "make_trajectory", "sample", "trajectory"]

STRONG = 100  # the published scales of guidance are at most 10
Trajectory: TypeAlias = Iterator[tuple[int, Any]]


def conditioned(
    trained: Trained,
    predict: Predict,
    encode: Callable[[Batch], Batch],
    conditions: Batch,
    gradient: Gradient | None = None,
) -> Model:
    """The Model of these conditions, guided as the settings say; without any guidance it is the network's own.

    predict: of the denoiser; encode: as `encoder_function` makes it; gradient: of a classifier that guides predictions.
    """
    objective, settings, scale = trained.objective, trained.settings, trained.settings.guidance
    full, empty, guide = denoiser(predict, encode(conditions), objective.learned), None, None
    if scale != 1:
        empty = denoiser(predict, encode(unconditional(objective, conditions)), objective.learned)
    if gradient is not None:
        guide = _score_form(trained, gradient, conditions["label"])
    return guided(full, empty, scale, guide, settings)


def _score_form(trained: Trained, gradient: Gradient, label: np.ndarray) -> Guide:
    """What a classifier adds to a prediction, for all methods but `ancestral`."""
    schedule, kind = trained.objective.schedule.build(), trained.objective.prediction
    scale = trained.settings.classifier_scale
    return lambda x, t, y: classifier_guidance(schedule, x, t, y, gradient(x, t, label), scale, kind)


def _mean_shift(trained: Trained, gradient: Gradient, label: np.ndarray) -> Shift:
    """What a classifier adds to the mean of a step of `ancestral`, where guidance acts."""
    settings = trained.settings
    shift = classifier_shift(lambda x, t: gradient(x, t, label), settings.classifier_scale)
    return lambda x, t, mean, variance: shift(x, t, mean, variance) if settings.guides_at(t) else np.zeros_like(x)


def make_trajectory(trained: Trained) -> Callable[..., Trajectory]:
    """(ids, seed, conditions, every) -> (t, x_t) from (T, noise) to (0, samples), for the samples of these numbers.

    x_t (len(ids), ...) float32; without `every` the states on the way may be None. ValueError where settings, denoiser and
    classifier do not fit together.
    """
    check_guidance(trained)
    if engines.resolve(trained.engine) == "cuda":
        from .cuda import CUDASampler, supports

        if supports(trained):
            return CUDASampler(trained)
    predict = network_function(trained.engine, trained.networks["denoiser"], trained.dtype)
    encode, gradient = encoder_function(trained), None
    if trained.classifier is not None and trained.settings.classifier_scale:
        gradient = gradient_function(trained.engine, trained.classifier, trained.dtype)
    shifts = trained.settings.method == "ancestral"

    def walk(ids: np.ndarray, seed: int, conditions: Batch, every: bool = True) -> Trajectory:
        model = conditioned(trained, predict, encode, conditions, None if shifts else gradient)
        shift = _mean_shift(trained, gradient, conditions["label"]) if gradient and shifts else None
        return _trajectory(trained, model, ids, seed, shift)

    return walk


def _strong_guidance(trained: Trained) -> str:
    """What to do about samples that are not finite where they are guided more than anybody would; or ""."""
    names = [name for name in ("guidance", "classifier_scale") if abs(getattr(trained.settings, name)) > STRONG]
    return f"lower {' and '.join(f'sample.{name}' for name in names)}" if names else ""


def _trajectory(trained: Trained, model: Model, ids: np.ndarray, seed: int, shift: Shift | None) -> Trajectory:
    objective, settings, key = trained.objective, trained.settings, Key(seed).under(trained.path)
    schedule = objective.schedule.build()
    x = normal(key("start"), ids, trained.shape)
    yield schedule.T, x
    timesteps = SPACINGS[settings.spacing](schedule, settings.steps).tolist()

    def noise(t: int) -> np.ndarray:
        return normal(key._replace(step=t)("step"), ids, trained.shape)

    predict = predictor(schedule, model, objective.prediction, threshold_of(settings))
    yield from choose_sampler(schedule, settings, predict, x, timesteps, noise, shift)


def trajectory(trained: Trained, sample_ids: np.ndarray, seed: int = 0, conditions: Batch | None = None) -> Trajectory:
    """(t, x_t) from (T, noise) to (0, samples), for the samples of these numbers.   x_t (len(sample_ids), ...) float32.

    The settings choose the sampler. Sample i is the same whatever the others are. conditions: one number, or one a sample,
    by name, such as {"label": 7}; with a classifier the label is the class to which it guides.
    """
    check_guidance(trained)
    whole = check_conditions(trained.networks, trained.objective, conditions or {}, len(sample_ids), trained.classifier)
    return make_trajectory(trained)(sample_ids, seed, whole)


def sample(
    trained: Trained, n: int, seed: int = 0, conditions: Batch | None = None, batch: int = 256, progress: bool = True
) -> np.ndarray:
    """n samples of a trained model.   -> (n, ...) float32.

    conditions: one number, or one a sample, by name, such as {"label": 7}; a condition that is left out counts as none. With
    a classifier the label is the class to which it guides, and a denoiser with classes is told it too. ValueError for n < 1,
    for conditions that the network does not take, for settings and a classifier that do not fit, and where a sample holds
    what is no number: no file of NaN is made of a model that diverged.
    """
    if n < 1:
        raise ValueError(f"n: expected at least one sample, got {n}")
    check_guidance(trained)
    whole = check_conditions(trained.networks, trained.objective, conditions or {}, n, trained.classifier)
    done, way = [], make_trajectory(trained)
    total = -(-n // batch) * trained.settings.steps
    lost = lost_in_noise(trained.objective.schedule, trained.objective.prediction)
    strong = _strong_guidance(trained)
    overflows = Overflows(lost or strong or "look at the weights: has the training diverged?")
    with Progress("sampling", total, "step", progress) as bar:
        for first in range(0, n, batch):
            ids = np.arange(first, min(first + batch, n))
            with overflows.watched("sampling"):
                states = way(ids, seed, {name: value[ids] for name, value in whole.items()}, every=False)
                _, x = next(states)
                for _, x in states:  # noqa: B007
                    bar.update()
                require_finite("samples", x, lost or strong or "have the weights diverged?")
            done.append(x)
    overflows.tell()
    return np.concatenate(done)
