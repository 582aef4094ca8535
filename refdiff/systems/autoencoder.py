"""Autoencoder: a bottleneck z = E(x) and what a decoder makes of it, x_hat = D(z), by squared error. Linear, it finds the
space of the first principal components; deep, it bends that space. Nothing can be drawn: no z has a probability [VAE]."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from .. import models
from ..evaluation import standard_error
from ..models import Batch, Input, Tree
from ..objectives import Objective
from ..random import Key
from .codes import ask, check_pair, reads_x
from .pictures import plot_codes
from .system import Networks, check_trains, register_system

__all__ = ["Autoencoder"]


@dataclass(frozen=True)
class Autoencoder(Objective):
    """E mean((x - D(E(x)))^2), the mean over the elements of x."""

    trains: tuple[str, ...] = ("encoder", "decoder")

    def reads(self, networks: dict[str, Any]) -> dict[str, Input]:
        return reads_x(networks)

    def loss_and_gradient(
        self, engine: ModuleType, networks: dict[str, Any], batch: Batch, key: Key
    ) -> tuple[dict[str, Any], dict[str, Tree]]:
        encoder, decoder = networks["encoder"], networks["decoder"]
        z, of_encoder = models.forward(engine, encoder, batch, key.under("encoder"))
        y, of_decoder = models.forward(engine, decoder, {"z": z}, key.under("decoder"))
        loss, of_loss = engine.squared_error(y, batch["x"])

        dy = engine.squared_error_backward(1 / key.total, of_loss)
        d, g_decoder = models.backward(engine, decoder, dy, models.consume(of_decoder), ("z",))
        _, g_encoder = models.backward(engine, encoder, d["z"], models.consume(of_encoder))
        return {"loss": loss}, {"encoder": g_encoder, "decoder": g_decoder}


def check(networks: dict[str, Any], objective: Autoencoder) -> None:
    """ValueError unless encoder and decoder are what is trained, and one reads what the other says."""
    check_trains(objective, ("encoder", "decoder"))
    check_pair(networks, parts=1)


def evaluate(networks: Networks, objective: Autoencoder, data: Any, key: Key, progress: bool) -> dict[str, Any]:
    """The squared error of held-out samples, a mean over their elements, with its standard error over samples; beside it
    that of as many principal components of the training data, the least that a linear autoencoder can have of these; and
    the variance of each unit of the code."""
    x = data.held_out.astype(np.float64)
    z = ask(networks["encoder"], x, progress).reshape(len(x), -1)
    error = ((x - ask(networks["decoder"], z, progress)) ** 2).reshape(len(x), -1).mean(axis=1)
    beside = principal_error(data.x, x, z.shape[1]).mean()
    return {
        "squared_error": float(error.mean()),
        "squared_error_error": standard_error(error),
        "principal_components_error": float(beside),
        "latent": z.shape[1],
        "samples": len(x),
        "unit_variance": z.var(axis=0).tolist(),
    }


def principal_error(training: np.ndarray, x: np.ndarray, count: int) -> np.ndarray:
    """mean((x - x_hat)^2) of each sample, x_hat = m + V V^T (x - m), m the mean of the training data and V their first
    principal directions.   (M, ...), (N, ...) -> (N,)   [PPCA] section 2"""
    training = training.reshape(len(training), -1).astype(np.float64)
    mean = training.mean(axis=0)
    centred, x = training - mean, x.reshape(len(x), -1) - mean
    wide = centred.shape[1] > len(centred)
    # The scatter matrix has the same directions, and is small where there are many samples.
    _, _, v = np.linalg.svd(centred if wide else centred.T @ centred, full_matrices=False)
    return ((x - x @ v[:count].T @ v[:count]) ** 2).mean(axis=1)


def plot(networks: Networks, objective: Autoencoder, data: Any, found: dict[str, Any], path: str | Path) -> None:
    """Reconstructions, what happens along each unit of the code, those that vary most first, and the map of two units."""
    z = ask(networks["encoder"], data.held_out).reshape(len(data.held_out), -1)
    order = np.argsort(found["unit_variance"])[::-1]
    held_out, spread = (data.held_out, data.held_out_labels), (z.mean(axis=0), z.std(axis=0))
    plot_codes(path, *held_out, z, lambda z: ask(networks["decoder"], z), order, *spread)


register_system("autoencoder", Autoencoder, sys.modules[__name__])
