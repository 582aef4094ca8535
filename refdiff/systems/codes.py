"""What models with an encoder and a decoder share: whether the two fit, pieces of a data set, and the picture of both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod
from typing import Any

import numpy as np

from ..models import Input, inputs
from ..plotting import new_figure
from ..progress import Progress

__all__ = ["check_pair", "code_size", "pieces", "plot_codes"]

SHOWN, UNITS, STEPS, SIDE = 12, 10, 11, 15  # reconstructions; rows and columns of traversals; the side of a latent map
REACH = 3.0  # deviations from the centre to the end of a traversal


def code_size(networks: dict[str, Any]) -> int:
    """Numbers of a latent, as networks.encoder says it; 0 where that is not known."""
    outputs = getattr(networks.get("encoder"), "outputs", 0)
    return prod(outputs) if isinstance(outputs, tuple) else 0


def check_pair(networks: dict[str, Any], parts: int) -> None:
    """ValueError unless networks.encoder reads x and says a latent in so many parts, and networks.decoder reads that latent,
    z, and says x once.   networks: {name: configuration}"""
    expected = {"encoder": parts, "decoder": 1}
    for name, entry in (("encoder", "x"), ("decoder", "z")):
        config, reads = networks[name], inputs(networks[name])
        if list(reads) != [entry]:
            raise ValueError(
                f"networks.{name}: expected a network that reads {entry} alone, got {type(config).__name__}, which reads "
                f"{', '.join(reads) or 'nothing'}; give networks.{name}.entry={entry}, or a network that does"
            )
        if not isinstance(getattr(config, "outputs", None), tuple):
            raise ValueError(
                f"networks.{name}.kind: expected a network that says the shape `outputs`, such as perceptron or "
                f"conv_{name}, got {type(config).__name__}; take one of these"
            )
        if (got := getattr(config, "parts", 1)) != expected[name]:
            meant = "a mean and a log variance" if expected[name] == 2 else "one number for each that it says"
            raise ValueError(
                f"networks.{name}.parts: expected {expected[name]}, {meant}, got {got}; give networks.{name}.parts="
                f"{expected[name]}"
            )
    x, latent = inputs(networks["encoder"])["x"].shape, networks["encoder"].outputs
    z, said = inputs(networks["decoder"])["z"].shape, networks["decoder"].outputs
    if z != latent:
        raise ValueError(
            f"networks.decoder: expected one that reads latents of shape {latent}, as networks.encoder says them, got one "
            f"that reads {z}; give both the same"
        )
    if said != x:
        raise ValueError(
            f"networks.decoder: expected one that says samples of shape {x}, as networks.encoder reads them, got one that "
            f"says {said}; give both the same"
        )


def reads_x(networks: dict[str, Any]) -> dict[str, Input]:
    """The x of networks.encoder: all that is read of the data."""
    return {"x": inputs(networks["encoder"])["x"]}


def pieces(n: int, size: int, what: str, progress: bool) -> Iterator[np.ndarray]:
    """The numbers 0 .. n - 1 in pieces of at most `size`, with a bar."""
    with Progress(what, n, "sample", progress) as bar:
        for first in range(0, n, size):
            ids = np.arange(first, min(first + size, n))
            yield ids
            bar.update(len(ids))


def plot_codes(
    path: Any,
    x: np.ndarray,
    labels: np.ndarray | None,
    codes: np.ndarray,
    decode: Callable[[np.ndarray], np.ndarray],
    order: np.ndarray,
) -> None:
    """The picture of a latent: samples above what is decoded of their codes; what happens along each of the first units in
    `order` from -3 to 3 deviations, the others at their mean; of two units, the codes, by label, and what lies between.

    x (N, ...), labels (N,) or None, codes (N, latent); decode: (M, latent) -> (M, ...). ImportError without matplotlib.
    """
    flat = codes.shape[1] == 2
    figure = new_figure(12.0 if flat else 9.0, 9.6)
    rows = figure.subplots(2, 2 if flat else 1, squeeze=False, height_ratios=(1, 2))
    y = decode(codes[:SHOWN])
    _show(rows[0, 0], np.stack([x[:SHOWN], y]), "held out, and what is decoded of their codes")
    centre, deviation = codes.mean(axis=0), codes.std(axis=0)
    along = np.linspace(-REACH, REACH, STEPS)
    z = np.tile(centre, (min(UNITS, len(order)), STEPS, 1))
    for row, unit in zip(z, order, strict=False):
        row[:, unit] += along * deviation[unit]
    walked = decode(z.reshape(-1, z.shape[-1])).reshape(*z.shape[:2], *x.shape[1:])
    _show(rows[1, 0], walked, f"units {', '.join(map(str, order[:UNITS]))} from -3 to 3 deviations")
    if flat:
        _scatter(rows[0, 1], codes, labels)
        grid = np.stack(np.meshgrid(*[np.linspace(-REACH, REACH, SIDE)] * 2), -1)[::-1]
        decoded = decode((centre + deviation * grid).reshape(-1, 2)).reshape(SIDE, SIDE, *x.shape[1:])
        _show(rows[1, 1], decoded, "decoded, from -3 to 3 deviations each way")
    figure.savefig(path, dpi=120)


def _show(axes: Any, samples: np.ndarray, title: str) -> None:
    """Samples (rows, columns, ...): images as tiles, points joined row by row, anything else as the lines of its numbers."""
    axes.set_title(title, fontsize=9)
    if samples.ndim == 5:
        axes.imshow(_tiles(samples), cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
        axes.set_axis_off()
    elif samples.shape[2:] == (2,):
        for row in samples:
            axes.plot(*row.T, marker=".", linewidth=0.8)
        axes.set_aspect("equal")
    else:
        for row in samples:
            axes.plot(row.reshape(len(row), -1).T, linewidth=0.8)


def _tiles(images: np.ndarray) -> np.ndarray:
    """(R, C, H, W, channels) -> (R (H + 1) - 1, C (W + 1) - 1) or with three channels, a white line between the tiles."""
    r, c, h, w, channels = images.shape
    canvas = np.ones((r, h + 1, c, w + 1, channels), np.float32)
    canvas[:, :h, :, :w] = images.transpose(0, 2, 1, 3, 4).clip(-1, 1)
    canvas = canvas.reshape(r * (h + 1), c * (w + 1), channels)[:-1, :-1]
    return canvas[..., 0] if channels == 1 else (canvas + 1) / 2


def _scatter(axes: Any, codes: np.ndarray, labels: np.ndarray | None) -> None:
    axes.set_title("codes of what is held out" + ("" if labels is None else ", by label"), fontsize=9)
    points = axes.scatter(*codes.T, s=8, c=labels, cmap=None if labels is None else "tab10")
    axes.set_aspect("equal")
    if labels is not None:
        axes.legend(
            *points.legend_elements(num=None), fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5)
        )
