"""A run small enough for a test: a U-Net of width 8, batches of 8 digits."""

import pytest

from refdiff.training import Config

SMALL = ["model.width=8", "train.batch=8", "train.steps=20", "train.warmup=5", "train.grid_every=0",
         "train.checkpoint_every=10", "train.log_every=1", "sample.steps=4"]  # fmt: skip


@pytest.fixture
def small() -> Config:
    return Config.resolve("digits", changes=SMALL)
