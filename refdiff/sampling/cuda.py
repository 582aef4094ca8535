"""Sampling on a GPU: one step, the network and what follows it, is captured once as a graph and replayed for the others."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .. import models
from ..config import Config, SampleConfig
from ..engines import cuda
from ..engines.cuda.runtime.captured_sampler import METHODS, CapturedSampler, SamplerTables
from ..engines.cuda.runtime.device import Device
from ..models import Tree, tree_map
from ..process import SPACINGS, Schedule, convert, eps_from_x0
from .run import walk

__all__ = ["METHODS", "CUDASampler", "on_device", "tables"]


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
        given[-1][:] = of_before  # what a multistep sampler remembers of the step before
        given.append(of_x0.copy())
        return given[-1], eps_from_x0(schedule, x, t, of_x0)

    timesteps = SPACINGS[settings.spacing](schedule, settings.steps).tolist()
    trajectory = walk(schedule, settings, predict, of_x.copy(), timesteps, lambda t: of_z)
    rows = []
    for t, (_, now) in zip(timesteps[::-1], trajectory, strict=True):
        conversion = convert(schedule, np.array([1.0, 0.0]), t, np.array([0.0, 1.0]), prediction, "x0")
        rows.append([*conversion, *now, 0, 0])
        now[:] = of_x
    return SamplerTables(np.array(rows, np.float32), np.array(timesteps[::-1], np.int32), bool(settings.clip))


class CUDASampler:
    """`trajectory` on the CUDA engine, for the samplers with one prediction a step (METHODS).

    The weights go to the device once. device: the first GPU unless given. DeviceError if it has too little memory.
    """

    def __init__(self, config: Config, p: Tree, device: Device | None = None) -> None:
        self.T, model = config.schedule.T, config.model
        device = device or cuda.current().device
        with cuda.use(cuda.Context(device)):
            weights = on_device(p, config.dtype)
        self.captured = CapturedSampler(
            device, tables(config.schedule.build(), config.sample, config.train.prediction), model.shape, config.dtype,
            lambda x_t, t: models.predict(cuda, model, weights, x_t, t),
        )  # fmt: skip

    def __call__(
        self, sample_ids: np.ndarray, seed: int = 0, every: bool = True
    ) -> Iterator[tuple[int, np.ndarray | None]]:
        """(t, x_t) from (T, noise) to (0, samples).   x_t (len(sample_ids), ...) float32, on the host.

        every: copy each state to the host; else all but the first and the last are None, and the device need not wait.
        """
        timesteps = self.captured.tables.timesteps[1:].tolist()
        yield from zip([self.T, *timesteps, 0], self.captured(sample_ids, seed, every), strict=True)
