"""Presets of models that come before diffusion or beside it, each with a bound of its own likelihood."""

from __future__ import annotations

from typing import Any

from ..data import DataConfig
from ..models import ConvDecoderConfig, ConvEncoderConfig
from ..systems import VAE, Autoencoder
from .config import PRESETS, Config
from .networks import NetworkConfig
from .train import TrainConfig

__all__: list[str] = []


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


PRESETS.update({"digits-autoencoder": _digits_autoencoder(), "digits-vae": _digits_vae()})
