"""Hierarchical variational autoencoders of 1, 2 and 4 levels on the mixture on the line, of which all is known: how far the
bound is above the entropy, and above the model's own -log p(x), which is an integral over one latent after another.

Every latent is one number. The encoders are linear, mean and log variance, and begin as the forward process of diffusion,
with the same noise at the top whatever the number of levels: an encoder that begins with more noise than signal leaves the
levels above it nothing to learn, and they stay at the prior. All is learned from there on, in as many steps for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log, prod
from pathlib import Path
from typing import Any

import numpy as np

from refdiff.config import Config, NetworkConfig, TrainConfig
from refdiff.data import MIXTURE_1D_DEVIATIONS, MIXTURE_1D_MEANS, MIXTURE_1D_WEIGHTS, DataConfig, load
from refdiff.models import PerceptronConfig, TableConfig
from refdiff.plotting import new_figure
from refdiff.process import from_alpha_bar
from refdiff.random import Key
from refdiff.systems import HierarchicalVAE, SystemModel
from refdiff.training import State, batch_indices, system_model
from refdiff.training.trainers import trainer

__all__ = ["LEVELS", "bounds_by_levels", "first_state", "hierarchy", "log_density", "plot_levels", "true_log_density"]

LEVELS = (1, 2, 4)
LEFT = 0.1  # alpha_bar at the top, where the encoders begin
REACH, NODES = 8.0, 2001  # of the trapezoid rule, in deviations, and its points
GRID = np.linspace(-3, 3, 401)[:, None]  # where densities are drawn


def hierarchy(levels: int, hidden: tuple[int, ...] = (64, 64), steps: int = 3000, seed: int = 0) -> Config:
    """The configuration: decoders with these hidden layers, and one learned variance of x."""
    networks: dict[str, Any] = {"noise": TableConfig(first=(-3.0,))}
    for l in range(1, levels + 1):
        networks[f"encoder{l}"] = PerceptronConfig((1,), (), (1,), parts=2, entry="x" if l == 1 else "z")
        networks[f"decoder{l}"] = PerceptronConfig((1,), hidden, (1,), parts=1 if l == 1 else 2, entry="z")
    return Config(
        DataConfig("mixture-1d"),
        {name: NetworkConfig(network) for name, network in networks.items()},
        objective=HierarchicalVAE(levels=levels, likelihood="gaussian"),
        train=TrainConfig(
            steps, 256, 1e-2, max_grad_norm=0.0, shards=1, log_every=100, grid_every=0, checkpoint_every=0
        ),
        engine="cpu",
        seed=seed,
    )


def first_state(config: Config) -> State:
    """The first state, with encoders z_l = sqrt(1 - beta) z_{l-1} + sqrt(beta) eps."""
    levels, weights = config.objective.levels, State.first(config).trees["p"]
    schedule = from_alpha_bar(LEFT ** (np.arange(levels + 1) / levels))
    for l in range(1, levels + 1):
        weight = np.array([[schedule.alpha[l] ** 0.5, 0.0]], np.float32)
        weights[f"encoder{l}"] = {
            "linear0": {"weight": weight, "bias": np.array([0, log(schedule.beta[l])], np.float32)}
        }
    return State.first(config, weights)


def trained_hierarchy(config: Config) -> SystemModel:
    """The model after all steps."""
    data, n, worker = load(config.data.source), config.train.batch, trainer(config, first_state(config))
    for step in range(1, config.train.steps + 1):
        ids = batch_indices(config.seed, (step - 1) * n, n, len(data))
        worker.step(data.rows(ids, Key(config.seed, step, 0, n, "data/")))
    return system_model(config, worker.state())


def log_density(model: SystemModel, x: np.ndarray) -> np.ndarray:
    """log p(x) of a model whose latents are one number each, by the trapezoid rule from the top down.   (N, 1) -> (N,)"""
    z = np.linspace(-REACH, REACH, NODES)
    log_p = _log_normal(z, 0.0, 0.0)
    for l in range(model.objective.levels, 1, -1):
        mean, log_variance = np.split(_asked(model.networks[f"decoder{l}"], z), 2, axis=1)
        reach = REACH * np.exp(0.5 * log_variance)
        to = np.linspace((mean - reach).min(), (mean + reach).max(), NODES)
        log_p, z = _integrated(_log_normal(to, mean, log_variance), log_p, z), to
    log_variance = model.networks["noise"]({"index": np.zeros(1, np.int64)}).astype(np.float64).item()
    return _integrated(
        _log_normal(x[:, 0].astype(np.float64), _asked(model.networks["decoder1"], z), log_variance), log_p, z
    )


def _asked(network: Any, z: np.ndarray) -> np.ndarray:
    return np.asarray(network({"z": z[:, None].astype(np.float32)}), np.float64)


def _log_normal(x: np.ndarray, mean: Any, log_variance: Any) -> np.ndarray:
    """log N(x; mean, e^l).   x (N,), mean (M, 1) or a number -> (M, N) or (N,)"""
    value: np.ndarray = -0.5 * ((x - mean) ** 2 * np.exp(-log_variance) + log_variance + log(2 * np.pi))
    return value


def _integrated(log_p: np.ndarray, log_weight: np.ndarray, z: np.ndarray) -> np.ndarray:
    """The logarithm of the integral of p(x|z) p(z) over z, without an underflow.   (M, N), (M,), (M,) -> (N,)"""
    joint = log_p + log_weight[:, None]
    largest = joint.max(axis=0)
    total: np.ndarray = np.log(np.exp(joint - largest).sum(axis=0) * (z[1] - z[0])) + largest
    return total


def true_log_density(x: np.ndarray) -> np.ndarray:
    """log p(x) of the mixture itself.   (N, 1) -> (N,)"""
    each = _log_normal(
        x[:, 0].astype(np.float64), MIXTURE_1D_MEANS[:, None], 2 * np.log(MIXTURE_1D_DEVIATIONS[:, None])
    )
    value: np.ndarray = np.log(MIXTURE_1D_WEIGHTS @ np.exp(each))
    return value


def bounds_by_levels(
    levels: Sequence[int] = LEVELS, hidden: tuple[int, ...] = (64, 64), steps: int = 3000, seed: int = 0
) -> dict[str, Any]:
    """{"true": -log p(x) of the mixture; and of each number of levels its bound on -log p(x), the standard error of that
    over the draws, the model's own -log p(x), what the bound misses of it, and its density at GRID}, in nats, means over
    the held-out points."""
    x = load("mixture-1d").held_out
    found: dict[str, Any] = {"true": float(-true_log_density(x).mean())}
    for count in levels:
        config = hierarchy(count, hidden, steps, seed)
        model = trained_hierarchy(config)
        measured = model.module.evaluate(model.networks, model.objective, load("mixture-1d"), Key(seed), False)
        nats, own = log(2) * prod(model.shape), float(-log_density(model, x).mean())
        found[f"{count}"] = {
            "bound": nats * measured["bits_per_dim"],
            "bound_error": nats * measured["bits_per_dim_error"],
            "minus_log_p": own,
            "gap": nats * measured["bits_per_dim"] - own,
            "density": np.exp(log_density(model, GRID)),
        }
    return found


def plot_levels(found: dict[str, Any], path: str | Path) -> None:
    """Bound and -log p(x) over the number of levels, beside that of the mixture; and the densities themselves."""
    figure = new_figure(9.6, 3.6)
    bounds, densities = figure.subplots(1, 2)
    levels = [name for name in found if name != "true"]
    for key, label in (("bound", "bound"), ("minus_log_p", "$-\\log p(x)$ of the model")):
        bounds.plot(levels, [found[name][key] for name in levels], marker="o", label=label)
    bounds.axhline(found["true"], color="0.6", label="$-\\log p(x)$ of the mixture")
    bounds.set(xlabel="levels", ylabel="nats, held-out points")
    densities.plot(GRID[:, 0], np.exp(true_log_density(GRID)), color="0.6", label="mixture")
    for name in levels:
        densities.plot(GRID[:, 0], found[name]["density"], linewidth=1.2, label=f"{name} level{'s' * (name != '1')}")
    densities.set(xlabel="x", ylabel="p(x)")
    for axes in (bounds, densities):
        axes.legend(frameon=False)
    figure.savefig(path, dpi=150)
