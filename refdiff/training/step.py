"""One step of training, [DDPM] algorithm 1, as a pure function to be read; and who makes the steps of a run.

`train_step` works on any engine of the host. A `Trainer` keeps the weights where its engine has them, and writes them in
place: that is what the fast engines do.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Protocol

import numpy as np

from .. import engines, models
from ..config import Config
from ..errors import TrainingError
from ..models import Tree
from ..process import Schedule, q_sample, target
from ..random import Sequence, Stream, integers, normal
from .optimiser import adamw, clip, global_norm, learning_rate, moving_average
from .state import State

__all__ = ["Step", "Trainer", "check_finite", "loss_and_gradient", "ready", "train_step", "trainer"]


class Step(NamedTuple):
    """What a step measured: its number, the loss, the norm of the gradient before clipping, the learning rate."""

    step: int
    loss: float
    gradient_norm: float
    learning_rate: float


def loss_and_gradient(
    config: Config, schedule: Schedule, p: Tree, x0: np.ndarray, step: int, first: int = 0, share: float = 1.0
) -> tuple[float, Tree]:
    """The loss of [DDPM] algorithm 1 at step number `step` on x0 (N, ...), and share times its gradient, a tree like p.

    x0: a batch, or of a batch the part that begins with sample `first`.
    """
    x_t, t, wanted = noised(config, schedule, x0, step, first)
    loss, g = there_and_back(config, p, x_t, t, wanted, step, first, share)
    return float(loss), g


def noised(
    config: Config, schedule: Schedule, x0: np.ndarray, step: int, first: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x_t, t (N,) and what the network should say, for x0 (N, ...) at step number `step`."""
    engine, seed = engines.get(config.engine), config.seed
    place = first + np.arange(len(x0))
    t = integers(Sequence(seed, Stream.TIME, step), place, 1, schedule.T)
    eps = normal(Sequence(seed, Stream.NOISE, step), place, x0.shape[1:])
    wanted = target(schedule, config.train.prediction, x0, eps, t)
    return engine.array(q_sample(schedule, x0, t, eps)), t, engine.array(wanted)


def there_and_back(
    config: Config, p: Tree, x_t: np.ndarray, t: np.ndarray, wanted: np.ndarray, step: Any, first: int, share: float
) -> tuple[Any, Tree]:
    """The loss at x_t and share times its gradient. Operations of the engine alone."""
    engine = engines.get(config.engine)
    y, saved = models.forward(engine, config.model, p, x_t, t, Sequence(config.seed, Stream.DROPOUT, step, first))
    loss, saved_loss = engine.mean_squared_error(y, wanted)
    dy = engine.mean_squared_error_backward(share, saved_loss)
    _, g = models.backward(engine, config.model, dy, models.once(saved), needs_dx=False)
    return loss, g


def check_finite(step: int, loss: float, norm: float) -> None:
    """TrainingError, which names the step, when its loss or the norm of its gradient is not finite."""
    if not math.isfinite(loss) or not math.isfinite(norm):
        raise TrainingError(f"step {step}: expected a finite loss and gradient, got loss {loss}, gradient norm {norm}")


def train_step(config: Config, schedule: Schedule, state: State, x0: np.ndarray) -> tuple[State, Step]:
    """One step of [DDPM] algorithm 1 on the batch x0 (N, ...), a pure function of its arguments.

    TrainingError when the loss or the gradient is not finite.
    """
    step, settings = state.step + 1, config.train
    loss, g = loss_and_gradient(config, schedule, state.p, x0, step)
    norm = global_norm(g)
    check_finite(step, loss, norm)
    if settings.clip:
        g = clip(g, norm, settings.clip)
    rate = learning_rate(step, settings.steps, settings.learning_rate, settings.warmup, settings.decay)
    p, m, v = adamw(state.p, g, state.m, state.v, step, rate, settings.weight_decay)
    average = moving_average(state.average, p, step, settings.average)
    return State(step, p, average, m, v, state.seen + len(x0)), Step(step, loss, norm, rate)


class Trainer(Protocol):
    """Makes one step after another."""

    def step(self, x0: np.ndarray, wait: bool = True) -> Step | None:
        """One step on the batch x0 (N, ...). TrainingError, and nothing changed, when loss or gradient is not finite.

        wait: False: a trainer whose device still works on the step gives None, and raises what there is to raise of it, with
        its own number, in the next call of `step` or `state`.
        """
        ...

    def state(self) -> State:
        """Where the run is now, on the host; later steps do not change it."""
        ...


class Functional:
    """`train_step` after `train_step`."""

    def __init__(self, config: Config, schedule: Schedule, state: State) -> None:
        self.config, self.schedule, self._state = config, schedule, state

    def step(self, x0: np.ndarray, wait: bool = True) -> Step:
        self._state, measured = train_step(self.config, self.schedule, self._state, x0)
        return measured

    def state(self) -> State:
        return self._state


def ready(config: Config) -> None:
    """ValueError or DeviceError, which say what to do, where this machine cannot compute this configuration."""
    engines.check_dtype(config.engine, config.dtype)
    engine = engines.resolve(config.engine)
    if engine == "cuda":
        from .trainers.cuda import check_memory

        check_memory(config, config.schedule.build())
    if engine == "cpu":
        from ..engines import cpu

        cpu.threads()  # what REFDIFF_THREADS says is looked at the first time


def trainer(config: Config, schedule: Schedule, state: State) -> Trainer:
    """Who trains with the engine of this configuration, from this state on. DeviceError where there is no such engine."""
    engine = engines.resolve(config.engine)
    if engine == "cuda":
        from .trainers.cuda import CUDATrainer

        return CUDATrainer(config, schedule, state)
    if engine == "cpu":
        from .trainers.cpu import CPUTrainer

        return CPUTrainer(config, schedule, state)
    return Functional(config, schedule, state)
