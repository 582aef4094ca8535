"""Two trainings of `digits` on the CUDA engine, which must have the same bits, though the host waits for each step of the
first and for none of the second; and one on the reference engine, whose losses must agree to 1e-3.

python -m benchmarks.agreement gpu|emulator [STEPS] [KEY=VALUE ...]. One line of JSON.
"""

from __future__ import annotations

import hashlib
import json
import sys
from typing import Any

import numpy as np

from benchmarks.peers.refdiff_cuda import open_device
from refdiff.config import Config
from refdiff.data import load
from refdiff.models import flatten
from refdiff.training import State
from refdiff.training.loop import batch_indices
from refdiff.training.trainers.cuda import CUDATrainer
from refdiff.training.trainers.reference import ReferenceTrainer

CLOSE = 1e-3  # of losses, relative


def run(worker: Any, config: Config, steps: int, wait: bool = True) -> list[float]:
    """The losses that were waited for; that of the last step is."""
    x, n = load("digits").x, config.train.batch
    batches = (x[batch_indices(config.seed, i * n, n, len(x))] for i in range(steps))
    measured = [worker.step({"x": batch}, wait=wait or i == steps - 1) for i, batch in enumerate(batches)]
    return [step.loss for step in measured if step is not None]


def digest(state: State) -> str:
    """Of every bit of the weights, moments and average."""
    found = hashlib.sha256()
    for name, leaf in flatten(state.trees).items():
        found.update(name.encode() + np.ascontiguousarray(leaf).tobytes())
    return found.hexdigest()


def agreement(kind: str, steps: int, changes: list[str]) -> dict[str, Any]:
    """What two runs on the device and one on the host have in common."""
    config = Config.resolve("digits", changes=["train.batch=16", "train.warmup=10", "engine=cuda", *changes])
    device, losses, digests = open_device(kind), [], []
    for wait in (True, False):
        worker = CUDATrainer(config, State.first(config), device)
        losses.append(run(worker, config, steps, wait))
        digests.append(digest(worker.state()))
        worker.arena.close()
    exact = config.changed(["engine=reference"])
    expected = run(ReferenceTrainer(exact, State.first(exact)), config, steps)
    error = float(np.max(np.abs(np.array(losses[0]) - expected) / np.abs(expected)))
    same = losses[0][-1:] == losses[1] and digests[0] == digests[1]
    return {"steps": steps, "same_bits": same, "digest": digests[0], "loss_difference": error, "close": error <= CLOSE,
            "last_loss": losses[0][-1], "last_loss_reference": expected[-1]}  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(agreement(sys.argv[1], int((sys.argv[2:] or ["100"])[0]), sys.argv[3:])))
