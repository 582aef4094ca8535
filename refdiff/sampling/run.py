"""Samples from a trained model: noise that depends on the sample's number alone, and the samplers of `process`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np

from .. import engines
from ..divergence import Overflows
from ..errors import NotFiniteError
from ..models import Batch
from ..objectives import lost_in_noise
from ..process import SPACINGS, predictor
from ..progress import Progress
from ..random import Key, normal
from .denoisers import Model, Predict, check_conditions, denoiser, guided, unconditional
from .methods import choose_sampler, threshold_of
from .networks import encoder_function, network_function
from .trained import Trained

__all__ = ["conditioned", "make_trajectory", "sample", "trajectory"]

Trajectory: TypeAlias = Iterator[tuple[int, Any]]


def conditioned(trained: Trained, predict: Predict, encode: Callable[[Batch], Batch], conditions: Batch) -> Model:
    """The Model of these conditions, guided as the settings say; a network without conditions has nothing to guide by.

    predict: of the denoiser; encode: as `encoder_function` makes it.
    """
    objective = trained.objective
    full = denoiser(predict, encode(conditions), objective.learned)
    if not conditions:
        return full
    scale = trained.settings.guidance
    if scale == 1:
        return full
    empty = denoiser(predict, encode(unconditional(objective, conditions)), objective.learned)
    return guided(full, empty, scale)


def make_trajectory(trained: Trained) -> Callable[..., Trajectory]:
    """(ids, seed, conditions, every) -> (t, x_t) from (T, noise) to (0, samples), for the samples of these numbers.

    x_t (len(ids), ...) float32; without `every` the states on the way may be None.
    """
    if engines.resolve(trained.engine) == "cuda":
        from .cuda import CUDASampler, supports

        if supports(trained):
            return CUDASampler(trained)
    predict = network_function(trained.engine, trained.networks["denoiser"], trained.dtype)
    encode = encoder_function(trained)

    def walk(ids: np.ndarray, seed: int, conditions: Batch, every: bool = True) -> Trajectory:
        return _trajectory(trained, conditioned(trained, predict, encode, conditions), ids, seed)

    return walk


def _trajectory(trained: Trained, model: Model, ids: np.ndarray, seed: int) -> Trajectory:
    objective, settings, key = trained.objective, trained.settings, Key(seed).under(trained.path)
    schedule = objective.schedule.build()
    x = normal(key("start"), ids, trained.shape)
    yield schedule.T, x
    timesteps = SPACINGS[settings.spacing](schedule, settings.steps).tolist()

    def noise(t: int) -> np.ndarray:
        return normal(key._replace(step=t)("step"), ids, trained.shape)

    predict = predictor(schedule, model, objective.prediction, threshold_of(settings))
    yield from choose_sampler(schedule, settings, predict, x, timesteps, noise)


def trajectory(trained: Trained, sample_ids: np.ndarray, seed: int = 0, conditions: Batch | None = None) -> Trajectory:
    """(t, x_t) from (T, noise) to (0, samples), for the samples of these numbers.   x_t (len(sample_ids), ...) float32.

    The settings choose the sampler. Sample i is the same whatever the others are. conditions: one number, or one a sample,
    by name, such as {"label": 7}.
    """
    whole = check_conditions(trained.networks, trained.objective, conditions or {}, len(sample_ids))
    return make_trajectory(trained)(sample_ids, seed, whole)


def sample(
    trained: Trained, n: int, seed: int = 0, conditions: Batch | None = None, batch: int = 256, progress: bool = True
) -> np.ndarray:
    """n samples of a trained model.   -> (n, ...) float32.

    conditions: one number, or one a sample, by name, such as {"label": 7}; a condition that is left out counts as none.
    ValueError for n < 1, for conditions that the network does not take, and where a sample holds what is no number: no file
    of NaN is made of a model that diverged.
    """
    if n < 1:
        raise ValueError(f"n: expected at least one sample, got {n}")
    whole = check_conditions(trained.networks, trained.objective, conditions or {}, n)
    done, way = [], make_trajectory(trained)
    total = -(-n // batch) * trained.settings.steps
    lost = lost_in_noise(trained.objective.schedule, trained.objective.prediction)
    overflows = Overflows(lost or "look at the weights: has the training diverged?")
    with Progress("sampling", total, "step", progress) as bar:
        for first in range(0, n, batch):
            ids = np.arange(first, min(first + batch, n))
            with overflows.watched("sampling"):
                states = way(ids, seed, {name: value[ids] for name, value in whole.items()}, every=False)
                _, x = next(states)
                for _, x in states:  # noqa: B007
                    bar.update()
                bad = int(np.count_nonzero(~np.isfinite(x)))
                if bad:
                    raise NotFiniteError(
                        f"samples: expected finite numbers, got {bad} of {x.size} that are not; "
                        f"{lost or 'have the weights diverged?'}"
                    )
            done.append(x)
    overflows.tell()
    return np.concatenate(done)
