"""What models with an encoder and a decoder share: whether the two fit, pieces of a data set, and the picture of both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod
from typing import Any

import numpy as np

from ..models import Input, inputs
from ..plotting import new_figure
from ..progress import Progress

__all__ = [
    "check_pair",
    "code_size",
    "decode",
    "encode",
    "pieces",
    "plot_codes",
    "posterior",
    "reads_x",
    "show_samples",
]

SHOWN, UNITS, STEPS, SIDE = 12, 10, 11, 15  # reconstructions; rows and columns of traversals; the side of a latent map
REACH = 3.0  # deviations from the centre to the end of a traversal


def code_size(networks: dict[str, Any]) -> int:
    """Numbers of a latent, as networks.encoder says it; 0 where that is not known."""
    outputs = getattr(networks.get("encoder"), "outputs", 0)
    return prod(outputs) if isinstance(outputs, tuple) else 0


def check_pair(networks: dict[str, Any], parts: int, level: str = "", below: str = "x", said: int = 1) -> None:
    """ValueError unless networks.encoder reads x, or what else is `below`, and says a latent in so many parts, and
    networks.decoder reads that latent, z, and says what is below, `said` times.   networks: {name: configuration}; level:
    the end of both names
    """
    encoder, decoder = f"encoder{level}", f"decoder{level}"
    for name, entry, expected in ((encoder, below, parts), (decoder, "z", said)):
        config, reads = networks[name], inputs(networks[name])
        if list(reads) != [entry]:
            raise ValueError(
                f"networks.{name}: expected a network that reads {entry} alone, got {type(config).__name__}, which reads "
                f"{', '.join(reads) or 'nothing'}; give networks.{name}.entry={entry}, or a network that does"
            )
        if not isinstance(getattr(config, "outputs", None), tuple):
            raise ValueError(
                f"networks.{name}.kind: expected a network that says the shape `outputs`, such as perceptron or "
                f"conv_{name.rstrip(level)}, got {type(config).__name__}; take one of these"
            )
        if (got := getattr(config, "parts", 1)) != expected:
            meant = "a mean and a log variance" if expected == 2 else "one number for each that it says"
            raise ValueError(
                f"networks.{name}.parts: expected {expected}, {meant}, got {got}; give networks.{name}.parts={expected}"
            )
    x, latent = inputs(networks[encoder])[below].shape, networks[encoder].outputs
    z, says = inputs(networks[decoder])["z"].shape, networks[decoder].outputs
    if z != latent:
        raise ValueError(
            f"networks.{decoder}: expected one that reads latents of shape {latent}, as networks.{encoder} says them, got "
            f"one that reads {z}; give both the same"
        )
    if says != x:
        raise ValueError(
            f"networks.{decoder}: expected one that says samples of shape {x}, as networks.{encoder} reads them, got one "
            f"that says {says}; give both the same"
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


def encode(networks: dict[str, Any], x: np.ndarray, progress: bool = False) -> np.ndarray:
    """What networks.encoder says of x, such as z = E(x).   x (N, ...) -> (N, ...) float64"""
    found = [networks["encoder"]({"x": x[ids]}) for ids in pieces(len(x), 512, "encoding", progress)]
    return np.concatenate(found).astype(np.float64)


def decode(networks: dict[str, Any], z: np.ndarray, progress: bool = False) -> np.ndarray:
    """What networks.decoder says of z, such as x_hat = D(z).   z (N, latent), flattened -> (N, ...) float64"""
    latent = inputs(networks["decoder"].config)["z"].shape
    z = z.reshape(len(z), *latent).astype(np.float32)
    found = [networks["decoder"]({"z": z[ids]}) for ids in pieces(len(z), 512, "decoding", progress)]
    return np.concatenate(found).astype(np.float64)


def posterior(networks: dict[str, Any], x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and log variance of q(z|x).   x (N, ...) -> (N, latent) float64, twice"""
    mean, log_variance = np.split(encode(networks, x), 2, axis=-1)
    return mean.reshape(len(x), -1), log_variance.reshape(len(x), -1)


def plot_codes(
    path: Any,
    x: np.ndarray,
    labels: np.ndarray | None,
    codes: np.ndarray,
    decode: Callable[[np.ndarray], np.ndarray],
    order: np.ndarray,
    centre: np.ndarray,
    deviation: np.ndarray,
) -> None:
    """The picture of a latent: samples above what is decoded of their codes; what happens along each of the first units in
    `order` from -3 to 3 deviations, the others at their centre; of two units, the codes, by label, and what lies between.

    x (N, ...), labels (N,) or None, codes (N, latent), centre, deviation (latent,); decode: (M, latent) -> (M, ...).
    ImportError without matplotlib.
    """
    flat = codes.shape[1] == 2
    figure = new_figure(13.0, 8.8) if flat else new_figure(8.0, 9.4)
    if flat:
        (above, beside), (left, right) = figure.subplots(2, 2, height_ratios=(1, 4))
    else:
        above, beside = figure.subplots(2, 1, height_ratios=(1, 5))
    show_samples(above, np.stack([x[:SHOWN], decode(codes[:SHOWN])]), "held out, and what is decoded of their codes")
    along = np.linspace(-REACH, REACH, STEPS)
    z = np.tile(centre, (min(UNITS, len(order)), STEPS, 1))
    for row, unit in zip(z, order, strict=False):
        row[:, unit] += along * deviation[unit]
    walked = decode(z.reshape(-1, z.shape[-1])).reshape(*z.shape[:2], *x.shape[1:])
    show_samples(beside, walked, f"units {', '.join(map(str, order[:UNITS]))} from -3 to 3 deviations")
    if flat:
        _scatter(left, codes, labels)
        grid = np.stack(np.meshgrid(*[np.linspace(-REACH, REACH, SIDE)] * 2), -1)[::-1]
        decoded = decode((centre + deviation * grid).reshape(-1, 2)).reshape(SIDE, SIDE, *x.shape[1:])
        show_samples(right, decoded, "decoded, from -3 to 3 deviations each way")
    figure.savefig(path, dpi=120)


def show_samples(axes: Any, samples: np.ndarray, title: str) -> None:
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
    """(R, C, H, W, channels) -> (R (H + 1) - 1, C (W + 1) - 1) or with three channels, a grey line between the tiles."""
    r, c, h, w, channels = images.shape
    canvas = np.zeros((r, h + 1, c, w + 1, channels), np.float32)
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
