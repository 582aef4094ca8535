"""Runs: how they are made, the demonstration's too, and what they are."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..version import __version__
from .options import print_result, resolved

__all__ = ["demo", "info", "train"]


def train(options: argparse.Namespace) -> None:
    """Train a model and keep the run in a folder."""
    from ..training import train as run

    config = resolved(options)
    state = run(config, options.out, resume=options.resume, force=options.force, progress=not options.quiet)
    print_result(options, {"out": options.out, "steps": state.step, "samples_seen": state.samples_seen})


def demo(options: argparse.Namespace) -> None:
    """Train on the handwritten digits, draw each class and evaluate, about two minutes: pictures and numbers in a folder."""
    from ..training.demo import demo as run

    config = resolved(options)
    metrics = run(options.out, config, options.n, options.force, progress=not options.quiet)
    print_result(options, {"out": options.out, **metrics})


def info(options: argparse.Namespace) -> None:
    """What a preset or a run is; without a name, what there is to choose from."""
    from .. import models
    from ..config import PRESETS
    from ..config.keys import choices
    from ..training import load_state
    from ..training.memory import described

    def parameters(config: Any) -> int:
        return sum(models.count(models.layout(network.model)) for network in config.networks.values())

    if options.name is None:
        presets = {name: parameters(config) for name, config in PRESETS.items()}
        known = {key: list(names) for key, names in choices().items()}
        print_result(options, {"refdiff": __version__, **known, "presets (parameters)": presets})
        return
    if options.name in PRESETS:
        config, run = PRESETS[options.name], {}
    else:
        if not Path(options.name).exists():
            raise ValueError(
                f"name: expected a preset ({', '.join(PRESETS)}), a run's folder or a checkpoint, got {options.name!r}"
            )
        config, state = load_state(options.name)
        run = {"step": state.step, "samples_seen": state.samples_seen}
    memory = described(config)
    need = {"memory": memory} if options.json else {f"memory of a step (batch {config.train.batch})": memory["text"]}
    print_result(options, {"parameters": parameters(config), **need, **run, **config.to_dict()})
