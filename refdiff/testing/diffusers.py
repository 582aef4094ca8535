"""Adapters for the schedulers of diffusers, so that `refdiff audit diffusers:DDIMScheduler` can ask them the claims.

Data of two axes are shown to them as images of one pixel, (N, C, 1, 1), since some of what they do asks for images. They
count t from 0 and keep a run's steps in themselves; those of the k-diffusion family (Euler, Heun, LMS, KDPM2) work
in x / sqrt(alpha_bar_t) = x_0 + sigma eps, which is converted here. What they draw inside a step is replaced by the
claim's noise while the step runs. diffusers and torch are never needed but by this file's functions.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import typing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from ..errors import one_of

__all__ = ["PREDICTION_TYPES", "SCHEDULERS", "is_scheduler", "wrap"]

PREDICTION_TYPES = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}


class _Runs:
    """alpha_bar, add_noise, target, timesteps and sample, as the documentation of diffusers tells one to use them."""

    def __init__(self, scheduler: Any, kind: str, arguments: dict[str, Any]) -> None:
        self.scheduler, self.kind, self.arguments = scheduler, kind, arguments
        self.fresh = copy.deepcopy(scheduler)  # as it is in training, where no run has been begun
        if str(scheduler.config.get("variance_type")).startswith("fixed_large"):
            self.variance = "beta"

    def published_schedule(self) -> tuple[str, dict[str, Any]] | None:
        return _published_schedule(self.scheduler.config)

    def alpha_bar(self) -> np.ndarray:
        return np.concatenate([[1.0], self.scheduler.alphas_cumprod.numpy().astype(np.float64)])

    def add_noise(self, x0: np.ndarray, eps: np.ndarray, t: Any) -> np.ndarray:
        times = _times(t, len(x0))
        noisy = self.scheduler.add_noise(_image(x0), _image(eps), times)
        return self._scaled(noisy, times).numpy().reshape(x0.shape)

    def target(self, x0: np.ndarray, eps: np.ndarray, t: Any) -> np.ndarray:
        if self.kind in ("eps", "x0"):
            return eps if self.kind == "eps" else x0
        times = _times(t, len(x0))
        if hasattr(self.fresh, "get_velocity"):
            # Its floating-point form: the Euler scheduler refuses integers here.
            times = times.to(self.fresh.timesteps.dtype)
            return self.fresh.get_velocity(_image(x0), _image(eps), times).numpy().reshape(x0.shape)
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
        sample = _image(x) * float(self.scheduler.init_noise_sigma)
        for t in self.scheduler.timesteps:
            shown = self.scheduler.scale_model_input(sample, t)
            output = _image(model(shown.numpy().reshape(x.shape), float(t) + 1))
            sample = self._step(output, t, sample, partial(noise, float(t) + 1))
        return sample.numpy().reshape(x.shape)

    def _step(self, output: Any, t: Any, sample: Any, noise: Callable[[], np.ndarray]) -> Any:
        if str(self.scheduler.config.get("variance_type")).startswith("learned"):
            output = _torch().cat([output, _torch().full_like(output, self._learned(t))], dim=1)
        with _drawing(self.scheduler, noise):
            return self.scheduler.step(output, t, sample, **self.arguments).prev_sample

    def _learned(self, t: Any) -> float:
        """What a network with a variance of its own says where it means the posterior's: [IDDPM] eq. 15 at v = 0, which is
        -1 in these codes; or the variance itself."""
        if self.scheduler.config["variance_type"] == "learned_range":
            return -1.0
        now, before = (1.0 if k < 0 else float(self.scheduler.alphas_cumprod[k]) for k in (t, self._before(t)))
        return (1 - before) / (1 - now) * (1 - now / before)

    def _before(self, t: Any) -> int:
        return int(self.scheduler.previous_timestep(t))

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
        return self._step(_image(output), time, _image(x_t), lambda: noise).numpy().reshape(x_t.shape)

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
        sample = _image(x_t) * before
        self.scheduler.scale_model_input(sample, time)  # it must have been called before a step
        return (self._step(_image(output), time, sample, lambda: noise) / after).numpy().reshape(x_t.shape)


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

    Options that the class does not take but its `step` does, such as eta, go to every step. ValueError for others, for
    values that its signature does not allow, and for what has no adapter: a class, a kind of prediction, timesteps that
    are not t, a learned variance where it is not used, thresholds above 1; ImportError without torch.
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
    for call in (kind.__init__, kind.step):
        _check(options, inspect.unwrap(call))
    arguments = {name: options.pop(name) for name in list(options) if name not in made}
    if isinstance(scheduler, type):
        scheduler = scheduler(**options)
    prediction = scheduler.config.prediction_type
    if prediction not in PREDICTION_TYPES:
        raise ValueError(f"prediction_type: expected one of {', '.join(PREDICTION_TYPES)}, got {prediction!r}")
    _refuse(scheduler, kind.__name__)
    return adapters[0](scheduler, PREDICTION_TYPES[prediction], arguments)


def _check(options: dict[str, Any], call: Callable[..., Any]) -> None:
    """ValueError for an option whose value the annotation does not allow: it would be ignored, or break much later."""
    hints = typing.get_type_hints(call)
    for name, value in options.items():
        if name not in hints or name == "beta_schedule":  # which knows more names than it is annotated with
            continue
        choices = [v for part in (hints[name], *typing.get_args(hints[name])) for v in typing.get_args(part)]
        names = [v for v in choices if isinstance(v, str)]
        if names and value is not None:
            one_of(name, value, names)
        numbers: Any = {float: (int, float), int: int, bool: bool}.get(hints[name])
        if numbers and (not isinstance(value, numbers) or isinstance(value, bool) != (hints[name] is bool)):
            raise ValueError(f"{name}: expected {_article(hints[name].__name__)}, got {value!r}")
    if isinstance(eta := options.get("eta", 0.0), float | int) and not 0 <= eta <= 1:
        raise ValueError(f"eta: expected a number from 0 (deterministic) to 1 (ancestral), got {eta}")


def _article(word: str) -> str:
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"


def _refuse(scheduler: Any, name: str) -> None:
    """ValueError for what no adapter can ask."""
    config = scheduler.config
    if str(config.get("variance_type")).startswith("learned") and not hasattr(scheduler, "_get_variance"):
        raise ValueError(
            f"variance_type: expected one that is used, got {config['variance_type']!r}: {name} takes the first three "
            "channels of what the network says and leaves the variance; ask it without"
        )
    if config.get("thresholding") and config.get("sample_max_value", 1.0) > 1:
        raise ValueError(
            f"sample_max_value: expected 1 with thresholding, got {config['sample_max_value']}: above it every x0_hat is "
            "scaled, and no claim holds of that"
        )
    if config.get("timestep_type") == "continuous":
        raise ValueError(
            "timestep_type: expected discrete, got continuous, where the network receives log(sigma) / 4 and no t"
        )


def _published_schedule(config: Any) -> tuple[str, dict[str, Any]] | None:
    """Which schedule a configuration means, by the names of `published_schedules`; None for betas of one's own."""
    if config.get("trained_betas") is not None:
        return None
    options: dict[str, Any] = {"T": config["num_train_timesteps"]}
    if config.get("rescale_betas_zero_snr"):
        options["zero_terminal_snr"] = True
    ends = {name: config[name] for name in ("beta_start", "beta_end")}
    names: dict[str, tuple[str, dict[str, Any]]] = {
        "linear": ("linear", ends), "scaled_linear": ("scaled_linear", ends), "squaredcos_cap_v2": ("cosine", {}),
        "sigmoid": ("sigmoid_beta", ends), "laplace": ("laplace", {"floor": 1e-6}), "exp": ("exp", {}),
    }  # fmt: skip
    name, own = names.get(config["beta_schedule"], ("", {}))
    return (name, options | own) if name else None


def _torch() -> Any:
    try:
        return importlib.import_module("torch")
    except ModuleNotFoundError:
        raise ImportError("a scheduler of diffusers needs torch: pip install diffusers torch") from None


def _tensor(x: np.ndarray) -> Any:
    return _torch().from_numpy(np.ascontiguousarray(x))


def _image(x: np.ndarray) -> Any:
    """As a tensor with the axes of images at least: (N, C) is (N, C, 1, 1)."""
    return _tensor(x.reshape(*x.shape, *[1] * (4 - x.ndim)))


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
        drawn = _image(noise()).to(dtype)
        assert tuple(drawn.shape) == tuple(shape), f"noise: expected shape {tuple(shape)}, got {tuple(drawn.shape)}"
        return drawn

    names["randn_tensor"] = given
    try:
        yield
    finally:
        names["randn_tensor"] = former
