"""What systems with T steps from noise to data share: the bound by Monte Carlo over t, what it stands beside, pictures."""

from __future__ import annotations

from collections.abc import Callable
from math import log, prod
from pathlib import Path
from typing import Any

import numpy as np

from ..models import inputs
from ..plotting import new_figure
from ..process import Schedule, q_sample
from ..progress import Progress
from ..random import Key, integers, normal
from .system import Asked, check_trains

__all__ = [
    "SHOWN", "among_few", "check_denoiser", "estimated", "independent_bits", "normal_bits", "plot_terms_and_samples",
    "plot_way", "samples_of",
]  # fmt: skip

SHOWN = {1: 2000, 3: 64}  # samples of a picture: points, images
MEASURED = 100_000  # samples that measure a bound, about, over all t


def check_denoiser(networks: dict[str, Any], objective: Any, trains: tuple[str, ...], outputs: int) -> None:
    """ValueError unless these networks are trained, and the denoiser reads x and t alone and says `outputs` numbers for each
    element of x."""
    check_trains(objective, trains)
    denoiser = networks["denoiser"]
    reads = inputs(denoiser)
    if set(reads) != {"x", "t"}:
        raise ValueError(
            f"networks.denoiser: expected a network that reads x and t alone, got {type(denoiser).__name__}, which reads "
            f"{', '.join(reads)}; give networks.denoiser.classes=0, or take mlp or unet"
        )
    if (got := getattr(denoiser, "outputs", 1)) != outputs:
        raise ValueError(
            f"networks.denoiser.outputs: expected {outputs} for each element of a sample, got {got}; give "
            f"networks.denoiser.outputs={outputs}"
        )


def samples_of(networks: dict[str, Asked]) -> tuple[int, ...]:
    """The shape of one sample, as the denoiser reads it."""
    return inputs(networks["denoiser"].config)["x"].shape


def estimated(
    T: int, x: np.ndarray, term: Callable[..., np.ndarray], prior: float, key: Key, progress: bool
) -> dict[str, Any]:
    """A bound by Monte Carlo: of `MEASURED` pairs of a t and one of x (N, ...), or so, each t equally often and at least 16
    times, term(numbers of pairs, x0, t) -> L_{t-1} in nats of a sample; prior: the mean of L_T.

    -> bound_bits, of a sample, its standard error, both per dimension; L_0, the sum of L_1 .. L_{T-1}, L_T; terms and errors
    """
    each, dims, found = max(16, MEASURED // T), prod(x.shape[1:]), []
    step = np.repeat(np.arange(1, T + 1), each)
    with Progress("likelihood", len(step), "sample", progress) as bar:
        for start in range(0, len(step), 1000):
            pair = np.arange(start, min(start + 1000, len(step)))
            found.append(term(pair, x[integers(key("choice"), pair, 0, len(x) - 1)], step[pair]))
            bar.update(len(pair))
    bits, last = np.concatenate(found).reshape(T, each) / log(2), prior / log(2)
    means, errors = bits.mean(axis=1), bits.std(axis=1, ddof=1) / each**0.5
    bound, error = float(means.sum()) + last, float(np.linalg.norm(errors))
    return {
        "bound_bits": bound, "bound_bits_error": error, "bits_per_dim": bound / dims, "bits_per_dim_error": error / dims,
        "reconstruction_bits": float(means[0]), "diffusion_bits": float(means[1:].sum()), "prior_bits": last,
        "terms": [*means.tolist(), last], "term_errors": [*errors.tolist(), 0.0],
    }  # fmt: skip


def independent_bits(learned: np.ndarray, bits: np.ndarray) -> float:
    """-log2 p of bits (N, ...), 0 or 1, in the mean, were each independent with the rate of ones it has in the data learned
    from, (M, ...) of -1 and 1; those by Laplace's rule, (ones + 1) / (M + 2)."""
    rate = ((learned > 0).sum(axis=0) + 1) / (len(learned) + 2)
    return float(-np.where(bits == 1, np.log2(rate), np.log2(1 - rate)).reshape(len(bits), -1).sum(axis=1).mean())


def normal_bits(x: np.ndarray) -> float:
    """-log2 N(x; 0, 1) of samples (N, ...), in the mean."""
    return float(((x**2 + np.log(2 * np.pi)) / 2).reshape(len(x), -1).sum(axis=1).mean() / log(2))


def among_few(learned: np.ndarray, x: np.ndarray) -> dict[str, float]:
    """Where the data learned from are few different samples: their entropy in bits, and the share of x that is one of them;
    else nothing.   (M, ...), (N, ...)"""
    known, counts = np.unique(learned.reshape(len(learned), -1), axis=0, return_counts=True)
    if 10 * len(known) > len(learned):
        return {}
    p, kinds = counts / counts.sum(), {row.tobytes() for row in known}
    share = np.mean([row.tobytes() in kinds for row in x.reshape(len(x), -1).astype(known.dtype)])
    return {"entropy_bits": float(-(p * np.log2(p)).sum()), "samples_among_data": float(share)}


def plot_terms_and_samples(found: dict[str, Any], x: np.ndarray, path: str | Path) -> None:
    """L_{t-1} in bits over t, where T is large in the mean over neighbours; beside it images (N, H, W, C) in a square, or a
    line each where they are single rows of pixels."""
    terms = np.array(found["terms"][:-1])
    each, single = max(1, len(terms) // 100), x.shape[1] == 1
    parts = np.array_split(np.arange(len(terms)), len(terms) // each)
    figure = new_figure(9, 4)
    left, right = figure.subplots(1, 2)
    left.plot([1 + part.mean() for part in parts], [terms[part].mean() for part in parts])
    left.set(xlabel="t", ylabel="bits of a sample", title=f"bound: {found['bound_bits']:.3f} bits", ylim=(0, None))
    picture = x[:, 0, :, 0] if single else _square(x)
    right.imshow(picture, cmap="gray", vmin=-1, vmax=1, interpolation="nearest", aspect="auto" if single else "equal")
    right.set(title="samples")
    right.axis("off")
    figure.savefig(path)


def _square(x: np.ndarray) -> np.ndarray:
    """Images side by side in a square, with a grey line between."""
    n, height, width = x.shape[:3]
    across = int(np.ceil(n**0.5))
    grid = np.zeros((-(-n // across) * (height + 1), across * (width + 1)))
    for i, image in enumerate(x[..., 0]):
        row, column = i // across * (height + 1), i % across * (width + 1)
        grid[row : row + height, column : column + width] = image
    return grid[:-1, :-1]


def plot_way(
    found: dict[str, Any], s: Schedule, data: Any, way: dict[int, np.ndarray], reverse: Callable[..., Any],
    path: str | Path,
) -> None:  # fmt: skip
    """Of points a column each of t = 0, T/2 and T: q(x_t) of what is held out above, way[t] in the middle, and beneath as
    arrows where the mean of reverse(x, t) takes x, at t = 2 for t = 0. Of images the terms over t, and way[0]."""
    if len(data.shape) == 3:
        return plot_terms_and_samples(found, way[0], path)
    x0, times = data.held_out[: SHOWN[1]].astype(np.float64), (0, s.T // 2, s.T)
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
