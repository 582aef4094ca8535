"""The command line. Errors are one line on stderr and exit status 2; what each command does stands in `commands`."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from . import commands
from .errors import DeviceError, DoubtWarning, at_the_command_line
from .version import __version__

EPILOG = """examples:
  refdiff demo                                             the main job: digits by class, about two minutes
  refdiff train --out runs/a --set train.steps=500         train with one setting changed
  refdiff train --preset mixture --out runs/b              points in the plane instead of images
  refdiff train --out runs/a --resume                      go on where it stopped
  refdiff sample runs/a --n 64 --out samples.png --trajectory way.png
  refdiff train --preset digits-classes --out runs/c       digits that are told which digit they are
  refdiff sample runs/c --label 7 --guidance 2 --out sevens.png
  refdiff train --preset digits-classifier --out runs/d    a classifier of digits in noise, and digits guided by it
  refdiff sample runs/a --classifier runs/d --classifier-scale 2 --out guided.png
  refdiff eval runs/a --json
  refdiff train --preset digits-vae --out runs/vae         a variational autoencoder, which diffusion comes from
  refdiff eval runs/vae --plot vae.png                     its bound on log p(x), term by term, and a picture
  refdiff verify                                           check every equation, one line each
  refdiff audit diffusers:DDIMScheduler eta=0.5            check somebody else's scheduler
  refdiff bench                                            the engines of this machine, side by side
  refdiff bench --kernel my.cu:my_norm --as group_norm     a kernel of yours: is it right, and how fast
  refdiff info digits                                      a preset, a run, or nothing for a list
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 1 if a claim fails or a speed was not measured, 2 for an error, 130 after
    Ctrl-C."""
    options = make_parser().parse_args(arguments)
    # SIGTERM is handled like Ctrl-C: a checkpoint is saved.
    former = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with at_the_command_line(), _doubts_in_one_line():
            _import(getattr(options, "imports", None) or [])
            return options.command(options) or 0
    except KeyboardInterrupt:
        out = getattr(options, "out", None)
        saved = Path(out) / "checkpoint.safetensors" if out else None
        kept = f"; {saved} is saved, go on with --resume" if saved and saved.exists() else ""
        print(f"refdiff: stopped{kept}", file=sys.stderr)
        return 130
    except (ValueError, ImportError, OSError, MemoryError, DeviceError) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        print(f"refdiff: error: {text}", file=sys.stderr)
        return 2
    finally:
        signal.signal(signal.SIGTERM, former)


def _import(names: Sequence[str]) -> None:
    """Import modules of the user's, also from the current folder: what they register is known from then on."""
    if names and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    for name in names:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name.partition(".")[0]:
                raise
            raise ValueError(
                f"--import: expected a module of the current folder or an installed one, got {name!r}; give its name "
                "without .py"
            ) from None


@contextmanager
def _doubts_in_one_line() -> Iterator[None]:
    """Inside, each DoubtWarning is one plain line on stderr, once."""
    said: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *where: Any, **how: Any) -> None:
        if not issubclass(category, DoubtWarning):
            shown(message, category, *where, **how)
        elif (text := " ".join(str(message).split())) not in said:
            said.add(text)
            print(f"refdiff: warning: {text}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("always", DoubtWarning)
        shown, warnings.showwarning = warnings.showwarning, show
        yield


def make_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="refdiff",
        description="The diffusion model you can check: train, sample and evaluate with NumPy, every gradient by hand.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"refdiff {__version__}")
    choices = parser.add_subparsers(metavar="command", required=True, parser_class=_Parser)

    def command(name: str, function: Any, tables: Sequence[str] | None = None) -> argparse.ArgumentParser:
        text = " ".join(function.__doc__.split())
        sub: _Parser = choices.add_parser(name, help=text, description=text)
        sub.tables = tables
        sub.set_defaults(command=function)
        sub.add_argument("--json", action="store_true", help="print the result as JSON")
        sub.add_argument("--quiet", action="store_true", help="no progress")
        return sub

    def extension(sub: argparse.ArgumentParser) -> None:
        sub.add_argument(
            "--import", dest="imports", action="append", metavar="MODULE",
            help="import a module of yours first, which registers a network, objective, rule, data set or system",
        )  # fmt: skip

    def configuration(sub: argparse.ArgumentParser) -> None:
        sub.add_argument(
            "--set", action="append", default=[], metavar="KEY=VALUE", help="change one key, as train.steps=500"
        )
        sub.add_argument("--engine", help="what computes: reference, cpu, cuda (default: auto, the fastest there is)")
        sub.add_argument("--dtype", help="of the network on the cuda engine: float32 or bfloat16")
        extension(sub)

    def run(sub: argparse.ArgumentParser, out: str | None) -> None:
        sub.add_argument("--out", required=out is None, default=out, metavar="FOLDER", help="where the run is kept")
        sub.add_argument("--force", action="store_true", help="replace the run in --out")
        sub.add_argument("--seed", type=int, help="of every random number; same seed, same bits")
        configuration(sub)

    def told(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--image", metavar="FILE", help="images to begin with: a file, a folder or a data set")
        sub.add_argument(
            "--mask", metavar="FILE",
            help="with --image: one image of its size, white where it is filled in, black where it is kept",
        )  # fmt: skip
        sub.add_argument(
            "--observed",
            metavar="FILE",
            help="images seen in noise, of which samples are drawn that may lie behind them",
        )
        sub.add_argument(
            "--deviation", type=float, metavar="S", help="with --observed: of the noise, where black is -1 and white 1"
        )
        sub.add_argument(
            "--flipped",
            type=float,
            metavar="P",
            help="with --observed, of a run of bits: how probably each is turned over",
        )

    def guidance(sub: argparse.ArgumentParser) -> None:
        sub.add_argument(
            "--guidance", type=float, metavar="W",
            help="1 is the conditional model (default), more exaggerates the condition, 0 leaves it out",
        )  # fmt: skip
        sub.add_argument(
            "--classifier", metavar="RUN", help="the run of a classifier that guides, of the same data and schedule"
        )
        sub.add_argument(
            "--classifier-scale",
            type=float,
            metavar="S",
            help="how strongly it guides: of the gradient of log p(y | x_t)",
        )
        sub.add_argument(
            "--guidance-interval", type=int, nargs=2, metavar=("FROM", "TO"),
            help="the first and the last t at which guidance acts (default: all)",
        )  # fmt: skip
        sub.add_argument(
            "--guidance-rescale", type=float, metavar="PHI",
            help="from 0 (default) to 1: how far a guided prediction gets the contrast of the conditional one",
        )  # fmt: skip

    sub = command("train", commands.train, ())
    sub.add_argument("--preset", help="where the configuration starts from (default: digits)")
    sub.add_argument("--config", metavar="FILE.toml", help="a TOML file over the preset")
    sub.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    run(sub, None)

    sub = command("sample", commands.sample, ["sample"])
    sub.add_argument("checkpoint", help="a run's folder or a checkpoint")
    sub.add_argument("--n", type=int, help="how many (default: 64, eight of each class, or all images told)")
    sub.add_argument(
        "--label",
        type=int,
        help="the class to draw, of a model with classes or a classifier (default: one row a class)",
    )
    sub.add_argument(
        "--low-res", metavar="FILE",
        help="of a model that enlarges: small images, or of its own size to be averaged down; a file, folder or data set",
    )  # fmt: skip
    told(sub)
    guidance(sub)
    sub.add_argument("--out", required=True, help="NAME.png: a grid; NAME.npz: an array x; NAME: a folder of PNGs")
    sub.add_argument("--trajectory", metavar="NAME.png", help="also the strip of a few samples from noise to image")
    sub.add_argument("--force", action="store_true", help="write over existing files")
    sub.add_argument("--seed", type=int, default=0, help="same seed, same samples")
    configuration(sub)

    sub = command("eval", commands.evaluate, ["sample"])
    sub.add_argument("checkpoint", help="a run's folder or a checkpoint")
    sub.add_argument("--n", type=int, help="how many samples (default: 512, of a model that enlarges each image)")
    guidance(sub)
    sub.add_argument("--data", help="other data to compare with, a name or a path")
    sub.add_argument(
        "--judge", metavar="RUN", help="of a classifier: the share of samples in which it sees their class"
    )
    sub.add_argument("--nll", action="store_true", help="also bits per dimension of the held-out split, about a minute")
    sub.add_argument("--nll-steps", type=int, metavar="N", help="with --nll: of the chain of N steps (default: all T)")
    sub.add_argument(
        "--flow",
        action="store_true",
        help="also -log2 p of the held-out split by the probability-flow ODE, about a minute",
    )
    sub.add_argument(
        "--flow-steps", type=int, metavar="N", help="with --flow: of so many steps (default: sample.steps)"
    )
    sub.add_argument(
        "--plot",
        metavar="NAME.png",
        help="draw the bound, or a classifier's accuracy, over t; of a system, what it shows",
    )
    sub.add_argument(
        "--first-variance", choices=("guided-diffusion", "refdiff"),
        help="with --nll, of the variance beta at t = 1: the posterior's of t = 2, as published (default), or beta_1",
    )  # fmt: skip
    sub.add_argument(
        "--bins", metavar="N", help="with --nll or --flow: levels of the data, or density (default: 256 or 17)"
    )
    sub.add_argument("--seed", type=int, default=0, help="same seed, same samples")
    configuration(sub)

    sub = command("info", commands.info)
    sub.add_argument("name", nargs="?", help="a preset, a run's folder or a checkpoint")
    extension(sub)

    sub = command("verify", commands.verify)
    sub.add_argument(
        "--match",
        default="",
        metavar="TEXT",
        help="only claims whose name, group, source or function holds this text, or else that call what is named so",
    )
    sub.add_argument("--random", action="store_true", help="new random cases, not the same ones every time")

    sub = command("audit", commands.audit)
    sub.add_argument("target", help="module:Class, as mypackage:MyScheduler or diffusers:DDIMScheduler")
    sub.add_argument(
        "options", nargs="*", default=[], metavar="KEY=VALUE", help="keyword options of the class, as eta=0.5"
    )
    sub.add_argument("--match", default="", metavar="TEXT", help="only claims whose name or source holds this text")
    sub.add_argument("--dtype", choices=["float32", "float64"], help="the only one it is for; others are not asked")
    sub.add_argument("--variance", choices=["posterior", "beta"], help="of the noise in a step, if it declares none")
    sub.add_argument("--all-steps", action="store_true", help="it has no runs but that of all T steps")

    sub = command("bench", commands.bench)
    sub.add_argument("--profile", action="store_true", help="where the time of a training step of the cpu engine goes")
    sub.add_argument("--model", default="digits", help="the network (default: digits)")
    sub.add_argument("--batch", type=int, default=16, help="how many samples (default: 16)")
    sub.add_argument("--seconds", type=float, default=60, help="how long it may take (default: 60)")
    sub.add_argument("--kernel", metavar="FILE.cu:NAME", help="a kernel to check and time, see docs/benchmarks.md")
    sub.add_argument("--as", dest="operation", metavar="OPERATION", help="what the kernel computes, as group_norm")
    sub.add_argument("--dtype", help="of the kernel's data: float32 or bfloat16 (default: float32)")

    sub = command("demo", commands.demo, ())
    sub.add_argument("--n", type=int, default=512, help="how many samples (default: 512)")
    sub.set_defaults(preset="digits-classes", config=None)
    run(sub, "runs/demo")
    return parser


class _Parser(argparse.ArgumentParser):
    """argparse with errors of one line. tables: of the configuration, whose keys the help lists; () for all."""

    tables: Sequence[str] | None = None

    def format_help(self) -> str:
        if self.tables is None:
            return super().format_help()
        from .config.keys import describe

        further = "networks.NAME.kind and so on make a further network, whose keys refdiff info PRESET shows"
        further = "" if self.tables else f" ({further})"
        keys = f"keys for --set, each with its default and the names that it may have{further}:\n"
        return f"{super().format_help()}\n{keys}{describe(self.tables)}"

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"refdiff: error: {message}; see {self.prog} --help\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """argparse fills a list of words once, where it begins; those after an option of ours belong to it too."""
        parsed, rest = super().parse_known_args(args, namespace)
        if isinstance(words := getattr(parsed, "options", None), list):
            parsed.options = words + [word for word in rest if not word.startswith("-")]
            rest = [word for word in rest if word.startswith("-")]
        return parsed, rest


if __name__ == "__main__":
    sys.exit(main())
