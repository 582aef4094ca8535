"""Configurations by name: the models of `refdiff.models.presets` with the training that goes with them.

Rates, batches and schedules of [IDDPM] are those of the commands that its authors published; of [ADM] schedules, dropout and
the training of its 128 classifier are, while its other rates, batches and numbers of steps were not checked. Neither clips
gradients, warms up or lets the rate of a denoiser fall; that of a classifier falls in a straight line, here as a cosine.
[IDDPM]'s published code tells the network t 1000 / T, ours tells it t.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from ..data import DataConfig
from ..models import MODELS
from ..objectives import Classification, Denoising, ScheduleConfig
from ..sampling.settings import SampleConfig
from .config import PRESETS, Config
from .networks import NetworkConfig
from .train import TrainConfig

__all__: list[str] = []

_LONG: dict[str, Any] = {"grid_every": 5000, "checkpoint_every": 5000}


def _denoiser(name: str) -> dict[str, NetworkConfig]:
    return {"denoiser": NetworkConfig(MODELS[name])}


def _ddpm(name: str, source: str, steps: int, batch: int, rate: float) -> Config:
    """Of [DDPM] appendix B."""
    train = TrainConfig(steps, batch, rate, 5000, "constant", ema_decay=0.9999, **_LONG)
    return Config(DataConfig(source), _denoiser(name), objective=Denoising(), train=train)


def _of_digits(model: Any, objective: Denoising = Denoising(bins=17), guidance: float = 1.25) -> Config:
    """The bundled digits by class, drawn with a little guidance: without, a few in a hundred are hard to read."""
    train = TrainConfig(2000, learning_rate=3e-3, ema_decay=0.998)
    sample = SampleConfig(steps=100, spacing="quadratic", guidance=guidance)
    return Config(networks={"denoiser": NetworkConfig(model)}, objective=objective, train=train, sample=sample)


def _classifier_of_digits(objective: Classification, seed: int = 0) -> Config:
    """Of the bundled digits: weights decay, and inputs are dropped, since there are few."""
    networks = {"classifier": NetworkConfig(MODELS["digits-classifier"])}
    train = TrainConfig(weight_decay=0.05, grid_every=0)
    return Config(networks=networks, objective=objective, train=train, seed=seed)


def _learned(
    name: str, source: str, schedule: ScheduleConfig, train: TrainConfig, flip: bool = True, **objective: Any
) -> Config:
    """A learned variance by the hybrid loss [IDDPM] eq. 16, sampled in 250 of the steps."""
    return Config(
        DataConfig(source, flip),
        _denoiser(name),
        schedule,
        Denoising(variance="learned", **objective),
        train,
        SampleConfig("ancestral", 250, variance="learned"),
    )


def _iddpm(name: str, source: str, steps: int) -> Config:
    train = TrainConfig(steps, 128, 1e-4, 0, "constant", max_grad_norm=0.0, ema_decay=0.9999, **_LONG)
    return _learned(name, source, ScheduleConfig("cosine", 4000), train, flip=False)


def _adm(name: str, size: int, steps: int, batch: int = 256, rate: float = 1e-4, downscale: int = 0) -> Config:
    train = TrainConfig(steps, batch, rate, 0, "constant", max_grad_norm=0.0, ema_decay=0.9999, **_LONG)
    return _learned(name, f"imagenet{size}", _schedule(size), train, downscale=downscale)


def _classifier(size: int, steps: int, batch: int = 256, rate: float = 3e-4, weight_decay: float = 0.05) -> Config:
    train = TrainConfig(
        steps, batch, rate, 0, "cosine", weight_decay, max_grad_norm=0.0, ema_decay=0.0, **_LONG | {"grid_every": 0}
    )
    return Config(
        DataConfig(f"imagenet{size}", flip=True),
        {"classifier": NetworkConfig(MODELS[f"adm-classifier{size}"])},
        _schedule(size),
        Classification(),
        train,
    )


def _schedule(size: int) -> ScheduleConfig:
    """Cosine for 64x64, linear for larger images [ADM]."""
    return ScheduleConfig("cosine" if size == 64 else "linear")


PRESETS.update(
    {
        "digits": Config(),
        "digits-classes": _of_digits(dataclasses.replace(MODELS["digits"], classes=10)),
        "digits-adm": _of_digits(MODELS["digits-adm"]),
        "digits-upsampler": _of_digits(MODELS["digits-upsampler"], Denoising(bins=17, downscale=2), guidance=1.0),
        "digits-classifier": _classifier_of_digits(Classification()),
        "digits-judge": _classifier_of_digits(Classification(noised=False), seed=1),
        "mnist": Config(
            DataConfig("mnist"),
            _denoiser("mnist"),
            objective=Denoising(),
            train=TrainConfig(20_000, 128, 2e-4, 1000, ema_decay=0.9995, grid_every=1000),
        ),
        "cifar10": _ddpm("cifar10", "cifar-10-batches-bin", 800_000, 128, 2e-4),
        "celebahq256": _ddpm("celebahq256", "celebahq256", 500_000, 64, 2e-5),
        "iddpm-cifar10": _iddpm("iddpm-cifar10", "cifar-10-batches-bin", 500_000),
        "iddpm-imagenet64": _iddpm("iddpm-imagenet64", "imagenet64", 1_500_000),
        "adm64": _adm("adm64", 64, 540_000, batch=2048, rate=3e-4),
        "adm128": _adm("adm128", 128, 4_360_000),
        "adm256": _adm("adm256", 256, 1_980_000),
        "adm256-unconditional": _adm("adm256-unconditional", 256, 1_980_000),
        "adm512": _adm("adm512", 512, 1_940_000),
        "adm-upsampler256": _adm("adm-upsampler256", 256, 500_000, downscale=4),
        "adm-upsampler512": _adm("adm-upsampler512", 512, 1_050_000, downscale=4),
        "adm-classifier64": _classifier(64, 300_000, batch=1024, rate=6e-4, weight_decay=0.2),
        "adm-classifier128": _classifier(128, 300_000),
        "adm-classifier256": _classifier(256, 500_000),
        "adm-classifier512": _classifier(512, 500_000),
        "mixture": Config(
            DataConfig("mixture"),
            _denoiser("points"),
            objective=Denoising(bins=0),
            train=TrainConfig(4000, 512, 2e-3, grid_every=0, checkpoint_every=1000, log_every=100),
            sample=SampleConfig(threshold="none"),
        ),
    }
)
