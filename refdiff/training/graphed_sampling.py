"""Sampling on a GPU: one step, the network and what follows it, is captured once as a graph and replayed for the others."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from .. import models
from ..config import Config, SampleConfig
from ..engines import cuda
from ..engines.cuda.device import Device
from ..engines.cuda.dry import Dry
from ..engines.cuda.memory import Arena, enough
from ..engines.cuda.sampler import METHODS, SamplerState, SamplerTables, sampler_state, sampler_step
from ..models import Tree, tree_map
from ..process import SPACINGS, Schedule, convert, eps_from_x0
from ..sampling.run import walk

__all__ = ["METHODS", "GraphedSampler", "on_device", "tables"]


def on_device(p: Tree, dtype: str) -> Tree:
    """Weights from the host as the engine wants them: those of two and more dimensions as dtype, vectors as float32."""
    return tree_map(lambda a: cuda.array(a, dtype if np.ndim(a) > 1 else "float32"), p)


def tables(schedule: Schedule, settings: SampleConfig, prediction: str = "eps") -> SamplerTables:
    """What each step multiplies by, from the samplers of `process` themselves. ValueError for a method not of METHODS.

    The sampler runs in float64 on linear forms instead of images: arrays of four numbers, the parts of x, x0_hat, the last
    x0_hat and z. After each step what it holds is named x again, so each row starts from the unit forms.
    """
    if settings.method not in METHODS:
        raise ValueError(f"sample.method: expected one of {', '.join(METHODS)}, got {settings.method!r}")
    of_x, of_x0, of_before, of_z = np.eye(4)
    given = [of_before.copy()]

    def predict(x: np.ndarray, t: int) -> tuple[np.ndarray, np.ndarray]:
        given[-1][:] = of_before  # what a multistep sampler kept of the step before
        given.append(of_x0.copy())
        return given[-1], eps_from_x0(schedule, x, t, of_x0)

    timesteps = SPACINGS[settings.spacing](schedule, settings.steps).tolist()
    way = walk(schedule, settings, predict, of_x.copy(), timesteps, lambda t: of_z)
    rows = []
    for t, (_, now) in zip(timesteps[::-1], way, strict=True):
        conversion = convert(schedule, np.array([1.0, 0.0]), t, np.array([0.0, 1.0]), prediction, "x0")
        rows.append([*conversion, *now, 0, 0])
        now[:] = of_x
    return SamplerTables(np.array(rows, np.float32), np.array(timesteps[::-1], np.int32), bool(settings.clip))


class GraphedSampler:
    """`trajectory` on the CUDA engine, for the samplers with one prediction a step (METHODS).

    The weights go to the device once. device: the first GPU unless given. DeviceError if it has too little memory.
    """

    def __init__(self, config: Config, p: Tree, device: Device | None = None) -> None:
        self.config = config
        self.device = device or cuda.current().device
        self.tables = tables(config.schedule.build(), config.sample, config.train.prediction)
        with cuda.use(cuda.Context(self.device)):
            self.p = on_device(p, config.dtype)

    def __call__(self, index: np.ndarray, seed: int = 0, every: bool = True) -> Iterator[tuple[int, np.ndarray | None]]:
        """(t, x_t) from (T, noise) to (0, samples).   x_t (len(index), ...) float32, on the host.

        every: copy each state to the host; else all but the last are None, and the device need not wait.
        """
        arena = Arena(self.device, self._room(index))
        context, steps = cuda.Context(self.device, arena), self.tables.timesteps.tolist()
        with cuda.use(context):
            state = sampler_state(self.tables, index, self.config.model.shape, seed, self.config.dtype)
        yield self.config.schedule.T, cuda.host(state.x)
        graph = None
        for i, t_prev in enumerate([*steps[1:], 0]):
            if i == 0:
                self.body(context, state)
            else:
                graph = graph or context.capture(partial(self.body, context, state))
                graph.replay()
            yield t_prev, cuda.host(state.x) if every or t_prev == 0 else None
        arena.close()

    def body(self, context: cuda.Context, state: SamplerState) -> None:
        """What one step launches."""
        with cuda.use(context):
            y = models.predict(cuda, self.config.model, self.p, state.input, state.t)
            sampler_step(state, y)

    def _room(self, index: np.ndarray) -> int:
        """Bytes to reserve: all that one step needs, found by running it on a device that runs nothing."""
        dry = Dry()
        arena = Arena(dry, 1 << 40)
        context = cuda.Context(dry, arena)
        with cuda.use(context):
            state = sampler_state(self.tables, index, self.config.model.shape, 0, self.config.dtype)
        self.body(context, state)
        return enough(self.device, arena.extent, f"{len(index)} samples at once need", "take fewer")
