"""Training on a GPU: the whole step, from the noise to the moving average, is captured once as a graph and replayed.

Nothing of a step depends on the host but its batch: the number of the step, the rate, t and every random number are worked
out on the device. All memory of a step comes from one arena, so each step finds the same addresses. The host need not wait
for a step: the batch goes from pinned memory, and the one small result comes back to it while the next step is queued.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

import numpy as np

from .. import models
from ..config import Config
from ..engines import cuda
from ..engines.cuda.array import Array
from ..engines.cuda.device import Device, Graph
from ..engines.cuda.dry import Dry
from ..engines.cuda.memory import Arena, enough
from ..engines.cuda.noise import advance, noised
from ..engines.cuda.optimiser import PIECE, OptimiserSettings, adamw, flat_state, gather, piece_rows
from ..errors import TrainingError
from ..models import Tree, flatten, unflatten
from ..models.packing import Packing
from ..process import Schedule, q_sample, target
from ..random import Sequence, Stream
from .state import State
from .step import Step, check_finite

__all__ = ["Graphed", "memory_needed", "noise_table", "room"]


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
    worker = Graphed(config, schedule, None, Dry())
    worker.body()
    return worker.arena.extent


def room(config: Config, schedule: Schedule, device: Device | None = None) -> int:
    """The bytes that training takes of this device, the first GPU unless given. DeviceError if it has not so much."""
    device = device or cuda.current().device
    advice = f"lower train.batch (now {config.train.batch})"
    return enough(device, memory_needed(config, schedule), "training needs", advice)


RESULT = np.dtype([("scalars", "f4", 8), ("loss", "f4"), ("number", "i4"), ("bad", "i4")])  # of a step, read at once


class Slot(NamedTuple):
    """Pinned memory of one step under way: its batch, and what comes back. Two take turns."""

    x0: np.ndarray
    result: np.ndarray


class Graphed:
    """The trainer of the CUDA engine. The first step runs launch by launch, the second is captured, the others replay it.

    A step may be queued while the one before it runs, no more: its result is looked at by the next call at the latest. A
    step whose loss or gradient is not finite writes nothing, nor does any after it, so what `state` gives is always whole.

    state: where to begin; None: memory without values, for `memory_needed`. device: the first GPU unless given.
    DeviceError, with the numbers, if the device has too little memory.
    """

    def __init__(self, config: Config, schedule: Schedule, state: State | None, device: Device | None = None) -> None:
        self.config, self.dtype, settings = config, config.dtype, config.train
        if device is None:
            device = cuda.current().device
        self.device = device
        self.graph: Graph | None = None
        self.arena = Arena(device, 1 << 40 if isinstance(device, Dry) else room(config, schedule, device))
        self.context = cuda.Context(device, self.arena)
        self.packing = Packing.of(models.layout(config.model))
        self.settings = OptimiserSettings(
            settings.steps, settings.learning_rate, settings.warmup, settings.decay, settings.clip,
            settings.weight_decay, settings.average,
        )  # fmt: skip
        with cuda.use(self.context):
            self.table = cuda.array(noise_table(schedule, settings.prediction))
            p, average, m, v = (
                self._flat(getattr(state, name) if state else None) for name in ("p", "average", "m", "v")
            )
            self.result = cuda.array(self._first(state.step if state else 0), np.int32)
            flat = flat_state(p, average, m, v, bfloat16=self.dtype == "bfloat16")
            self.flat = flat._replace(scalars=self._part("scalars"), bad=self._part("bad"))
            self.loss, self.number = self._part("loss"), self._part("number")
            self.gradient = self._flat(None)
            self.x0 = self.context.empty((settings.batch, *config.model.shape))
            self.pieces = self.context.empty((self._piece_count(), 3), np.int64)
        self.p = self._parameters()
        self.sources: np.ndarray | None = None
        self.done, self.seen = (state.step, state.seen) if state else (0, 0)  # of steps whose results were looked at
        self.slots = [self._slot(), self._slot()]
        self.queued: tuple[Slot, Callable[[], None]] | None = None

    def step(self, x0: np.ndarray, wait: bool = True) -> Step | None:
        assert x0.shape == self.x0.shape, f"step: expected a batch {self.x0.shape}, got {x0.shape}"
        slot = self.slots[0]  # whose step is over, since the one after it was queued
        slot.x0[...] = x0
        self.device.send(self.x0.pointer, slot.x0)
        if self.graph is not None:
            self.graph.replay()
        elif self.sources is None:
            self.body()
        else:
            self.graph = self.context.capture(self.body)
            self.graph.replay()
        arrived = self.device.fetch(self.result.pointer, slot.result)
        before, self.queued = self.queued, (slot, arrived)
        self.slots.reverse()
        self._look(before)
        return self._settle() if wait else None

    def state(self) -> State:
        self._settle()
        flats = (self.flat.p, self.flat.average, self.flat.m, self.flat.v)
        p, average, m, v = (self.packing.unpack(cuda.host(flat)) for flat in flats)
        return State(self.done, p, average, m, v, self.seen)

    def _settle(self) -> Step | None:
        """What the step that is under way measured, when it is over."""
        queued, self.queued = self.queued, None
        return self._look(queued)

    def _look(self, queued: tuple[Slot, Callable[[], None]] | None) -> Step | None:
        """Wait for a step's result and look at it. TrainingError, which names the step, where it or one before is bad; what
        was queued after it is forgotten, for it wrote nothing."""
        if queued is None:
            return None
        slot, arrived = queued
        arrived()
        result = slot.result[0]
        number, bad, loss = int(result["number"]), int(result["bad"]), float(result["loss"])
        rate, norm = float(result["scalars"][0]), float(result["scalars"][6])
        if bad:
            self._settle_quietly()
            check_finite(number, loss, norm)
            raise TrainingError(f"step {number}: nothing is trained any more since step {bad}, which was not finite")
        self.done, self.seen = number, self.seen + len(slot.x0)
        return Step(number, loss, norm, rate)

    def _settle_quietly(self) -> None:
        """Wait for what is under way and forget it."""
        if self.queued is not None:
            self.queued[1]()
            self.queued = None

    def body(self) -> None:
        """What one step launches: [DDPM] algorithm 1 on the batch in `x0`, then the optimiser."""
        config = self.config
        with cuda.use(self.context):
            advance(self.number)
            x_t, t, wanted = noised(self.x0, self.table, config.seed, self.number, self.dtype)
            key = Sequence(config.seed, Stream.DROPOUT, self.number)  # type: ignore[arg-type]
            y, saved = models.forward(cuda, config.model, self.p, x_t, t, key)
            loss, saved_loss = cuda.mean_squared_error(y, wanted)
            dy = cuda.mean_squared_error_backward(1.0, saved_loss)
            _, g = models.backward(cuda, config.model, dy, models.once(saved), needs_dx=False)
            self._collect(g, loss)
            adamw(self.flat, self.gradient, self.number, self.settings, self.loss)

    def _collect(self, g: Tree, loss: Array) -> None:
        """The gradients, each where its operation left it, into the flat buffer, and the loss to its place, in one launch.

        The addresses are those of every step, so the table of them is written in the first one and never again.
        """
        places, base = self.packing.places, self.gradient.pointer
        copies = [(leaf, base + 4 * places[name][0]) for name, leaf in flatten(g).items()] + [(loss, self.loss.pointer)]
        sources = np.concatenate([piece_rows(leaf, to) for leaf, to in copies])
        if self.sources is None:
            self.sources = sources
            self.device.write(self.pieces.pointer, sources)
        assert np.array_equal(sources, self.sources), "a step found other addresses than the one before"
        gather(self.pieces)

    @staticmethod
    def _first(step: int) -> np.ndarray:
        """The result before any step, as integers."""
        result = np.zeros(1, RESULT)
        result["number"] = step
        return result.view(np.int32)

    def _part(self, name: str) -> Array:
        """A field of the result on the device."""
        part, offset = RESULT.fields[name][:2]  # type: ignore[index]
        return Array(self.result.buffer, part.shape, "float32" if part.base == np.float32 else "int32", offset // 4)

    def _slot(self) -> Slot:
        def pinned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
            return self.device.pinned(prod(shape) * np.dtype(dtype).itemsize).view(dtype).reshape(shape)

        return Slot(pinned(self.x0.shape, np.float32), pinned((1,), RESULT))

    def _flat(self, tree: Tree | None) -> Array:
        """A flat buffer on the device with the values of a tree, or zeros."""
        if isinstance(self.device, Dry):
            return self.context.empty((self.packing.size,))
        return cuda.array(np.zeros(self.packing.size, np.float32) if tree is None else self.packing.pack(tree))

    def _parameters(self) -> Tree:
        """What the model computes with: views of the weights, in bfloat16 those of two and more dimensions."""
        flat = self.flat
        return unflatten({
            name: Array((flat.weights if flat.weights is not None and len(shape) > 1 else flat.p).buffer, shape,
                        self.dtype if len(shape) > 1 else "float32", offset)
            for name, (offset, shape) in self.packing.places.items()
        })  # fmt: skip

    def _piece_count(self) -> int:
        return 1 + sum(-(-prod(shape) // PIECE) for _, shape in self.packing.places.values())
