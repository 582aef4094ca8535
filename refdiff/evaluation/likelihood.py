"""Bits per dimension: the variational bound of a trained model on a data set, term by term [DDPM] eq. 5 [IDDPM] section 3.

The bound is a sum over t of means over images and noise. Each mean is taken over a few random images, every t with its
own, so the standard error of the sum is the root of the sum of the squares of theirs. Terms fall about as 1 / t, and so do
their deviations: half of the images are spread evenly over t, the other half in proportion to 1 / t.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..errors import argument, one_of, setting
from ..models import Batch
from ..plotting import new_figure
from ..process import (
    SPACINGS,
    Schedule,
    fixed_large_log_variance,
    fixed_reverse,
    l_vlb_term,
    learned_reverse,
    posterior_log_variance,
    predictor,
    prior_matching,
    q_sample,
    step_log_variance,
)
from ..process.variational_bound import ReverseStep
from ..progress import pieces
from ..random import Key, integers, normal
from ..sampling import (
    Model,
    Trained,
    check_conditions,
    conditions_of,
    denoiser,
    encoder_function,
    network_function,
)
from ..sampling.methods import threshold_of
from ..sampling.settings import VARIANCES

__all__ = ["estimate_bound", "levels", "nll", "plot_nll", "samples_a_step"]

# (variance, first_variance): of the reverse steps, and whose convention holds at t = 1. The posterior's has one alone.
FIXED_LOG_VARIANCES = {
    ("posterior", "guided-diffusion"): posterior_log_variance, ("posterior", "refdiff"): posterior_log_variance,
    ("beta", "guided-diffusion"): fixed_large_log_variance, ("beta", "refdiff"): step_log_variance,
}  # fmt: skip


def nll(
    trained: Trained,
    x: np.ndarray,
    seed: int = 0,
    per_step: int = 16,
    variance: str | None = None,
    bins: int | Literal["data"] | None = "data",
    batch: int = 128,
    progress: bool = True,
    first_variance: str = "guided-diffusion",
    steps: int | None = None,
    conditions: Batch | None = None,
) -> dict[str, Any]:
    """The bound of a trained model on the data x, usually `held_out`, given their conditions: of -log p(x | y).

    x (N, ...): images in [-1, 1], or points. per_step: images for a step, on average over the T steps. At 16 the digits
    model takes 40 to 60 s on two busy cores, and the standard error is below 1 % of the result.
    steps: the bound of the chain of so many of the T steps [IDDPM] section 4, those that `sample.spacing` chooses, each as
    long as the gap between two, with as many images in all; None for all T. t counts its steps, `timesteps` says which.
    variance: of the reverse steps, "posterior", "beta" or "learned" [IDDPM] eq. 15; None for that of the settings.
    first_variance: which "beta" is at t = 1, where it decides L_0: "guided-diffusion", the posterior's at t = 2, as in
    published figures, or "refdiff", beta_1 itself; with "posterior" both are the same, and "learned" has its own.
    conditions: one for all of x, or one for each, by name, such as {"label": labels}: an image drawn for a step takes its
    own along. What is left out counts as none, so that a model with classes is measured under its null label, and `low_res`
    is made of x where training made it so. `sampling.conditions_of` gives those of data.
    x0_hat is held as `sample.threshold` says. bins: levels of the data, None for a density; "data": see `levels`.
    -> the dictionary of `estimate_bound`, with "variance", "first_variance" and, where `steps` is given, "nll_steps" and
    "timesteps", "given", what was told, if anything; with "learned" also the same network's bound
    with each of the fixed variances, of the same x_t: bits_per_dim_posterior, bits_per_dim_beta, and their _error.
    ValueError for x of another shape or range than the model's, for conditions that it does not take or lacks, for "learned"
    where the network learned no variance, and for steps that are not from 1 to T.
    """
    objective, network = trained.objective, trained.networks["denoiser"]
    variance = trained.settings.variance if variance is None else variance
    one_of("variance", variance, VARIANCES)
    if variance == "learned" and not objective.learned:
        raise ValueError(
            "variance: expected posterior or beta, since this network learns no variance, got 'learned'; train with "
            f"{setting('objective.variance', 'learned')}"
        )
    one_of("first_variance", first_variance, dict.fromkeys(name for _, name in FIXED_LOG_VARIANCES))
    if x.ndim < 2 or not len(x) or x.shape[1:] != trained.shape:
        raise ValueError(f"x: expected samples (N, {', '.join(map(str, trained.shape))}), got shape {x.shape}")
    told = conditions_of(trained._replace(classifier=None), {"x": x}) | (conditions or {})
    whole = check_conditions(trained.networks, objective, told, len(x))
    full = objective.schedule.build()
    timestep = np.arange(1, full.T + 1) if steps is None else SPACINGS[trained.settings.spacing](full, steps)
    schedule = full if len(timestep) == full.T else full.respaced(timestep.tolist())
    ask = network_function(trained.engine, network, trained.dtype)
    encode = encoder_function(trained)

    def model_of(chosen: np.ndarray) -> Model:
        network_model = denoiser(ask, encode({name: a[chosen] for name, a in whole.items()}), objective.learned)

        def model(x_t: np.ndarray, t: Any) -> tuple[np.ndarray, np.ndarray | None]:
            prediction, v = network_model(x_t.astype(np.float32), t)
            return prediction.astype(np.float64), None if v is None else v.astype(np.float64)

        return model

    names = ("learned", "posterior", "beta") if variance == "learned" else (variance,)

    def reverse(x_t: np.ndarray, i: Any, chosen: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        predict = predictor(full, model_of(chosen), objective.prediction, threshold_of(trained.settings))
        x0_hat, eps_hat, v = predict(x_t, timestep[i - 1])  # once, for all that is made of it
        steps = [
            learned_reverse(schedule, lambda *_: (x0_hat, v), "x0") if name == "learned"
            else fixed_reverse(schedule, lambda *_: (x0_hat, eps_hat), FIXED_LOG_VARIANCES[name, first_variance])
            for name in names
        ]  # fmt: skip
        return [step(x_t, i) for step in steps]

    bins = levels(x) if bins == "data" else bins
    per_step = max(per_step, per_step * full.T // schedule.T)
    found, *others = _estimate_bounds(schedule, reverse, x, seed, per_step, bins, batch, progress)
    beside = {
        f"bits_per_dim_{name}{error}": other[f"bits_per_dim{error}"]
        for name, other in zip(names[1:], others, strict=True)
        for error in ("", "_error")
    }
    head = {key: found[key] for key in ("bits_per_dim", "bits_per_dim_error")}
    given = {"given": ", ".join(sorted(told))} if told else {}
    chain = {} if steps is None else {"nll_steps": schedule.T, "timesteps": timestep.tolist()}
    return {"variance": variance, "first_variance": first_variance, **given, **chain, **head, **beside, **found}


def estimate_bound(
    schedule: Schedule,
    reverse: ReverseStep,
    x: np.ndarray,
    seed: int = 0,
    per_step: int = 16,
    bins: int | None = 256,
    batch: int = 128,
    progress: bool = False,
) -> dict[str, Any]:
    """The mean over x of the bound for reverse(x_t, t) -> (mean, log variance), in float64, by Monte Carlo.

    For every t, per_step samples of x or so, see `samples_a_step`, drawn with replacement, each with its own noise; L_T
    over all of x, exactly.
    -> bits_per_dim and bits_per_dim_error, its standard error; terms and term_errors, the lists L_0, ..., L_T and theirs;
    counts, of the samples behind L_0, ..., L_{T-1}; reconstruction (L_0), denoising (L_1 + ... + L_{T-1}), prior (L_T);
    dims, nll_samples (of x), bins.
    """
    return _estimate_bounds(schedule, lambda x_t, t, _: [reverse(x_t, t)], x, seed, per_step, bins, batch, progress)[0]


def _estimate_bounds(
    schedule: Schedule,
    reverse: Callable[[np.ndarray, Any, np.ndarray], list[tuple[np.ndarray, np.ndarray]]],
    x: np.ndarray,
    seed: int,
    per_step: int,
    bins: int | None,
    batch: int,
    progress: bool,
) -> list[dict[str, Any]]:
    """As `estimate_bound`, of several reverse steps of the same x_t, which are told of which of x each is."""
    if batch < 1:
        raise ValueError(f"batch: expected at least 1, got {batch}")
    if not len(x):
        raise ValueError(f"x: expected at least one sample (N, ...), got shape {np.shape(x)}")
    counts, x = samples_a_step(schedule.T, per_step), np.asarray(x, np.float64)
    step = np.repeat(np.arange(1, schedule.T + 1), counts)
    found: list[list[np.ndarray]] = []
    key = Key(seed).under("likelihood")
    for pair in pieces(len(step), batch, "likelihood", progress, "image"):
        t, chosen = step[pair], integers(key("choice"), pair, 0, len(x) - 1)
        x0 = x[chosen]
        eps = normal(key("eps"), pair, x.shape[1:], np.float64)
        x_t = q_sample(schedule, x0, t, eps)
        found.append([l_vlb_term(schedule, x0, x_t, t, *moments, bins)[0] for moments in reverse(x_t, t, chosen)])
    prior = float(prior_matching(schedule, x).mean())
    return [
        {
            **_summed(np.concatenate(each), counts, prior),
            "dims": int(np.prod(x.shape[1:])),
            "nll_samples": len(x),
            "bins": bins,
        }
        for each in zip(*found, strict=True)
    ]


def _summed(found: np.ndarray, counts: np.ndarray, prior: float) -> dict[str, Any]:
    """Means and their standard errors, of each step and of all.   found (sum of counts,): so many of each t"""
    first_of = np.cumsum(counts) - counts
    means = np.add.reduceat(found, first_of) / counts
    squares = np.add.reduceat((found - np.repeat(means, counts)) ** 2, first_of)
    terms = np.append(means, prior)
    errors = np.append(np.sqrt(squares / (counts - 1) / counts), 0.0)
    return {
        "bits_per_dim": float(terms.sum()),
        "bits_per_dim_error": float(np.linalg.norm(errors)),
        "reconstruction": float(terms[0]),
        "denoising": float(terms[1:-1].sum()),
        "prior": float(terms[-1]),
        "terms": terms.tolist(),
        "term_errors": errors.tolist(),
        "counts": counts.tolist(),
    }


def samples_a_step(T: int, per_step: int) -> np.ndarray:
    """per_step (1 + T w_t) / 2 rounded up, w_t = 1/t over the sum of all 1/t, and at least 2.   -> (T,) integers"""
    if per_step < 2:
        raise ValueError(f"per_step: expected at least 2 samples a step, for a standard error, got {per_step}")
    weight = 1 / np.arange(1, T + 1)
    return np.maximum(2, np.ceil(per_step * (0.5 + 0.5 * T * weight / weight.sum())).astype(int))


def levels(x: np.ndarray, known: tuple[int, ...] = (256, 17)) -> int | None:
    """How many levels the data have: 256 of bytes, 17 of the bundled digits, None for points, which have a density.

    x: images (N, H, W, C) in [-1, 1] or points (N, D); known: the numbers to try. ValueError for images of no such kind.
    """
    if x.ndim == 2:
        return None
    if not (x.min() >= -1 and x.max() <= 1):
        raise ValueError(f"x: expected images in [-1, 1], got {x.min():g} to {x.max():g}; scale them")
    for bins in known:
        place = (x.astype(np.float64) + 1) * ((bins - 1) / 2)
        if np.abs(place - np.round(place)).max() < 0.01:
            return bins
    raise ValueError(
        f"x: expected images of {' or '.join(map(str, known))} levels from -1 to 1, got others; say how many with "
        f"{argument('bins')}"
    )


def plot_nll(result: dict[str, Any], path: str | Path) -> None:
    """Draw what `nll` found: the terms over t, and their sum up to t.   ImportError without matplotlib."""
    terms, errors = np.array(result["terms"][:-1]), np.array(result["term_errors"][:-1])
    t = np.arange(1, len(terms) + 1)
    figure = new_figure(9.6, 3.6)
    each, total = figure.subplots(1, 2)
    shown = terms > 0  # L_0 of a density may be negative
    each.loglog(t[shown], terms[shown], color="C0", linewidth=1, marker="." if len(t) < 50 else None)
    low = np.maximum(terms - errors, terms / 100)
    each.fill_between(t[shown], low[shown], (terms + errors)[shown], color="C0", alpha=0.25, linewidth=0)
    each.set(xlabel="t", ylabel="$L_{t-1}$ (bits per dimension)", title="each term, with its standard error")
    sums, spread = np.cumsum(terms), np.sqrt(np.cumsum(errors**2))
    total.semilogx(t, sums, color="C0", linewidth=1.5)
    total.fill_between(t, sums - spread, sums + spread, color="C0", alpha=0.25, linewidth=0)
    title = f"all: {result['bits_per_dim']:.4f} ± {result['bits_per_dim_error']:.4f}"
    total.set(xlabel="t", ylabel="$L_0 + \\dots + L_{t-1}$ (bits per dimension)", title=title)
    for axes in (each, total):
        axes.grid(True, which="both", color="0.92")
    figure.savefig(path, dpi=150)
