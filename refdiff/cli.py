"""The command line: `refdiff train | sample | eval | info | demo`. Errors are one line on stderr and exit status 2."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from .version import __version__

EPILOG = """examples:
  refdiff demo                                             the main job: digits, about three minutes
  refdiff train --out runs/a --set train.steps=500         train with one setting changed
  refdiff train --preset mixture --out runs/b              points in the plane instead of images
  refdiff train --out runs/a --resume                      go on where it stopped
  refdiff sample runs/a --n 64 --out samples.png --trajectory way.png
  refdiff eval runs/a --json
  refdiff info digits                                      a preset, a run, or nothing for a list
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 2 for an error, 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    # A polite kill ends like Ctrl-C: with a checkpoint.
    former = signal.signal(signal.SIGTERM, _interrupt)
    try:
        return options.command(options) or 0
    except KeyboardInterrupt:
        out = getattr(options, "out", None)
        saved = Path(out) / "checkpoint.safetensors" if out else None
        kept = f"; {saved} is saved, go on with --resume" if saved and saved.exists() else ""
        print(f"refdiff: stopped{kept}", file=sys.stderr)
        return 130
    except (ValueError, ImportError, OSError, MemoryError) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        print(f"refdiff: error: {text}", file=sys.stderr)
        return 2
    finally:
        signal.signal(signal.SIGTERM, former)


def train(options: argparse.Namespace) -> None:
    """Train a model and keep the run in a folder."""
    from .training import train as run

    config = _config(options)
    state = run(config, options.out, resume=options.resume, force=options.force, progress=not options.quiet)
    _print(options, {"out": options.out, "steps": state.step, "samples_seen": state.seen})


def sample(options: argparse.Namespace) -> None:
    """Sample from a trained model: a PNG grid, a folder of PNGs, or an npz; and the strip from noise to image."""
    from .storage import save_folder, save_grid, save_npz
    from .training import load_state
    from .training import sample as draw
    from .training.demo import save_trajectory

    config, state = load_state(options.checkpoint)
    config = _changed(config, options)
    out = Path(options.out)
    images = len(config.model.shape) == 3
    if not images and (out.suffix != ".npz" or options.trajectory):
        raise ValueError(
            f"--out: expected a name ending in .npz, since this model makes points, not images, came {out}"
        )
    if out.suffix not in (".png", ".npz", ""):
        raise ValueError(f"--out: expected a .png (a grid), a .npz or a folder (single PNGs), came {out}")
    for path in (out, options.trajectory and Path(options.trajectory)):
        if path and path.exists() and not options.force:
            raise ValueError(f"--out: {path} exists; add --force to write over it, or choose another")
    x = draw(config, state.average, options.n, options.seed, progress=not options.quiet)
    out.parent.mkdir(parents=True, exist_ok=True)
    {".png": save_grid, ".npz": save_npz, "": save_folder}[out.suffix](out, x)
    if options.trajectory:
        save_trajectory(options.trajectory, config, state.average, options.seed)
    _print(options, {"out": str(out), "samples": len(x), "shape": list(x.shape[1:]), "trajectory": options.trajectory})


def evaluate(options: argparse.Namespace) -> None:
    """Frechet distance in pixel space beside its floor and its ceiling; the classes covered; for the mixture the error of
    eps beside the perfect denoiser's."""
    from .training import evaluate as measure
    from .training import load_state
    from .training import sample as draw
    from .training.data import load

    config, state = load_state(options.checkpoint)
    config = _changed(config, options)
    data = load(options.data or config.data.source)
    if data.shape != config.model.shape:
        raise ValueError(f"--data: expected samples of {config.model.shape}, the model's shape, came {data.shape}")
    x = draw(config, state.average, options.n, options.seed, progress=not options.quiet)
    _print(options, {"step": state.step, **measure(config, state.average, x, data, options.seed)})


def info(options: argparse.Namespace) -> None:
    """What a preset or a run is; without a name, what there is to choose from."""
    from . import engines, models
    from .process import SCHEDULES
    from .training import PRESETS, load_state

    if options.name is None:
        presets = {name: models.count(models.layout(config.model)) for name, config in PRESETS.items()}
        _print(options, {
            "refdiff": __version__, "engines": list(engines.ENGINES), "schedules": list(SCHEDULES),
            "data": ["digits", "swissroll", "moons", "rings", "mixture", "a path"], "presets (parameters)": presets,
        })  # fmt: skip
        return
    if options.name in PRESETS:
        config, run = PRESETS[options.name], {}
    else:
        if not Path(options.name).exists():
            raise ValueError(
                f"name: expected a preset ({', '.join(PRESETS)}), a run's folder or a checkpoint, came {options.name!r}"
            )
        config, state = load_state(options.name)
        run = {"step": state.step, "samples_seen": state.seen}
    table = config.to_dict()
    _print(options, {"parameters": models.count(models.layout(config.model)), **run, **table})


def demo(options: argparse.Namespace) -> None:
    """Train on the handwritten digits, sample and evaluate, about three minutes: pictures and numbers in a folder."""
    from .training.demo import demo as run

    config = _config(options)
    metrics = run(options.out, config, options.n, options.force, progress=not options.quiet)
    _print(options, {"out": options.out, **metrics})


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="refdiff",
        description="The diffusion model you can check: train, sample and evaluate with NumPy, every gradient by hand.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"refdiff {__version__}")
    commands = parser.add_subparsers(metavar="command", required=True, parser_class=_Parser)

    def command(name: str, function: Any) -> argparse.ArgumentParser:
        text = " ".join(function.__doc__.split())
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(command=function)
        sub.add_argument("--json", action="store_true", help="print the result as JSON")
        sub.add_argument("--quiet", action="store_true", help="no progress bar")
        return sub

    def configuration(sub: argparse.ArgumentParser) -> None:
        sub.add_argument(
            "--set", action="append", default=[], metavar="KEY=VALUE", help="change one key, as train.steps=500"
        )
        sub.add_argument("--engine", help="what computes: reference")

    def run(sub: argparse.ArgumentParser, out: str | None) -> None:
        sub.add_argument("--out", required=out is None, default=out, metavar="FOLDER", help="where the run is kept")
        sub.add_argument("--force", action="store_true", help="replace the run in --out")
        sub.add_argument("--seed", type=int, help="of every random number; same seed, same bits")
        configuration(sub)

    sub = command("train", train)
    sub.add_argument("--preset", help="where the configuration starts from (default: digits)")
    sub.add_argument("--config", metavar="FILE.toml", help="a TOML file over the preset")
    sub.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    run(sub, None)

    sub = command("sample", sample)
    sub.add_argument("checkpoint", help="a run's folder or a checkpoint")
    sub.add_argument("--n", type=int, default=64, help="how many (default: 64)")
    sub.add_argument("--out", required=True, help="NAME.png: a grid; NAME.npz: an array x; NAME: a folder of PNGs")
    sub.add_argument("--trajectory", metavar="NAME.png", help="also the strip of a few samples from noise to image")
    sub.add_argument("--force", action="store_true", help="write over existing files")
    sub.add_argument("--seed", type=int, default=0, help="same seed, same samples")
    configuration(sub)

    sub = command("eval", evaluate)
    sub.add_argument("checkpoint", help="a run's folder or a checkpoint")
    sub.add_argument("--n", type=int, default=512, help="how many samples (default: 512)")
    sub.add_argument("--data", help="other data to compare with, a name or a path")
    sub.add_argument("--seed", type=int, default=0, help="same seed, same samples")
    configuration(sub)

    sub = command("info", info)
    sub.add_argument("name", nargs="?", help="a preset, a run's folder or a checkpoint")

    sub = command("demo", demo)
    sub.add_argument("--n", type=int, default=512, help="how many samples (default: 512)")
    sub.set_defaults(preset="digits", config=None)
    run(sub, "runs/demo")
    return parser


class _Parser(argparse.ArgumentParser):
    """argparse with errors of one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"refdiff: error: {message}; see {self.prog} --help\n")


def _config(options: argparse.Namespace) -> Any:
    """The configuration that the options describe; that of the run itself when it is only resumed."""
    from .training import Config, load_state

    changes = list(options.set)
    changes += [f"{key}={json.dumps(v)}" for key in ("engine", "seed") if (v := getattr(options, key)) is not None]
    if getattr(options, "resume", False) and options.preset is None and options.config is None:
        return load_state(options.out)[0].changed(changes)
    return Config.resolve(options.preset or "digits", options.config, changes)


def _changed(config: Any, options: argparse.Namespace) -> Any:
    """A loaded run's configuration with the options' engine and sampling keys."""
    for change in options.set:
        if not change.startswith("sample."):
            raise ValueError(
                f"--set: expected a key of sample, such as sample.steps=50, came {change!r}; the rest is fixed"
            )
    changes = [*options.set, *([f"engine={json.dumps(options.engine)}"] if options.engine else [])]
    return config.changed(changes)


def _interrupt(number: int, frame: Any) -> NoReturn:
    raise KeyboardInterrupt


def _print(options: argparse.Namespace, result: dict[str, Any]) -> None:
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


if __name__ == "__main__":
    sys.exit(main())
