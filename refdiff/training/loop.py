"""Training: batches in a fixed random order, a log, checkpoints, sample grids, and an end that loses nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..config import Config
from ..config.fitting import check_fit, doubt_prediction, doubt_schedule
from ..data import Data, Dataset
from ..divergence import Overflows
from ..errors import TrainingError
from ..progress import Progress
from ..random import Key, permutation
from .frozen import check_sources, frozen_trees
from .run import Run
from .state import State
from .stopping import stoppable
from .trainers import Step, check_machine, trainer
from .trainers.checking import check_batch, check_inputs

__all__ = ["batch_indices", "train"]


def batch_indices(seed: int, seen: int, batch: int, n: int) -> np.ndarray:
    """Which of n samples come next after `seen`: each epoch is a permutation of its own, batches run across epochs.

    -> (batch,) integers; a function of its arguments alone, so a resumed run goes on where it was.
    """
    position = np.arange(seen, seen + batch)
    orders = {epoch: permutation(Key(seed, epoch)("order"), n) for epoch in np.unique(position // n).tolist()}
    return np.array([orders[p // n][p % n] for p in position.tolist()])


def train(
    config: Config,
    out: str | Path | None = None,
    *,
    resume: bool = False,
    force: bool = False,
    progress: bool = True,
    data: Data | None = None,
    on_step: Callable[[Step], Any] | None = None,
) -> State:
    """Train a model and return the last state. With `out`, everything is kept in that folder (see `Run`).

    resume: go on from the checkpoint in `out`; force: replace the run in `out`. on_step(step) is called after each
    step. Ctrl-C ends the step, saves a checkpoint and raises KeyboardInterrupt; a second one does so at once,
    and saves nothing. ValueError for anything that does not fit,
    TrainingError when the loss stops being finite; the last good checkpoint stays. DoubtWarning for a schedule that leaves
    much of the data in x_T.
    """
    data = config.data.open() if data is None else data
    if not len(data):
        raise ValueError(
            f"data.source: expected at least one sample, got none from {config.data.source}; choose other data"
        )
    config = replace(config, data=config.data.named(data))
    if config.sample.classifier_scale:
        raise ValueError(
            "sample.classifier_scale: expected 0 in training, where no classifier guides, got "
            f"{config.sample.classifier_scale:g}; leave it to sampling"
        )
    check_inputs(config.data.source, data.inputs)
    check_fit(config, data)
    check_batch(config, data.inputs, config.data.source)
    if isinstance(data, Dataset):
        config.objective.check_samples(data.x)
    if hasattr(config.objective, "schedule"):
        doubt_schedule(config.schedule)
    doubt_prediction(config)
    check_machine(config, data.inputs)
    frozen_trees(config, State(0, 0, {}, {}))  # before a former run is replaced
    if out is not None:
        check_sources(config, out)
    run = Run(out, config, resume=resume, force=force) if out is not None else None
    config = run.config if run else config
    state = run.take_state() if run else None
    state = state or State.first(config)
    worker = trainer(config, state, data.inputs)
    advice = "lower train.learning_rate or set train.max_grad_norm"
    overflows = Overflows(advice)
    started, first, seen, every = time.perf_counter(), state.step, state.samples_seen, config.train
    del state  # the worker has what it needs: four arrays as large as the model
    with Progress("training", every.steps, "step", progress, first) as bar, stoppable() as stop:
        try:
            for step in range(first + 1, every.steps + 1):
                shown = step % every.log_every == 0 or step == every.steps
                ids = batch_indices(config.seed, seen, every.batch, len(data))
                batch = data.rows(ids, Key(config.seed, step, 0, every.batch, "data/"))
                if not isinstance(data, Dataset) and "x" in batch:
                    config.objective.check_samples(batch["x"])
                with overflows.watched(f"step {step}"):
                    measured = worker.step(batch, wait=shown or on_step is not None)
                seen += every.batch
                bar.update()
                if run:
                    run.begin()
                if shown and measured:
                    rate = (step - first) * every.batch / (time.perf_counter() - started)
                    bar.say(f"loss {measured.loss:.4f}, {rate:.0f} images/s")
                    if run:
                        run.log(**logged(measured), images_per_second=rate)
                if run and _due(step, every.grid_every):
                    run.grid(worker.state(), data)
                if run and _due(step, every.checkpoint_every):
                    run.save(worker.state())
                if on_step and measured:
                    on_step(measured)
                stop.check()
        except TrainingError as error:
            kept = (
                f"; the last good checkpoint is {run.checkpoint}"
                if run and run.begun and run.checkpoint.exists()
                else ""
            )
            raise TrainingError(f"{error}; {advice}{kept}") from None
        except KeyboardInterrupt:
            if run and run.begun and stop.asked < 2:  # else it came in the middle of a step
                run.save(worker.state())
            raise
    overflows.tell()
    state = worker.state()
    if run:
        run.save(state)
    return state


def logged(step: Step) -> dict[str, float]:
    """A step as a line of the log: its number, loss, gradient's norm and rate, then whatever else was measured."""
    line = {
        "step": step.step,
        "loss": step.loss,
        "gradient_norm": step.gradient_norm,
        "learning_rate": step.learning_rate,
    }
    line |= {name: value for name, value in step.terms.items() if name != "loss"}
    if len(step.norms) > 1:
        line |= {f"gradient_norm.{name}": value for name, value in step.norms.items()}
    return line


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
