"""Samples from a trained model: noise that depends on the sample's number alone, and the samplers of `process`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .. import engines, models
from ..config import Config, SampleConfig
from ..config.fitting import lost_in_noise
from ..divergence import Overflows
from ..models import Tree
from ..process import (
    SPACINGS,
    Schedule,
    ancestral,
    ddim,
    dpmpp_2m,
    dpmpp_2s,
    euler,
    euler_ancestral,
    heun,
    posterior_variance,
    predictor,
    step_variance,
)  # fmt: skip
from ..process.samplers import Predict, Trajectory
from ..progress import Progress
from ..random import Sequence, Stream, normal

__all__ = ["denoiser", "sample", "trajectory"]

SOLVERS = {"euler": euler, "heun": heun, "dpmpp_2m": dpmpp_2m, "dpmpp_2s": dpmpp_2s}


def denoiser(config: Config, p: Tree) -> Any:
    """model(x_t, t) -> the network's prediction, for NumPy arrays and t an integer or one a sample."""
    engine, dtype = engines.get(config.engine), config.dtype
    engines.check_dtype(config.engine, dtype)
    if engines.resolve(config.engine) == "cpu":
        from .cpu import data_parallel

        parallel = data_parallel(config.model, p)
        return lambda x_t, t: parallel.predict(x_t, np.broadcast_to(t, (len(x_t),)))
    if engines.resolve(config.engine) == "cuda":
        from .cuda import on_device

        p = on_device(p, dtype)

    def model(x_t: np.ndarray, t: Any) -> np.ndarray:
        y = models.predict(engine, config.model, p, engine.array(x_t, dtype), np.broadcast_to(t, (len(x_t),)))
        return engine.host(y)

    return model


class NotFiniteError(ValueError):
    """Samples with NaN or infinity."""


Walk = Callable[..., Iterator[tuple[int, Any]]]


def walker(config: Config, p: Tree) -> Walk:
    """The walk (index, seed, every) -> (t, x_t) from (T, noise) to (0, samples), for the samples of these numbers.

    x_t (len(index), ...) float32; without `every` the states on the way may be None. `config.sample` chooses the sampler.
    """
    if engines.resolve(config.engine) == "cuda":
        from .cuda import METHODS, CUDASampler

        if config.sample.method in METHODS:
            return CUDASampler(config, p)
    model = denoiser(config, p)
    return lambda index, seed=0, every=True: _walk(config, model, index, seed)


def trajectory(config: Config, p: Tree, index: np.ndarray, seed: int = 0) -> Iterator[tuple[int, np.ndarray]]:
    """(t, x_t) from (T, noise) to (0, samples), for the samples of these numbers.   x_t (len(index), ...) float32.

    `config.sample` chooses the sampler. Sample i is the same whatever the others are.
    """
    return walker(config, p)(index, seed)


def _walk(config: Config, model: Any, index: np.ndarray, seed: int) -> Iterator[tuple[int, np.ndarray]]:
    schedule, s, shape = config.schedule.build(), config.sample, config.model.shape
    clip = (-1.0, 1.0) if s.clip else None
    predict = predictor(schedule, model, config.train.prediction, clip)
    x = normal(Sequence(seed, Stream.START), index, shape)
    yield schedule.T, x
    timesteps = SPACINGS[s.spacing](schedule, s.steps).tolist()

    def noise(t: int) -> np.ndarray:
        return normal(Sequence(seed, Stream.STEP, t), index, shape)

    yield from walk(schedule, s, predict, x, timesteps, noise)


def walk(schedule: Schedule, s: SampleConfig, predict: Predict, x: Any, timesteps: list[int], noise: Any) -> Trajectory:
    """The sampler of `process` that these settings choose, from x at the last timestep on."""
    if s.method in SOLVERS:
        return SOLVERS[s.method](schedule, predict, x, timesteps)
    if s.method == "ddim":
        return ddim(schedule, predict, x, timesteps, noise, s.eta)
    if s.method == "euler_ancestral":
        return euler_ancestral(schedule, predict, x, timesteps, noise)
    variance = posterior_variance if s.variance == "posterior" else step_variance
    return ancestral(schedule, predict, x, timesteps, noise, variance)


def sample(config: Config, p: Tree, n: int, seed: int = 0, batch: int = 256, progress: bool = True) -> np.ndarray:
    """n samples of the model with weights p, usually a state's `average`.   -> (n, ...) float32.

    ValueError for n < 1, and where a sample holds what is no number: no file of NaN is made of a model that diverged.
    """
    if n < 1:
        raise ValueError(f"n: expected at least one sample, got {n}")
    done, way_of = [], walker(config, p)
    total = -(-n // batch) * config.sample.steps
    lost = lost_in_noise(config)
    overflows = Overflows(lost or "look at the weights: has the training diverged?")
    with Progress("sampling", total, "step", progress) as bar:
        for first in range(0, n, batch):
            with overflows.watched("sampling"):
                way = way_of(np.arange(first, min(first + batch, n)), seed, every=False)
                _, x = next(way)
                for _, x in way:  # noqa: B007
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
