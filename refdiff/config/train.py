"""How a run is trained: the table [train] of a configuration."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import one_of
from .toml import positive

__all__ = ["DECAYS", "TrainConfig"]

DECAYS = ("cosine", "constant")


@dataclass(frozen=True)
class TrainConfig:
    """steps, batch: how many, of how many samples. learning_rate: its peak, reached after `warmup` steps; decay: "cosine",
    to 0 at the last step, or "constant". max_grad_norm: the largest norm of a network's gradient, 0 for none. ema_decay: of
    the moving average of the weights, with which samples are made. shards: parts of a batch whose gradients are added, a
    power of two that decides the bits of a result, as the number of processes does not; 0: 2 on the cpu engine if the batch
    is even, else 1. log_every, grid_every, checkpoint_every: steps between log lines, sample grids and checkpoints; 0 for
    none but the last.
    """

    steps: int = 1000
    batch: int = 64
    learning_rate: float = 2e-3
    warmup: int = 100
    decay: str = "cosine"
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    ema_decay: float = 0.995
    shards: int = 0
    log_every: int = 10
    grid_every: int = 500
    checkpoint_every: int = 500

    def __post_init__(self) -> None:
        positive("train", self, "steps", "batch", "learning_rate", "log_every")
        positive("train", self, "warmup", "weight_decay", "max_grad_norm", "grid_every", "checkpoint_every", zero=True)
        one_of("train.decay", self.decay, DECAYS)
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"train.ema_decay: expected a decay in [0, 1), got {self.ema_decay}")
        if self.shards and (self.shards < 0 or self.shards & (self.shards - 1)):
            raise ValueError(f"train.shards: expected a power of two, got {self.shards}; take 1, 2, 4 or 8")
        if self.shards > 1 and self.batch % self.shards:
            raise ValueError(
                f"train.shards: expected a divisor of train.batch = {self.batch}, got {self.shards}; choose another batch"
            )

    def shards_on(self, engine: str) -> int:
        """How many shards a batch has on this engine."""
        return self.shards or (2 if engine == "cpu" and self.batch % 2 == 0 else 1)
