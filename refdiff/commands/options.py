"""What options stand for: a configuration, a model of a run; and how a result is printed."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

__all__ = ["GUIDANCE", "changed", "loaded", "other_run", "print_result", "refuse", "resolved", "same_run"]

GUIDANCE = ("guidance", "guidance_interval", "guidance_rescale", "classifier_scale")  # options that are keys of sample


def loaded(options: argparse.Namespace, config: Any, state: Any) -> tuple[Any, Any, Any]:
    """The configuration of a run as the options change it, its state, and its model, guided by the classifier that they
    name. ValueError for options of a guidance that the model cannot have."""
    from ..training import check_drawable, trained

    check_drawable(config)
    classes, guide = getattr(config.model, "classes", 0), options.classifier is not None
    for name in ("guidance",) if guide else ("label", "guidance", "guidance_interval", "guidance_rescale"):
        if not classes and getattr(options, name, None) is not None:
            option = f"--{name.replace('_', '-')}"
            raise ValueError(f"{option}: expected a model with classes, got one without; leave it out")
    if options.classifier_scale is not None and not guide:
        raise ValueError("--classifier-scale: expected with --classifier, got it alone; add --classifier RUN")
    config = changed(config, options)
    if guide and options.classifier_scale is None and not config.sample.classifier_scale:
        raise ValueError("--classifier: expected with --classifier-scale, got it alone; add --classifier-scale 1")
    return config, state, trained(config, state, other_run("classifier", options.classifier) if guide else None)


def other_run(name: str, run: str) -> tuple[Any, Any]:
    """The configuration and the state of the run that an option names. ValueError, which names the option, for no run."""
    from ..training import load_state

    try:
        return load_state(run)
    except ValueError as error:
        raise type(error)(f"--{name}: {str(error).removeprefix('path: ')}") from None


def same_run(a: str, b: str) -> bool:
    """Whether two paths lead to the same checkpoint."""
    from ..training.state import CHECKPOINT

    first, second = (path / CHECKPOINT if path.is_dir() else path for path in (Path(a), Path(b)))
    return first.exists() and second.exists() and first.samefile(second)


def resolved(options: argparse.Namespace) -> Any:
    """The configuration that the options describe; that of the run itself when it is only resumed."""
    from ..config import Config
    from ..training import load_state
    from ..training.run import resumable

    changes = list(options.set)
    changes += [
        f"{key}={json.dumps(v)}" for key in ("engine", "dtype", "seed") if (v := getattr(options, key)) is not None
    ]
    if getattr(options, "resume", False) and options.preset is None and options.config is None:
        return load_state(resumable(options.out))[0].changed(changes)
    return Config.resolve(options.preset or "digits", options.config, changes)


def changed(config: Any, options: argparse.Namespace) -> Any:
    """A loaded run's configuration with the options' engine and sampling keys, and where frozen networks are."""
    from ..training.frozen import places

    for change in options.set:
        if not change.startswith("sample.") and change.partition("=")[0] not in places(config):
            raise ValueError(
                f"--set: expected a key of sample, such as sample.steps=50, got {change!r}; the rest is fixed"
            )
    changes = list(options.set)
    changes += [f"{key}={json.dumps(v)}" for key in ("engine", "dtype") if (v := getattr(options, key)) is not None]
    changes += [f"sample.{key}={v}" for key in GUIDANCE if (v := getattr(options, key, None)) is not None]
    return config.changed(changes)


def refuse(options: argparse.Namespace, names: tuple[str, ...], expected: str, actual: str) -> None:
    """ValueError for an option among these that is given; expected: the run that it is for; actual: what this run is."""
    for name in names:
        value = getattr(options, name, None)
        if value is not None and value is not False and value != []:
            flag = f"--{name.replace('_', '-')}"
            raise ValueError(f"{flag}: expected {expected}, got {actual}; leave it out")


def print_result(options: argparse.Namespace, result: dict[str, Any]) -> None:
    """The result: JSON, or one aligned line a value."""
    if options.json:
        print(json.dumps(result))
        return
    lines = {k: v for k, v in result.items() if v is not None}
    width = max(map(len, lines))
    for key, value in lines.items():
        text = (
            f"{value:.4f}"
            if isinstance(value, float)
            else json.dumps(value)
            if isinstance(value, dict | list)
            else value
        )
        print(f"{key:<{width}}  {text}")
