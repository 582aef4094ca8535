"""The demonstration: train on the handwritten digits, sample each class, evaluate; pictures and numbers in one folder."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..config import Config
from ..data import load
from ..evaluation.metrics import check_evaluable, evaluate
from ..models import Batch
from ..objectives import Denoising, kind_of_objective
from ..sampling import Trained, sample, trajectory
from ..storage import replace_file, save_enlarged, save_grid, save_strip
from .loop import train
from .plots import plot_loss
from .trained_model import conditions_to_show, every_class, trained

__all__ = ["demo", "save_classes", "save_states", "save_trajectory"]


def demo(out: str | Path, config: Config, n: int = 512, force: bool = False, progress: bool = True) -> dict[str, Any]:
    """Run the main job and write samples.png, trajectory.png, loss.png, checkpoint.safetensors and metrics.json to `out`.

    samples.png has a row of ten for each class, of a model with classes; else it has the first 100 samples. Returns what
    metrics.json holds. ValueError, before anything is trained, for fewer than 2 samples or data that cannot be
    measured. Without matplotlib loss.png is left out, and said to be.
    """
    if not isinstance(config.objective, Denoising):
        raise ValueError(
            f"objective.kind: expected denoising, of which samples are drawn, got {kind_of_objective(config.objective)}; "
            "train it, and look at it with refdiff eval"
        )
    out, data = Path(out), load(config.data.source)
    check_evaluable(data, n)
    if len(data.shape) != 3:
        raise ValueError(f"data.source: expected images, of which pictures can be made, got {data.name} of points")
    losses: list[float] = []
    started = time.perf_counter()
    state = train(config, out, force=force, progress=progress, data=data, on_step=lambda step: losses.append(step.loss))
    done = time.perf_counter()
    model = trained(config, state)
    asked, originals = conditions_to_show(model, n, data)
    images = sample(model, n, config.seed, asked, progress=progress)
    sampled = time.perf_counter()

    if originals is not None and "low_res" in asked:
        save_enlarged(out / "samples.png", asked["low_res"][:100], images[:100], originals[:100])
    else:
        save_classes(out / "samples.png", images, asked.get("label"))
    save_trajectory(out / "trajectory.png", model, config.seed, None if originals is None else asked)
    try:
        plot_loss(out / "log.jsonl", out / "loss.png")
    except ImportError as error:
        print(f"loss.png not drawn: {error}", file=sys.stderr)
    metrics = evaluate(model, images, data, config.seed, asked.get("label")) | {
        "steps": state.step,
        "loss_last": float(np.mean(losses[-100:])),
        "seconds_train": round(done - started, 1),
        "seconds_sample": round(sampled - done, 1),
    }
    text = json.dumps(metrics, indent=2) + "\n"
    replace_file(out / "metrics.json", lambda file: file.write(text.encode()))
    return metrics


def save_classes(path: str | Path, images: np.ndarray, labels: np.ndarray | None = None, columns: int = 10) -> None:
    """The first `columns` images of each label, a row each, as many of all as the rarest has; without labels a square."""
    if labels is None:
        save_grid(path, images[: columns * columns])
        return
    rows = [images[labels == label] for label in np.unique(labels)]
    columns = min(columns, *map(len, rows)) if len(rows) > 1 else columns
    save_grid(path, np.concatenate([row[:columns] for row in rows]), columns)


def save_trajectory(
    path: str | Path, model: Trained, seed: int = 0, conditions: Batch | None = None, rows: int = 6, columns: int = 12
) -> None:
    """The way of a few samples from noise to image, a row each, with evenly chosen columns. conditions: None for each class
    its share of the rows; of those that are given for each sample the first are shown."""
    if conditions is None:
        conditions = every_class(model, rows)
    else:
        rows = min([rows, *(len(value) for value in conditions.values() if np.ndim(value))])
        conditions = {name: value[:rows] if np.ndim(value) else value for name, value in conditions.items()}
    save_states(path, [x for _, x in trajectory(model, np.arange(rows), seed, conditions)], columns)


def save_states(path: str | Path, states: Sequence[np.ndarray], columns: int = 12) -> None:
    """States (rows, H, W, C) of a few samples on their way, a row a sample, with evenly chosen columns."""
    columns = min(columns, len(states))
    chosen = np.round(np.linspace(0, len(states) - 1, columns)).astype(int)
    save_strip(path, np.stack([states[i] for i in chosen]))
