"""Pictures of what systems have learned: what each latent decides, the terms of a bound, samples and their way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..plotting import grid, new_figure, to_uint8
from ..process import Schedule, q_sample
from ..random import Key, normal

__all__ = ["SHOWN", "WAYS", "plot_codes", "plot_levels", "plot_terms_and_samples", "plot_way"]

SHOWN, UNITS, STEPS, SIDE = 12, 10, 11, 15  # reconstructions; rows and columns of traversals; the side of a latent map
WAYS = {1: 2000, 3: 64}  # samples whose ways are shown: points, images
REACH = 3.0  # deviations from the centre to the end of a traversal


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
    _show_samples(above, np.stack([x[:SHOWN], decode(codes[:SHOWN])]), "held out, and what is decoded of their codes")
    along = np.linspace(-REACH, REACH, STEPS)
    z = np.tile(centre, (min(UNITS, len(order)), STEPS, 1))
    for row, unit in zip(z, order, strict=False):
        row[:, unit] += along * deviation[unit]
    walked = decode(z.reshape(-1, z.shape[-1])).reshape(*z.shape[:2], *x.shape[1:])
    _show_samples(beside, walked, f"units {', '.join(map(str, order[:UNITS]))} from -3 to 3 deviations")
    if flat:
        _scatter(left, codes, labels)
        places = np.stack(np.meshgrid(*[np.linspace(-REACH, REACH, SIDE)] * 2), -1)[::-1]
        decoded = decode((centre + deviation * places).reshape(-1, 2)).reshape(SIDE, SIDE, *x.shape[1:])
        _show_samples(right, decoded, "decoded, from -3 to 3 deviations each way")
    figure.savefig(path, dpi=120)


def plot_levels(bits: dict[str, float], rows: np.ndarray, path: str | Path) -> None:
    """The terms of a bound by name, bits a dimension, as bars; and samples (rows, columns, ...): the data above, then what
    remains of each where z_l and all above it are kept, and the rest is drawn anew: l = 1, and so up to l = L, where all but
    the top is new."""
    figure = new_figure(9.0, 6.5)
    bars, samples = figure.subplots(2, 1, height_ratios=(1, 1.6))
    bars.bar(list(bits), list(bits.values()))
    bars.set_ylabel("bits a dimension")
    _show_samples(samples, rows, "held out; below, z_l and above kept, l = 1 to L, the rest drawn anew")
    figure.savefig(path, dpi=120)


def plot_terms_and_samples(found: dict[str, Any], x: np.ndarray, path: str | Path) -> None:
    """L_{t-1} in bits over t, where T is large in the mean over neighbours; beside it images (N, H, W, C) in a square, or a
    line each where they are single rows of pixels; or points (N, D), by their first two numbers, or one's counts."""
    terms = np.array(found["terms"][:-1])
    each = max(1, len(terms) // 100)
    parts = np.array_split(np.arange(len(terms)), len(terms) // each)
    figure = new_figure(9, 4)
    left, right = figure.subplots(1, 2)
    left.plot([1 + part.mean() for part in parts], [terms[part].mean() for part in parts])
    left.set(xlabel="t", ylabel="bits of a sample", title=f"bound: {found['bound_bits']:.3f} bits")
    left.set_ylim(bottom=0 if terms.min() >= 0 else None)  # L_0 of a density may lie below
    right.set(title="samples")
    if x.ndim == 4:
        single = x.shape[1] == 1
        picture = to_uint8(x[:, 0]) if single else grid(x, scale=1)
        right.imshow(
            picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest", aspect="auto" if single else "equal"
        )
        right.axis("off")
    elif x.shape[1] == 1:
        right.hist(x[:, 0], bins=50)
    else:
        right.plot(*x.T[:2], ".", markersize=1.5)
        right.set(xlabel="x_1", ylabel="x_2")
    figure.savefig(path)


def plot_way(
    found: dict[str, Any], s: Schedule, data: Any, way: dict[int, np.ndarray], reverse: Callable[..., Any],
    path: str | Path,
) -> None:  # fmt: skip
    """Of points a column each of t = 0, T/2 and T: q(x_t) of what is held out above, way[t] in the middle, and beneath as
    arrows where the mean of reverse(x, t) takes x, at t = 2 for t = 0. Of all but points of two numbers the terms over
    t, and way[0]."""
    if data.shape != (2,):
        return plot_terms_and_samples(found, way[0], path)
    x0, times = data.held_out[: WAYS[1]].astype(np.float64), (0, s.T // 2, s.T)
    figure = new_figure(9, 9)
    rows = figure.subplots(3, len(times), sharex=True, sharey=True)
    places = np.stack(np.meshgrid(*[np.linspace(-3, 3, 25)] * 2), axis=-1).reshape(-1, 2)
    for column, t in enumerate(times):
        eps = normal(Key(0).under("plot")("q"), np.arange(len(x0)), x0.shape[1:], np.float64)
        for row, name, x in ((0, "q", q_sample(s, x0, t, eps)), (1, "p", way[t])):
            rows[row, column].plot(*x.T, ".", markersize=1.5, color=("black", "tab:blue")[row])
            rows[row, column].set(title=f"{name}, t = {t}", aspect="equal", xlim=(-3, 3), ylim=(-3, 3))
        moved = reverse(places, max(t, 2))[0] - places
        rows[2, column].quiver(*places.T, *moved.T, angles="xy", width=0.004)
        rows[2, column].set(title=f"drift of p, t = {max(t, 2)}", aspect="equal")
    figure.savefig(path)


def _show_samples(axes: Any, samples: np.ndarray, title: str) -> None:
    """Samples (rows, columns, ...): images as tiles, points joined row by row, anything else as the lines of its numbers."""
    axes.set_title(title, fontsize=9)
    if samples.ndim == 5:
        tiles = grid(samples.reshape(-1, *samples.shape[2:]), samples.shape[1], scale=1)
        axes.imshow(tiles, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axes.set_axis_off()
    elif samples.shape[2:] == (2,):
        for row in samples:
            axes.plot(*row.T, marker=".", linewidth=0.8)
        axes.set_aspect("equal")
    else:
        for row in samples:
            axes.plot(row.reshape(len(row), -1).T, linewidth=0.8)


def _scatter(axes: Any, codes: np.ndarray, labels: np.ndarray | None) -> None:
    axes.set_title("codes of what is held out" + ("" if labels is None else ", by label"), fontsize=9)
    points = axes.scatter(*codes.T, s=8, c=labels, cmap=None if labels is None else "tab10")
    axes.set_aspect("equal")
    if labels is not None:
        axes.legend(
            *points.legend_elements(num=None), fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5)
        )
