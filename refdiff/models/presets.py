"""Models by name. `cifar10` and `celebahq256` are those of [DDPM] appendix B, parameter for parameter."""

from __future__ import annotations

from .mlp import MLPConfig
from .unet import UNetConfig

__all__ = ["MODELS"]

MODELS: dict[str, UNetConfig | MLPConfig] = {
    "digits": UNetConfig(size=8, channels=1, width=32, multipliers=(1, 2), blocks=1, attention=(4,), groups=8),
    "digits-adm": UNetConfig(
        size=8, channels=1, width=32, multipliers=(1, 2), blocks=1, attention=(4,), groups=8, head_channels=32, time="adm",
        conditioning="scale_shift", resampling="residual", epsilon=1e-5, classes=10,
    ),
    "mnist": UNetConfig(size=28, channels=1, width=64, multipliers=(1, 2, 2), blocks=2, attention=(7,), dropout=0.1),
    "cifar10": UNetConfig(
        size=32, channels=3, width=128, multipliers=(1, 2, 2, 2), blocks=2, attention=(16,), dropout=0.1
    ),
    "celebahq256": UNetConfig(
        size=256, channels=3, width=128, multipliers=(1, 1, 2, 2, 4, 4), blocks=2, attention=(16,), dropout=0.0
    ),
    "points": MLPConfig(),
}  # fmt: skip
