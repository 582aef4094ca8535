"""Presets of models that come before diffusion or beside it, each with a bound of its own likelihood."""

from __future__ import annotations

from typing import Any

from ..data import DataConfig
from ..models import MLPConfig, TableConfig
from ..systems import Binomial, Nonequilibrium, first_logits
from .config import PRESETS, Config
from .networks import NetworkConfig, RuleConfig
from .train import TrainConfig

__all__: list[str] = []


def _bits(source: str, T: int, model: MLPConfig, steps: int, **train: Any) -> Config:
    """Binomial diffusion of a set of bits [DPM]."""
    return Config(
        DataConfig(source),
        {"denoiser": NetworkConfig(model)},
        objective=Binomial(T=T),
        train=TrainConfig(steps, 128, ema_decay=0.998, log_every=100, **train),
    )


def _points_2015() -> Config:
    """The Swiss roll with 40 steps, whose variances are learned: their rate is theirs, and so is their clip [DPM]."""
    rule = RuleConfig(learning_rate=0.03, weight_decay=0.0, max_grad_norm=1.0)
    networks = {
        "denoiser": NetworkConfig(MLPConfig(outputs=2)),
        "beta": NetworkConfig(TableConfig(39, 1, first_logits(40)), rule),
    }
    train = TrainConfig(6000, 256, 2e-3, ema_decay=0.998, grid_every=0, checkpoint_every=2000, log_every=100)
    return Config(DataConfig("swissroll"), networks, objective=Nonequilibrium(T=40), train=train)


PRESETS.update(
    {
        "heartbeat": _bits("heartbeat", 2000, MLPConfig((1, 20, 1), 64, 2), 6000, learning_rate=3e-3, grid_every=2000),
        "digits-binary": _bits("binary-digits", 100, MLPConfig((8, 8, 1), 128, 3), 3000, learning_rate=2e-3),
        "swissroll-2015": _points_2015(),
    }
)
