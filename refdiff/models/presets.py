"""Models by name. What a paper has published has its number of parameters, which is in the comment and in a test.

`cifar10` and `celebahq256` are those of [DDPM] appendix B, `iddpm-*` those of [IDDPM], `adm*` those of [ADM] with their
classifiers and upsamplers.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .classifier import ClassifierConfig
from .mlp import MLPConfig
from .unet import UNetConfig

__all__ = ["MODELS"]

# The levels of the published models, by the size of the images.
_LEVELS = {
    64: (1, 2, 3, 4),
    128: (1, 1, 2, 3, 4),
    256: (1, 1, 2, 2, 4, 4),
    512: (0.5, 1, 1, 2, 2, 4, 4),
}
_PUBLISHED: dict[str, Any] = {
    "attention": (32, 16, 8),
    "qkv": "interleaved",
    "conditioning": "scale_shift",
    "epsilon": 1e-5,
    "time": "adm",
}


def _iddpm(size: int, multipliers: tuple[float, ...], dropout: float) -> UNetConfig:
    """[IDDPM] with a learned variance: three blocks a level, four heads, downsampling by convolutions."""
    options = _PUBLISHED | {"attention": (16, 8)}
    return UNetConfig(
        size, 3, 128, multipliers, 3, heads=4, dropout=dropout, resampling="centred", outputs=2, **options
    )


def _adm(size: int, width: int = 256, **options: Any) -> UNetConfig:
    """[ADM]: resampling inside residual blocks, heads of 64 channels unless their number is given, a learned variance."""
    heads = {} if "heads" in options else {"head_channels": 64}
    fields: dict[str, Any] = {"multipliers": _LEVELS[size], "blocks": 2, "classes": 1000, "null_label": False}
    fields |= _PUBLISHED | heads | options
    return UNetConfig(size, 3, width, resampling="residual", outputs=2, stem=fields["multipliers"][0], **fields)


def _classifier(size: int) -> ClassifierConfig:
    """[ADM]: the encoder half, 128 channels wide, with attention pooling."""
    blocks = 4 if size == 64 else 2
    return ClassifierConfig(
        size, 3, 128, _LEVELS[size], blocks, resampling="residual", head_channels=64, classes=1000,
        stem=_LEVELS[size][0], **_PUBLISHED,
    )  # fmt: skip


_DIGITS = UNetConfig(size=8, channels=1, width=32, multipliers=(1, 2), blocks=1, attention=(4,), groups=8)
_CIFAR10 = UNetConfig(size=32, channels=3, width=128, multipliers=(1, 2, 2, 2), blocks=2, attention=(16,), dropout=0.1)

_DIGITS_ADM = replace(
    _DIGITS,
    classes=10,
    conditioning="scale_shift",
    resampling="residual",
    head_channels=32,
    epsilon=1e-5,
    time="adm",
)

MODELS: dict[str, UNetConfig | ClassifierConfig | MLPConfig] = {
    "digits": _DIGITS,
    "digits-adm": _DIGITS_ADM,
    "digits-upsampler": replace(_DIGITS_ADM, low_res=4),
    "digits-classifier": ClassifierConfig(
        size=8, channels=1, width=32, multipliers=(1, 2), blocks=1, attention=(4,), groups=8, dropout=0.1, classes=10
    ),
    "mnist": UNetConfig(size=28, channels=1, width=64, multipliers=(1, 2, 2), blocks=2, attention=(7,), dropout=0.1),
    "cifar10": _CIFAR10,  # 35,746,307
    "celebahq256": replace(_CIFAR10, size=256, multipliers=(1, 1, 2, 2, 4, 4), dropout=0.0),  # 113,673,219
    "iddpm-cifar10": _iddpm(32, (1, 2, 2, 2), dropout=0.3),  # 52,546,438
    "iddpm-imagenet64": _iddpm(64, (1, 2, 3, 4), dropout=0.0),  # 121,063,942
    "adm64": _adm(64, 192, blocks=3, dropout=0.1, qkv="split"),  # 295,904,454
    "adm128": _adm(128, heads=4),  # 421,529,606
    "adm256": _adm(256),  # 553,838,086
    "adm256-unconditional": _adm(256, classes=0, null_label=True),  # 552,814,086
    "adm512": _adm(512),  # 558,997,638
    "adm-upsampler256": _adm(256, 192, heads=4, low_res=64),  # 311,795,910
    "adm-upsampler512": _adm(512, 192, multipliers=_LEVELS[256], low_res=128, attention=(32, 16)),  # 308,835,270
    "adm-classifier64": _classifier(64),  # 65,438,568
    "adm-classifier128": _classifier(128),  # 42,568,040
    "adm-classifier256": _classifier(256),  # 54,096,360
    "adm-classifier512": _classifier(512),  # 54,448,360
    "points": MLPConfig(),
}
