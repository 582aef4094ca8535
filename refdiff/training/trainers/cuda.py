"""Training on a GPU: the whole step, from the noise to the moving average, is captured once as a graph and replayed.

Nothing of a step depends on the host but its batch: the number of the step, the rate, t and every random number are worked
out on the device. All memory of a step comes from one arena, so each step finds the same addresses. The host need not wait
for a step: the batch goes from pinned memory, and the one small result comes back to it while the next step is queued.
"""

from __future__ import annotations

import numpy as np

from ... import models
from ...config import Config
from ...engines import cuda
from ...engines.cuda.noise import diffuse_batch
from ...engines.cuda.optimiser import SCALARS
from ...engines.cuda.runtime import capture
from ...engines.cuda.runtime.arena import Arena
from ...engines.cuda.runtime.captured_step import CapturedStep
from ...engines.cuda.runtime.device import Device
from ...engines.cuda.runtime.flat_optimiser import FlatOptimiser, OptimiserSettings
from ...engines.cuda.runtime.memory import require_memory
from ...errors import TrainingError
from ...models import flatten, unflatten
from ...models.packing import Packing
from ...process import Schedule, q_sample, target
from ...random import Sequence, Stream
from ..state import State
from ..step import Step, check_finite

__all__ = ["CUDATrainer", "check_memory", "memory_needed", "noise_table"]


def noise_table(schedule: Schedule, prediction: str) -> np.ndarray:
    """Rows (a, b, c, d) of t = 0 .. T: x_t = a x_0 + b eps, and what a network that predicts `prediction` should say of it,
    c x_0 + d eps. Both are linear, so the columns are `q_sample` and `target` of units.   -> (T + 1, 4) float32; row 0 is 0.
    """
    t = np.arange(1, schedule.T + 1)
    one, zero = np.ones(schedule.T), np.zeros(schedule.T)
    table = np.zeros((schedule.T + 1, 4))
    for column, (x0, eps) in enumerate([(one, zero), (zero, one)]):
        table[1:, column] = q_sample(schedule, x0, t, eps)
        table[1:, 2 + column] = target(schedule, prediction, x0, eps, t)
    return table.astype(np.float32)


def memory_needed(config: Config, schedule: Schedule) -> int:
    """Bytes of device memory that training takes: a step is run on a device that runs nothing."""
    return capture.memory_needed(lambda arena: CUDATrainer(config, schedule, None, arena.device, arena).launch())


def check_memory(config: Config, schedule: Schedule, device: Device | None = None) -> int:
    """The bytes that training takes of this device, the first GPU unless given. DeviceError if it has not so much."""
    device = device or cuda.current().device
    advice = f"lower train.batch (now {config.train.batch})"
    return require_memory(device, memory_needed(config, schedule), "training needs", advice)


# What a step leaves, beside its number; read at once.
RECORD = [("scalars", "f4", len(SCALARS)), ("loss", "f4"), ("bad", "i4")]


class CUDATrainer:
    """The trainer of the CUDA engine. The first step runs launch by launch, the second is captured, the others replay it.

    A step may be queued while the one before it runs, no more: its result is looked at by the next call at the latest. A
    step whose loss or gradient is not finite writes nothing, nor does any after it, so what `state` gives is always whole.
    """

    def __init__(
        self,
        config: Config,
        schedule: Schedule,
        state: State | None,
        device: Device | None = None,
        arena: Arena | None = None,
    ) -> None:
        """state: where to begin; None: memory without values, for `memory_needed`. device: the first GPU unless given.
        arena: one of that device; unless given, one as large as training needs: DeviceError, with the numbers, if the device
        has less."""
        self.config = config
        self.device = device or cuda.current().device
        self.arena = arena or Arena(self.device, check_memory(config, schedule, self.device))
        self.context = cuda.Context(self.device, self.arena)
        self.packing = Packing.of(models.layout(config.model))
        self.done, self.samples_seen = (state.step, state.seen) if state else (0, 0)  # of steps whose results were seen
        x = {"x": ((config.train.batch, *config.model.shape), np.float32)}
        self.captured = CapturedStep(self.context, x, RECORD, self.done)
        with cuda.use(self.context):
            self.table = cuda.array(noise_table(schedule, config.train.prediction))
            self.optimiser = self._optimiser(state)
        self.p = unflatten(self.optimiser.parameters)

    def step(self, x0: np.ndarray, wait: bool = True) -> Step | None:
        self._check(self.captured.step(self.body, {"x": x0}))
        return self._check(self.captured.settle()) if wait else None

    def state(self) -> State:
        self._check(self.captured.settle())
        flat = self.optimiser.state
        p, average, m, v = (self.packing.unpack(cuda.host(x)) for x in (flat.p, flat.ema, flat.m, flat.v))
        return State(self.done, p, average, m, v, self.samples_seen)

    def launch(self) -> None:
        """Queue a step on the batch that is there; nobody looks at its result."""
        self.captured.launch(self.body)

    def body(self) -> None:
        """What one step launches: [DDPM] algorithm 1 on the batch, then the optimiser."""
        config, number, loss_place = self.config, self.captured.number, self.captured.field("loss")
        x_t, t, goal = diffuse_batch(self.captured.inputs["x"], self.table, config.seed, number, config.dtype)
        key = Sequence(config.seed, Stream.DROPOUT, number)  # type: ignore[arg-type]
        y, saved = models.forward(cuda, config.model, self.p, x_t, t, key)
        loss, saved_loss = cuda.mean_squared_error(y, goal)
        dy = cuda.mean_squared_error_backward(1.0, saved_loss)
        _, g = models.backward(cuda, config.model, dy, models.once(saved), needs_dx=False)
        self.optimiser.collect(flatten(g), loss, loss_place)
        self.optimiser.update(number, loss_place)

    def _check(self, record: np.ndarray | None) -> Step | None:
        """What a step measured. TrainingError, which names the step, where it or one before is bad; what was queued after it
        is forgotten, for it wrote nothing."""
        if record is None:
            return None
        number, bad, loss = int(record["number"]), int(record["bad"]), float(record["loss"])
        rate, norm = (float(record["scalars"][SCALARS.index(name)]) for name in ("rate", "norm"))
        if bad:
            self.captured.settle()
            check_finite(number, loss, norm)
            raise TrainingError(f"step {number}: nothing is trained any more since step {bad}, which was not finite")
        self.done, self.samples_seen = number, self.samples_seen + self.config.train.batch
        return Step(number, loss, norm, rate)

    def _optimiser(self, state: State | None) -> FlatOptimiser:
        s, packing = self.config.train, self.packing
        settings = OptimiserSettings(
            s.steps, s.learning_rate, s.warmup, s.decay, s.clip, s.weight_decay, s.average
        )  # fmt: skip
        trees = {name: getattr(state, name) for name in ("p", "average", "m", "v")} if state else None
        return FlatOptimiser(
            self.context, packing.places, packing.size, trees and {name: packing.pack(tree) for name, tree in trees.items()},
            self.config.dtype, settings, self.captured.field("scalars"), self.captured.field("bad"),
        )  # fmt: skip
