"""Samples of a run: what they are told, and where they are written."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from .options import GUIDANCE, changed, loaded, print_result, refuse
from .told import TOLD, read_images, told

__all__ = ["sample"]


def sample(options: argparse.Namespace) -> None:
    """Sample from a trained model: a PNG grid, a folder of PNGs, or an npz, as points need it; and the strip from noise to
    image. --set chooses how. A model with classes, or guided by a --classifier, draws one row a class, or the class of
    --label; one that enlarges draws a sample for each image of --low-res; one of bits or of learned variances fills in the
    white part of --mask in each --image, or draws what may have been seen as --observed."""
    from ..sampling import sample as draw
    from ..storage import save_enlarged, save_grid
    from ..systems import system_of
    from ..training import load_state
    from ..training.demo import save_trajectory

    run = load_state(options.checkpoint)
    if system_of(run[0].objective):
        _sample_system(options, *run)
        return
    refuse(options, TOLD, "a run of binomial or nonequilibrium", type(run[0].objective).__name__)
    _, _, model = loaded(options, *run)
    conditions, n, columns, originals = _conditions(options, model)
    out, suffix = _checked_out(options, model.shape, n)
    x = draw(model, n, options.seed, conditions, progress=not options.quiet)
    out.parent.mkdir(parents=True, exist_ok=True)
    if suffix == ".png" and options.low_res:
        save_enlarged(out, conditions["low_res"], x, originals)
    elif suffix == ".png":
        save_grid(out, x, columns)
    else:
        _save_each(out, suffix, x)
    if options.trajectory:
        Path(options.trajectory).parent.mkdir(parents=True, exist_ok=True)
        save_trajectory(options.trajectory, model, options.seed, None if columns else conditions)
    _print_samples(options, x)


def _sample_system(options: argparse.Namespace, config: Any, state: Any) -> None:
    """Samples of a model that is no denoiser of images in noise by itself, and their way, if it has one."""
    import numpy as np

    from ..storage import save_grid
    from ..systems import draw, trajectory
    from ..training import system_model
    from ..training.demo import save_states

    refuse(
        options, ("label", "low_res", "classifier", *GUIDANCE), "a run of denoising", type(config.objective).__name__
    )
    _check_settings(options, config.objective)
    model = system_model(changed(config, options), state)
    conditions, n = told(options, model)
    out, suffix = _checked_out(options, model.shape, n)
    x = draw(model, n, options.seed, conditions, progress=not options.quiet)
    out.parent.mkdir(parents=True, exist_ok=True)
    if suffix == ".png":
        save_grid(out, x)
    else:
        _save_each(out, suffix, x)
    if options.trajectory:
        Path(options.trajectory).parent.mkdir(parents=True, exist_ok=True)
        first = {name: value[:6] if np.ndim(value) else value for name, value in conditions.items()}
        way = trajectory(model, np.arange(min(n, 6)), options.seed, first)
        save_states(options.trajectory, [x for _, x in way])
    _print_samples(options, x)


def _check_settings(options: argparse.Namespace, objective: Any) -> None:
    """ValueError for a key of --set by which no sample of this system is drawn."""
    from ..systems import settings_of_system

    reads = settings_of_system(objective)
    if reads is None:
        return
    for change in options.set:
        if change.startswith("sample.") and change.partition("=")[0].strip().removeprefix("sample.") not in reads:
            keys = ", ".join(f"sample.{name}" for name in reads) or "none"
            raise ValueError(
                f"--set: expected a key by which {type(objective).__name__} is drawn ({keys}), got {change!r}; leave it out"
            )


def _checked_out(options: argparse.Namespace, shape: tuple[int, ...], n: int) -> tuple[Path, str]:
    """--out and what it is to be, ".png", ".npz" or "" for a folder: seen to be right before anything is drawn."""
    from ..storage import check_file, check_folder, check_place

    out = Path(options.out)
    suffix = "" if options.out.endswith("/") or out.is_dir() else out.suffix.lower()
    if len(shape) != 3 and (suffix != ".npz" or options.trajectory):
        raise ValueError(f"--out: expected a name ending in .npz, since this model makes points, not images, got {out}")
    if suffix not in (".png", ".npz", ""):
        raise ValueError(
            f"--out: expected a .png (a grid), a .npz (an array) or a folder (single PNGs), got {out}; "
            f"a slash says that it is a folder: {out}/"
        )
    check_place("--out", out, options.force)
    if suffix == "":
        check_folder(out, n)
    if options.trajectory:
        check_file("--trajectory", options.trajectory, [".png"], options.force)
    return out, suffix


def _save_each(out: Path, suffix: str, x: Any) -> None:
    """Samples as an array, or as a folder of images."""
    from ..storage import save_folder, save_npz

    {".npz": save_npz, "": save_folder}[suffix](out, x)


def _print_samples(options: argparse.Namespace, x: Any) -> None:
    print_result(
        options, {"out": options.out, "samples": len(x), "shape": list(x.shape[1:]), "trajectory": options.trajectory}
    )


def _conditions(options: argparse.Namespace, model: Any) -> tuple[dict[str, Any], int, int | None, Any]:
    """What the samples are told, how many there are, the columns of a grid, without --label one row a class, and the images
    of which those of --low-res were made, if known."""
    from ..sampling import conditions_taken

    classes, enlarges = model.classes, "low_res" in conditions_taken(model.networks, model.objective)
    if options.label is not None and not 0 <= options.label < classes:
        raise ValueError(f"--label: expected a class from 0 to {classes - 1}, got {options.label}")
    if enlarges or options.low_res:
        conditions, originals = _low_res(options, model, enlarges)
        return conditions, len(conditions["low_res"]), None, originals
    n = 64 if options.n is None else options.n
    if not classes:
        return {}, n, None, None
    if options.label is None:
        n = 8 * classes if options.n is None else options.n
        if n % classes:
            raise ValueError(
                f"--n: expected a multiple of {classes}, since each class has a row, got {n}; or add --label"
            )
        return {"label": [i * classes // n for i in range(n)]}, n, n // classes, None
    return {"label": options.label}, n, None, None


def _low_res(options: argparse.Namespace, model: Any, enlarges: bool) -> tuple[dict[str, Any], Any]:
    """The first --n images of --low-res with the labels of --label or else their own, and the large images that they were
    made of, or None. ValueError unless the model enlarges images of this size."""
    from ..sampling import conditions_of, conditions_taken

    if not enlarges:
        raise ValueError("--low-res: expected a model that enlarges images, got one that does not; leave it out")
    takes = conditions_taken(model.networks, model.objective)
    small, made = takes["low_res"].shape, bool(model.objective.downscale)
    sizes = f"images of {small}, which this model enlarges"
    sizes += f", or of its own {model.shape}, which are averaged down" if made else ""
    if not options.low_res:
        raise ValueError(
            f"--low-res: expected {sizes}, got none; give a file, a folder or a data set, as --low-res digits"
        )
    x, labels = read_images("low-res", options.low_res)
    if x.shape[1:] != small and not (made and x.shape[1:] == model.shape):
        raise ValueError(f"--low-res: expected {sizes}, got {x.shape[1:]} in {options.low_res}")
    n = len(x) if options.n is None else options.n
    if not 0 < n <= len(x):
        raise ValueError(f"--n: expected from 1 to {len(x)}, the images of --low-res, got {n}")
    x, originals, batch = x[:n], None, {}
    if x.shape[1:] == small:
        batch["low_res"] = x
    else:
        batch, originals = conditions_of(model, {"x": x}), x
        if not options.quiet:
            print(f"refdiff: {options.low_res}: images of {x.shape[1:]}, averaged down to {small}", file=sys.stderr)
    if "label" in takes or model.classifier:
        if options.label is not None:
            batch["label"] = options.label
        elif labels is not None:
            batch["label"] = labels[:n]
        elif not getattr(model.networks["denoiser"].config, "null_label", True) or model.classifier:
            raise ValueError(
                f"--label: expected the class of the images, which this model asks for, got none, nor any in "
                f"{options.low_res}; add --label"
            )
    return batch, originals
