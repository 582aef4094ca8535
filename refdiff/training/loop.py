"""Training: [DDPM] algorithm 1, with the weights' moving average, a log, checkpoints, and an end that loses nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import engines, models
from ..errors import TrainingError
from ..process import Schedule, q_sample, target
from ..random import Key, Stream, integers, normal, permutation
from .config import Config
from .data import Dataset, load
from .optimiser import adamw, clip, global_norm, learning_rate, moving_average
from .run import Run
from .state import State

__all__ = ["Step", "batch_indices", "train", "train_step"]


class Step(NamedTuple):
    """What one step measured: the loss, the norm of the gradient before clipping, the learning rate."""

    loss: float
    gradient_norm: float
    learning_rate: float


def train_step(config: Config, schedule: Schedule, state: State, x0: np.ndarray) -> tuple[State, Step]:
    """One step of [DDPM] algorithm 1 on the batch x0 (N, ...), a pure function of its arguments.

    TrainingError when the loss or the gradient is not finite.
    """
    engine, seed, step = engines.get(config.engine), config.seed, state.step + 1
    place = np.arange(len(x0))
    t = integers(Key(seed, Stream.TIME, step), place, 1, schedule.T)
    eps = normal(Key(seed, Stream.NOISE, step), place, x0.shape[1:])
    x_t = engine.array(q_sample(schedule, x0, t, eps))
    wanted = engine.array(target(schedule, config.train.prediction, x0, eps, t))

    y, saved = models.forward(engine, config.model, state.p, x_t, t, Key(seed, Stream.DROPOUT, step))
    loss, saved_loss = engine.mean_squared_error(y, wanted)
    dy = engine.mean_squared_error_backward(1.0, saved_loss)
    _, g = models.backward(engine, config.model, dy, saved)

    norm = global_norm(g)
    if not math.isfinite(loss) or not math.isfinite(norm):
        raise TrainingError(f"step {step}: expected a finite loss and gradient, came loss {loss}, gradient norm {norm}")
    settings = config.train
    if settings.clip:
        g = clip(g, norm, settings.clip)
    rate = learning_rate(step, settings.steps, settings.learning_rate, settings.warmup, settings.decay)
    p, m, v = adamw(state.p, g, state.m, state.v, step, rate, settings.weight_decay)
    average = moving_average(state.average, p, step, settings.average)
    return State(step, p, average, m, v, state.seen + len(x0)), Step(float(loss), norm, rate)


def batch_indices(seed: int, seen: int, batch: int, n: int) -> np.ndarray:
    """Which of n samples come next after `seen`: each epoch is a permutation of its own, batches run across epochs.

    -> (batch,) integers; a function of its arguments alone, so a resumed run goes on where it was.
    """
    position = np.arange(seen, seen + batch)
    orders = {epoch: permutation(Key(seed, Stream.ORDER, epoch), n) for epoch in np.unique(position // n).tolist()}
    return np.array([orders[p // n][p % n] for p in position.tolist()])


def train(
    config: Config,
    out: str | Path | None = None,
    *,
    resume: bool = False,
    force: bool = False,
    progress: bool = True,
    data: Dataset | None = None,
    on_step: Callable[[State, Step], Any] | None = None,
) -> State:
    """Train a model and return the last state. With `out`, everything is kept in that folder (see `Run`).

    resume: go on from the checkpoint in `out`; force: replace the run in `out`. on_step(state, step) is called after
    each step. Ctrl-C saves a checkpoint and raises KeyboardInterrupt. ValueError for anything that does not fit,
    TrainingError when the loss stops being finite; the last good checkpoint stays.
    """
    data = data or load(config.data.source)
    _check_fit(config, data)
    schedule = config.schedule.build()
    run = Run(out, config, resume=resume, force=force) if out is not None else None
    state = run.state if run and run.state else State.first(config)
    started, first = time.perf_counter(), state.step
    every = config.train
    with _bar(config, state, progress) as bar:
        try:
            while state.step < every.steps:
                x0 = data.x[batch_indices(config.seed, state.seen, every.batch, len(data.x))]
                state, measured = train_step(config, schedule, state, x0)
                rate = (state.step - first) * every.batch / (time.perf_counter() - started)
                bar.update()
                if state.step % every.log_every == 0 or state.step == every.steps:
                    bar.set_postfix_str(f"loss {measured.loss:.4f}, {rate:.0f} images/s")
                    if run:
                        run.log(state.step, **measured._asdict(), images_per_second=rate)
                if run and _due(state.step, every.grid_every):
                    run.grid(state)
                if run and _due(state.step, every.checkpoint_every):
                    run.save(state)
                if on_step:
                    on_step(state, measured)
        except TrainingError as error:
            kept = f"; the last good checkpoint is {run.checkpoint}" if run and run.checkpoint.exists() else ""
            raise TrainingError(f"{error}; lower train.learning_rate or set train.clip{kept}") from None
        except KeyboardInterrupt:
            if run:
                run.save(state)
            raise
    if run:
        run.save(state)
    return state


def _check_fit(config: Config, data: Dataset) -> None:
    """The data and the model speak of the same shape."""
    wanted = config.model.shape
    if data.shape != wanted:
        fix = "choose the mixture preset, whose model takes points"
        if len(data.shape) == 3:
            fix = f"give square images, or --set model.size={data.shape[0]} --set model.channels={data.shape[2]}"
        raise ValueError(f"data.source: expected samples of {wanted}, the model's shape, came {data.shape}; {fix}")
    if not len(data.x):
        raise ValueError(f"data.source: expected at least one training sample in {data.name}, came none")


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _bar(config: Config, state: State, progress: bool) -> Any:
    from tqdm import tqdm

    return tqdm(total=config.train.steps, initial=state.step, unit="step", disable=not progress, dynamic_ncols=True)
