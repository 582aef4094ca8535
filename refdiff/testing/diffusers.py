"""Adapters for the schedulers of diffusers, so that `refdiff audit diffusers:DDIMScheduler` can ask them the claims.

They count t from 0 and keep a run's steps in themselves; those of the k-diffusion family (Euler, Heun, LMS, KDPM2) work
in x / sqrt(alpha_bar_t) = x_0 + sigma eps, which is converted here. What they draw inside a step is replaced by the
claim's noise while the step runs. diffusers and torch are never needed but by this file's functions.
"""

from __future__ import annotations

import copy
import importlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

__all__ = ["KINDS", "SCHEDULERS", "is_scheduler", "wrap"]

KINDS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}


class _Runs:
    """alpha_bar, add_noise, target, timesteps and sample, as the documentation of diffusers tells one to use them."""

    def __init__(self, scheduler: Any, kind: str, arguments: dict[str, Any]) -> None:
        self.scheduler, self.kind, self.arguments = scheduler, kind, arguments
        self.fresh = copy.deepcopy(scheduler)  # as it is in training, where no run has been begun

    def alpha_bar(self) -> np.ndarray:
        return np.concatenate([[1.0], self.scheduler.alphas_cumprod.numpy().astype(np.float64)])

    def add_noise(self, x0: np.ndarray, eps: np.ndarray, t: Any) -> np.ndarray:
        times = _times(t, len(x0))
        return self._scaled(self.scheduler.add_noise(_tensor(x0), _tensor(eps), times), times).numpy()

    def target(self, x0: np.ndarray, eps: np.ndarray, t: Any) -> np.ndarray:
        if self.kind in ("eps", "x0"):
            return eps if self.kind == "eps" else x0
        times = _times(t, len(x0))
        if hasattr(self.fresh, "get_velocity"):
            # Its floating-point form: the Euler scheduler refuses integers here.
            times = times.to(self.fresh.timesteps.dtype)
            return self.fresh.get_velocity(_tensor(x0), _tensor(eps), times).numpy()
        alpha_bar = self.alpha_bar()[times.numpy() + 1].reshape(-1, *[1] * (x0.ndim - 1))
        return (np.sqrt(alpha_bar) * eps - np.sqrt(1 - alpha_bar) * x0).astype(x0.dtype)

    def timesteps(self, n: int) -> Sequence[float]:
        self.scheduler.set_timesteps(n)
        return [float(t) + 1 for t in self._levels(self.scheduler.timesteps)]

    def sample(
        self,
        model: Callable[[np.ndarray, float], np.ndarray],
        x: np.ndarray,
        n: int,
        noise: Callable[[float], np.ndarray],
    ) -> np.ndarray:
        self.scheduler.set_timesteps(n)
        sample = _tensor(x) * float(self.scheduler.init_noise_sigma)
        for t in self.scheduler.timesteps:
            shown = self.scheduler.scale_model_input(sample, t)
            output = _tensor(model(shown.numpy(), float(t) + 1))
            sample = self._step(output, t, sample, partial(noise, float(t) + 1))
        return sample.numpy()

    def _step(self, output: Any, t: Any, sample: Any, noise: Callable[[], np.ndarray]) -> Any:
        with _drawing(self.scheduler, noise):
            return self.scheduler.step(output, t, sample, **self.arguments).prev_sample

    def _levels(self, timesteps: Any) -> Any:
        """The timesteps of a run, each once, without those a method of higher order adds in between."""
        return timesteps

    def _scaled(self, noisy: Any, times: Any) -> Any:
        """What add_noise gave, as x_t."""
        return noisy


class _Steps(_Runs):
    """With single steps too."""

    def step(self, x_t: np.ndarray, t: float, t_prev: float, output: np.ndarray, noise: np.ndarray) -> np.ndarray:
        i = self._index(t)
        time = self.scheduler.timesteps[i]
        return self._step(_tensor(output), time, _tensor(x_t), lambda: noise).numpy()

    def _index(self, t: float) -> int:
        """Where t stands in the run."""
        timesteps = self.scheduler.timesteps.numpy().astype(np.float64)
        i = int(np.argmin(np.abs(timesteps - (t - 1))))
        if abs(timesteps[i] - (t - 1)) > 1e-3:
            raise ValueError(f"t: expected one of the run's steps, {(timesteps + 1).tolist()}, got {t:g}")
        return i


class _SigmaRuns(_Runs):
    """Of the k-diffusion family, where a sample is x_0 + sigma eps."""

    def _scaled(self, noisy: Any, times: Any) -> Any:
        alpha_bar = self.scheduler.alphas_cumprod[times].double().reshape(-1, *[1] * (noisy.ndim - 1))
        return (noisy.double() * alpha_bar.sqrt()).to(noisy.dtype)


class _SigmaSteps(_SigmaRuns, _Steps):
    def step(self, x_t: np.ndarray, t: float, t_prev: float, output: np.ndarray, noise: np.ndarray) -> np.ndarray:
        i = self._index(t)
        time = self.scheduler.timesteps[i]
        before, after = (float(1 + self.scheduler.sigmas[k].double() ** 2) ** 0.5 for k in (i, i + 1))
        sample = _tensor(x_t) * before
        self.scheduler.scale_model_input(sample, time)  # it must have been called before a step
        return (self._step(_tensor(output), time, sample, lambda: noise) / after).numpy()


class _Heun(_SigmaRuns):
    def _levels(self, timesteps: Any) -> Any:
        return [*timesteps[:1], *timesteps[1::2]]  # each but the first is shown to the network twice


class _KDPM2(_SigmaRuns):
    def _levels(self, timesteps: Any) -> Any:
        return timesteps[::2]  # those between are midpoints


class _PNDM(_Runs):
    def _levels(self, timesteps: Any) -> Any:
        return list(dict.fromkeys(timesteps.tolist()))  # the second is shown twice, or more with skip_prk_steps=False


SCHEDULERS: dict[str, type[_Runs]] = {
    "DDPMScheduler": _Steps, "DDIMScheduler": _Steps, "DPMSolverMultistepScheduler": _Steps,
    "DPMSolverSinglestepScheduler": _Steps, "UniPCMultistepScheduler": _Steps, "DEISMultistepScheduler": _Steps,
    "EulerDiscreteScheduler": _SigmaSteps, "EulerAncestralDiscreteScheduler": _SigmaSteps,
    "LMSDiscreteScheduler": _SigmaSteps, "HeunDiscreteScheduler": _Heun, "KDPM2DiscreteScheduler": _KDPM2,
    "KDPM2AncestralDiscreteScheduler": _KDPM2, "PNDMScheduler": _PNDM,
}  # fmt: skip


def is_scheduler(subject: Any) -> bool:
    """Whether it is a class of diffusers or an object of one, or of a class made from one."""
    kind = subject if isinstance(subject, type) else type(subject)
    return any(base.__module__.split(".")[0] == "diffusers" for base in kind.__mro__)


def wrap(scheduler: Any, **options: Any) -> Any:
    """A diffusers scheduler, or its class with the options it is made with, as a `Scheduler` of ours.

    Options that the class does not take but its `step` does, such as eta, go to every step. ValueError for others, and
    for a class or a prediction type that has no adapter; ImportError without torch.
    """
    _torch()
    kind: Any = scheduler if isinstance(scheduler, type) else type(scheduler)
    adapters = [SCHEDULERS[base.__name__] for base in kind.__mro__ if base.__name__ in SCHEDULERS]
    if not adapters:
        raise ValueError(
            f"scheduler: expected one of {', '.join(SCHEDULERS)}, got {kind.__name__}, for which none is written"
        )
    made, stepped = (list(inspect.signature(f).parameters)[1:] for f in (kind.__init__, kind.step))
    wrong = [name for name in options if name not in (*(made if isinstance(scheduler, type) else ()), *stepped[3:])]
    if wrong:
        raise ValueError(f"options: {kind.__name__} takes {', '.join((*made, *stepped[3:]))}, got {', '.join(wrong)}")
    arguments = {name: options.pop(name) for name in list(options) if name not in made}
    if isinstance(scheduler, type):
        scheduler = scheduler(**options)
    prediction = scheduler.config.prediction_type
    if prediction not in KINDS:
        raise ValueError(f"prediction_type: expected one of {', '.join(KINDS)}, got {prediction!r}")
    return adapters[0](scheduler, KINDS[prediction], arguments)


def _torch() -> Any:
    try:
        return importlib.import_module("torch")
    except ModuleNotFoundError:
        raise ImportError("a scheduler of diffusers needs torch: pip install diffusers torch") from None


def _tensor(x: np.ndarray) -> Any:
    return _torch().from_numpy(np.ascontiguousarray(x))


def _times(t: Any, n: int) -> Any:
    """Our t, for each of n samples, as theirs."""
    return _torch().from_numpy(np.broadcast_to(np.asarray(t, np.int64) - 1, (n,)).copy())


@contextmanager
def _drawing(scheduler: Any, noise: Callable[[], np.ndarray]) -> Iterator[None]:
    """While it lasts, what the scheduler's step draws is this noise."""
    names = inspect.unwrap(type(scheduler).step).__globals__
    former = names.get("randn_tensor")
    if former is None:
        yield
        return

    def given(shape: Any, generator: Any = None, device: Any = None, dtype: Any = None, layout: Any = None) -> Any:
        drawn = _tensor(noise()).to(dtype)
        assert tuple(drawn.shape) == tuple(shape), f"noise: expected shape {tuple(shape)}, got {tuple(drawn.shape)}"
        return drawn

    names["randn_tensor"] = given
    try:
        yield
    finally:
        names["randn_tensor"] = former
