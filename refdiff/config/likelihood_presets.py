"""Presets of models that come before diffusion or beside it, each with a bound of its own likelihood."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..data import DataConfig
from ..models import ConvDecoderConfig, ConvEncoderConfig, MLPConfig, MonotoneConfig, TableConfig, UNetConfig
from ..sampling.settings import SampleConfig
from ..systems import VAE, VDM, Autoencoder, Binomial, Nonequilibrium, first_logits
from . import presets as presets  # which stand before these
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


def _networks(**models: Any) -> dict[str, NetworkConfig]:
    return {name: NetworkConfig(model) for name, model in models.items()}


def _digits_autoencoder() -> Config:
    """The digits through two numbers, so that the code is a map."""
    networks = _networks(encoder=ConvEncoderConfig(latent=2), decoder=ConvDecoderConfig(latent=2))
    train = TrainConfig(4000, learning_rate=2e-3, weight_decay=0.05, ema_decay=0.998, grid_every=0)
    return Config(networks=networks, objective=Autoencoder(), train=train)


def _digits_vae() -> Config:
    """The digits in black and white, sixteen numbers each; the loss is a sum over pixels, so its gradient is not clipped."""
    networks = _networks(encoder=ConvEncoderConfig(parts=2), decoder=ConvDecoderConfig())
    train = TrainConfig(4000, learning_rate=2e-3, weight_decay=0.05, max_grad_norm=0.0, ema_decay=0.998)
    return Config(DataConfig("binary-digits"), networks, objective=VAE(), train=train)


def _digits_vdm() -> Config:
    """The digits' seventeen levels, a network that keeps their size, with features whose periods are two levels and one; the
    ends of gamma begin at -7 and 6, its inside as a straight line, and both learn faster than the network."""
    betas = (0.9, 0.99)
    denoiser = UNetConfig(8, 1, 32, (1,), 2, (), groups=8, fourier=(3, 4))
    fast = RuleConfig(learning_rate=0.03, betas=betas, weight_decay=0.0)
    networks = {
        "denoiser": NetworkConfig(denoiser, RuleConfig(betas=betas)),
        "ends": NetworkConfig(TableConfig(1, 2, (-7.0, 13.0)), fast),
        "gamma": NetworkConfig(MonotoneConfig(64), replace(fast, learning_rate=0.01)),
    }
    train = TrainConfig(3000, learning_rate=2e-3, weight_decay=0.01, ema_decay=0.998, grid_every=1000)
    return Config(networks=networks, objective=VDM(bins=17), train=train, sample=SampleConfig("ancestral", 100))


PRESETS.update({"digits-autoencoder": _digits_autoencoder(), "digits-vae": _digits_vae(), "digits-vdm": _digits_vdm()})
