"""Sampling on a GPU: one step, the network and what follows it, is captured once as a graph and replayed for the others."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .. import models
from ..engines import cuda
from ..engines.cuda.runtime.captured_sampler import METHODS, CapturedSampler, SamplerTables
from ..engines.cuda.runtime.context import Array
from ..engines.cuda.runtime.device import Device
from ..models import Batch, Network, tree_map, unflatten
from ..process import SPACINGS, Schedule, convert, eps_from_x0
from .denoisers import unconditional
from .methods import choose_sampler
from .settings import SampleConfig
from .trained import Trained

__all__ = ["METHODS", "CUDASampler", "on_device", "supports", "tables"]

EMPTY = "empty "  # before the name of a condition that stands for none
GUIDANCE = ("weight of empty", "weight of full")  # 1 - w and w, one number a sample


def on_device(network: Network, dtype: str) -> Network:
    """A network from the host as the engine takes it: its weights as dtype, vectors and what is kept so as float32."""
    each = unflatten(models.dtypes(models.layout(network.config), dtype))
    return Network(network.config, tree_map(cuda.array, network.p, each))


def supports(trained: Trained) -> bool:
    """Whether the settings ask for a sampler that is captured: one prediction a step, a fixed variance, x0_hat held within
    [-1, 1] or not at all; the conditions come as they are, without encoders; and nobody guides but by two predictions, at
    every t, as they are: no classifier, no interval, no rescaling."""
    s = trained.settings
    learned = s.method == "ancestral" and s.variance == "learned"
    guided = s.classifier_scale or s.guidance_interval or s.guidance_rescale
    plain = s.method in METHODS and s.threshold != "dynamic" and not learned and not trained.objective.encoders
    return plain and not guided


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
    trajectory = choose_sampler(schedule, settings, predict, of_x.copy(), timesteps, lambda t: of_z)
    rows = []
    for t, (_, now) in zip(timesteps[::-1], trajectory, strict=True):
        conversion = convert(schedule, np.array([1.0, 0.0]), t, np.array([0.0, 1.0]), prediction, "x0")
        rows.append([*conversion, *now, 0, 0])
        now[:] = of_x
    held = settings.threshold == "static"
    return SamplerTables(np.array(rows, np.float32), np.array(timesteps[::-1], np.int32), held)


class CUDASampler:
    """`trajectory` on the CUDA engine, for what `supports` allows.

    The weights go to the device once. device: the first GPU unless given. DeviceError if it has too little memory.
    """

    def __init__(self, trained: Trained, device: Device | None = None) -> None:
        self.trained, objective = trained, trained.objective
        device = device or cuda.current().device
        denoiser = trained.networks["denoiser"]
        with cuda.use(cuda.Context(device)):
            self.network = on_device(denoiser, trained.dtype)
        rows = tables(objective.schedule.build(), trained.settings, objective.prediction)
        self.captured = CapturedSampler(device, rows, trained.shape, trained.dtype, self.predict, trained.path)

    def predict(self, x_t: Array, t: Array, conditions: dict[str, Array]) -> Array:
        """The prediction, guided [CFG] eq. 6 where the conditions hold what stands for none too, each as `empty NAME`."""
        told = {name: a for name, a in conditions.items() if name not in GUIDANCE and not name.startswith(EMPTY)}
        y = self._prediction(x_t, t, told)
        if GUIDANCE[0] not in conditions:
            return y
        empty = {name: conditions[EMPTY + name] for name in told}
        of_empty, of_full = (conditions[name] for name in GUIDANCE)
        return cuda.affine(of_empty, self._prediction(x_t, t, empty), of_full, y)

    def _prediction(self, x_t: Array, t: Array, conditions: dict[str, Array]) -> Array:
        """What the network says, but for the variance that it may have learned."""
        y = models.predict(cuda, self.network, {**conditions, "x": x_t, "t": t})
        return cuda.dense(cuda.split(y, 2)[0][0]) if self.trained.objective.learned else y

    def __call__(
        self, sample_ids: np.ndarray, seed: int, conditions: Batch, every: bool = True
    ) -> Iterator[tuple[int, np.ndarray | None]]:
        """(t, x_t) from (T, noise) to (0, samples).   x_t (len(sample_ids), ...) float32, on the host.

        conditions: as `check_conditions` gives them. every: copy each state to the host; else all but the first and the last
        are None, and the device need not wait.
        """
        scale, arrays = self.trained.settings.guidance, {name: _narrow(a) for name, a in conditions.items()}
        if scale != 1 and conditions:
            empty = unconditional(self.trained.objective, conditions)
            arrays |= {EMPTY + name: _narrow(a) for name, a in empty.items()}
            weights = (1 - scale, scale)
            arrays |= {name: np.full(len(sample_ids), w, np.float32) for name, w in zip(GUIDANCE, weights, strict=True)}
        timesteps = self.captured.tables.timesteps[1:].tolist()
        states = self.captured(sample_ids, seed, every, arrays)
        yield from zip([self.trained.objective.schedule.T, *timesteps, 0], states, strict=True)


def _narrow(a: np.ndarray) -> np.ndarray:
    """As the device holds it: float32 or int32."""
    return a.astype(np.float32 if a.dtype.kind == "f" else np.int32)
