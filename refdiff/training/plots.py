"""The picture of a training: its loss over the steps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ..plotting import new_figure

__all__ = ["plot_loss"]


def plot_loss(log: str | Path, path: str | Path) -> None:
    """Draw the loss in a run's log.jsonl, each line and their running mean.   ImportError without matplotlib."""
    lines = [json.loads(line) for line in Path(log).read_text().splitlines()]
    step, loss = (np.array([line[name] for line in lines]) for name in ("step", "loss"))
    window = max(1, len(loss) // 20)
    mean = np.convolve(loss, np.ones(window) / window, mode="valid")
    figure = new_figure(6.4, 3.6)
    axes = figure.add_subplot()
    axes.semilogy(step, loss, color="0.75", linewidth=1, label="one batch")
    axes.semilogy(step[window - 1 :], mean, color="C0", linewidth=1.8, label=f"mean of {window} log lines")
    axes.set(xlabel="step", ylabel="loss (mean squared error)", xlim=(0, step[-1]))
    axes.grid(True, which="both", color="0.92")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)
