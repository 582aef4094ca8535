"""The published models of [IDDPM] and [ADM], parameter for parameter. Nothing is allocated to count them."""

import pytest

from refdiff.models import ClassifierConfig, UNetConfig, count, layout

LEVELS = {64: (1, 2, 3, 4), 128: (1, 1, 2, 3, 4), 256: (1, 1, 2, 2, 4, 4), 512: (0.5, 1, 1, 2, 2, 4, 4)}
BOTH = {"conditioning": "scale_shift", "epsilon": 1e-5, "time": "adm"}
IDDPM = BOTH | {"width": 128, "blocks": 3, "attention": (16, 8), "heads": 4, "resampling": "centred", "outputs": 2}
ADM = BOTH | {"width": 256, "attention": (32, 16, 8), "resampling": "residual", "outputs": 2}
CLASSES = {"classes": 1000, "null_label": False}


def adm(size, **options):
    return UNetConfig(size, multipliers=LEVELS[size], **ADM | options)


def classifier(size, **options):
    return ClassifierConfig(
        size, width=128, multipliers=LEVELS[size], attention=(32, 16, 8), head_channels=64, resampling="residual",
        classes=1000, **BOTH, **options,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (UNetConfig(32, multipliers=(1, 2, 2, 2), **IDDPM), 52_546_438),
        (UNetConfig(64, multipliers=(1, 2, 3, 4), **IDDPM), 121_063_942),
        (UNetConfig(32, multipliers=(1, 2, 2, 2), **IDDPM | {"conditioning": "add"}), 49_066_246),
        (UNetConfig(64, multipliers=(1, 2, 3, 4), **IDDPM | {"conditioning": "add"}), 115_942_150),
        (adm(64, width=192, blocks=3, head_channels=64, **CLASSES), 295_904_454),
        (adm(128, heads=4, qkv="interleaved", **CLASSES), 421_529_606),
        (adm(256, head_channels=64, qkv="interleaved", **CLASSES), 553_838_086),
        (adm(256, head_channels=64, qkv="interleaved"), 552_814_086),
        (adm(512, head_channels=64, stem=0.5, qkv="interleaved", **CLASSES), 558_997_638),
        (adm(256, width=192, heads=4, low_res=64, qkv="interleaved", **CLASSES), 311_795_910),
        (
            UNetConfig(
                512, multipliers=LEVELS[256], low_res=128, head_channels=64, qkv="interleaved", **CLASSES,
                **ADM | {"width": 192, "attention": (32, 16)},
            ),
            308_835_270,
        ),
        (classifier(64, blocks=4), 65_438_568),
        (classifier(128), 42_568_040),
        (classifier(256), 54_096_360),
        (classifier(512, stem=0.5), 54_448_360),
    ],
    ids=[
        "iddpm cifar10", "iddpm imagenet64", "iddpm cifar10, add", "iddpm imagenet64, add", "adm 64", "adm 128", "adm 256",
        "adm 256 unconditional", "adm 512", "upsampler 64 to 256", "upsampler 128 to 512", "classifier 64", "classifier 128",
        "classifier 256", "classifier 512",
    ],
)  # fmt: skip
def test_published_models_have_exactly_their_parameters(config, expected):
    assert count(layout(config)) == expected
