"""What the samples of a system are told on the command line: images of which a part is to be filled in, or seen in noise."""

from __future__ import annotations

import argparse
from typing import Any

from .options import refuse

__all__ = ["TOLD", "read_images", "told"]

TOLD = ("image", "mask", "observed", "deviation", "flipped")


def told(options: argparse.Namespace, model: Any) -> tuple[dict[str, Any], int]:
    """The conditions of --image with --mask or of --observed with its noise, and how many samples: one for each image, the
    first --n if there are several, or --n of a single one. ValueError, which names the option, for what does not fit."""
    import numpy as np

    from ..systems import check_noise, conditions_of_system

    takes = conditions_of_system(model.objective)
    given = tuple(name for name in TOLD if getattr(options, name) is not None)
    if not given:
        return {}, 64 if options.n is None else options.n
    if not takes:
        refuse(options, TOLD, "a run of binomial or nonequilibrium", type(model.objective).__name__)
    noise = "flipped" if "flipped" in takes else "deviation"
    if given not in (("image", "mask"), ("observed", noise)):
        raise ValueError(
            f"--{given[0]}: expected --image with --mask, or --observed with --{noise}, for this run, got "
            f"{' '.join(f'--{name}' for name in given)}; give both of one kind"
        )
    if len(model.shape) != 3:
        raise ValueError(
            f"--{given[0]}: expected a run of images, got one of points {model.shape}; in Python refdiff.systems.draw takes "
            "conditions"
        )
    x = _told_images(options, given[0], model.shape, bits=noise == "flipped")
    if given[0] == "observed":
        check_noise(noise, getattr(options, noise), f"--{noise}")
        return {"observed": x, noise: getattr(options, noise)}, len(x)
    return {"known": x, "mask": np.broadcast_to(_mask(options.mask, model.shape), x.shape)}, len(x)


def read_images(option: str, path: str) -> tuple[Any, Any]:
    """Images and labels of what an option names, as `load_images` reads them; its errors name the option."""
    from ..data import load_images

    try:
        return load_images(path)
    except ValueError as error:
        raise type(error)(str(error).replace("name_or_path:", f"--{option}:", 1)) from None


def _told_images(options: argparse.Namespace, name: str, shape: tuple[int, ...], bits: bool) -> Any:
    """The images of an option, one for each sample."""
    import numpy as np

    path = getattr(options, name)
    x, _ = read_images(name, path)
    if x.shape[1:] != shape:
        raise ValueError(f"--{name}: expected images of {shape}, as this run draws them, got {x.shape[1:]} in {path}")
    if bits and (wrong := int(np.count_nonzero(np.abs(x) != 1))):
        raise ValueError(
            f"--{name}: expected bits, each black or white, got {wrong} of {x.size} values that are neither in {path}"
        )
    n = options.n if options.n is not None else 64 if len(x) == 1 else len(x)
    if n < 1 or 1 < len(x) < n:
        most = f"from 1 to {len(x)}, the images of --{name}" if len(x) > 1 else "at least one sample"
        raise ValueError(f"--n: expected {most}, got {n}")
    return np.repeat(x, n, axis=0) if len(x) == 1 else x[:n]


def _mask(path: str, shape: tuple[int, ...]) -> Any:
    """1 where the mask is black, for what is kept, 0 where it is white.   -> (H, W, 1) or `shape`"""
    import numpy as np

    mask, _ = read_images("mask", path)
    if len(mask) != 1 or mask.shape[1:3] != shape[:2] or mask.shape[3] not in (1, shape[2]):
        raise ValueError(
            f"--mask: expected one image of {shape[:2]}, for all samples, got {len(mask)} of {mask.shape[1:]} in {path}"
        )
    if wrong := int(np.count_nonzero(np.abs(mask) != 1)):
        raise ValueError(
            f"--mask: expected white where it is to be filled in, black where it is kept, got {wrong} of {mask.size} values "
            f"in between in {path}"
        )
    return (mask[0] < 0).astype(np.float32)
