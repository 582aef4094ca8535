"""Variational autoencoder [VAE]: p(z) = N(0, 1), a decoder p(x|z), and beside it an encoder q(z|x) = N(mean, e^l); the bound

    log p(x) >= E_q log p(x|z) - KL(q(z|x) || p(z)),

is raised, its divergence weighed by beta [BetaVAE], or the tighter log 1/k sum_i p(x, z_i) / q(z_i|x), k samples [IWAE]."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite, prod
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from .. import models
from ..errors import one_of, setting
from ..models import Batch, Input, Tree, inputs
from ..objectives import Objective
from ..random import Key, normal
from . import likelihoods
from .bounds import bound_numbers, divergence_bound, importance_weighted_bound, log_terms
from .codes import check_pair, code_size, decode, pieces, plot_codes, posterior, reads_x
from .system import Asked, register_system

__all__ = ["VAE"]

DRAWS = 64  # of z for each sample that is measured
Networks = dict[str, Asked]


@dataclass(frozen=True)
class VAE(Objective):
    """-E_q log p(x|z) + beta KL(q(z|x) || N(0, 1)) in nats, z = mean + e^(l/2) eps; with samples k > 1 instead the tighter
    -log 1/k sum_i p(x|z_i) p(z_i) / q(z_i|x).   [VAE] eq. 3, [IWAE] eq. 8

    likelihood: "bernoulli" of (x + 1) / 2 in [0, 1], the decoder says logits; "gaussian", it says the mean, and the network
    `noise`, a table of one number, the log variance of all. beta: 1 for a bound. latent: numbers of z, as the encoder says.
    """

    trains: tuple[str, ...] = ("encoder", "decoder")
    likelihood: str = "bernoulli"
    beta: float = 1.0
    samples: int = 1
    latent: int = 16

    def __post_init__(self) -> None:
        one_of("objective.likelihood", self.likelihood, likelihoods.LIKELIHOODS)
        if not (self.beta > 0 and isfinite(self.beta)):
            raise ValueError(f"objective.beta: expected a finite number above 0, 1 for a bound, got {self.beta}")
        for name in ("samples", "latent"):
            if getattr(self, name) < 1:
                raise ValueError(f"objective.{name}: expected at least 1, got {getattr(self, name)}")
        if self.samples > 1 and self.beta != 1:
            raise ValueError(
                f"objective.beta: expected 1 with {self.samples} samples, whose bound has no divergence to weigh, got "
                f"{self.beta}; give {setting('objective.samples', 1)}"
            )
        if set(self.trains) in ({"encoder", "decoder"}, {"encoder", "decoder", "noise"}):  # as the likelihood asks
            object.__setattr__(self, "trains", ("encoder", "decoder", *likelihoods.noise(self.likelihood)))

    def reads(self, networks: dict[str, Any]) -> dict[str, Input]:
        return reads_x(networks)

    def draw(self, engine: ModuleType, data: Batch, key: Key, memory: Tree) -> Batch:
        """eps ~ N(0, 1), and what the likelihood is of: x, or (x + 1) / 2."""
        x = data["x"]
        eps = engine.normal(key("eps"), x.shape[0], (self.samples, self.latent))
        return {"x": x, "eps": eps, **likelihoods.draw(engine, self.likelihood, x, key)}

    def loss_and_gradient(
        self, engine: ModuleType, networks: dict[str, Any], batch: Batch, key: Key
    ) -> tuple[dict[str, Any], dict[str, Tree]]:
        k, encoder, decoder = self.samples, networks["encoder"], networks["decoder"]
        y, of_encoder = models.forward(engine, encoder, batch, key.under("encoder"))
        (mean, log_variance), of_split = engine.split(y, 2)
        mean, of_mean = engine.repeat(mean, k)
        log_variance, of_log_variance = engine.repeat(log_variance, k)
        z, of_z = engine.reparameterise(mean, log_variance, engine.reshape(batch["eps"], mean.shape)[0])
        y, of_decoder = models.forward(engine, decoder, {"z": z}, key.under("decoder"))
        likelihood, of_likelihood = likelihoods.log_likelihood(engine, networks, self.likelihood, batch, y, k)

        if k == 1:
            found = divergence_bound(engine, likelihood, mean, log_variance, self.beta, 1 / key.total)
        else:
            found = importance_weighted_bound(engine, likelihood, z, mean, log_variance, k, 1 / key.total)
        terms, dlikelihood, dz, dmean, dlog_variance = found
        dy, g = likelihoods.log_likelihood_backward(engine, networks, self.likelihood, dlikelihood, of_likelihood)
        d, g["decoder"] = models.backward(engine, decoder, dy, models.consume(of_decoder), ("z",))
        dmean_z, dlog_variance_z = engine.reparameterise_backward(engine.accumulate(d["z"], *dz), of_z)
        dmean = engine.repeat_backward(engine.accumulate(dmean_z, dmean), of_mean)
        dlog_variance = engine.repeat_backward(engine.accumulate(dlog_variance_z, dlog_variance), of_log_variance)
        dy = engine.split_backward((dmean, dlog_variance), of_split)
        _, g["encoder"] = models.backward(engine, encoder, dy, models.consume(of_encoder))
        return terms, g


def check(networks: dict[str, Any], objective: VAE) -> None:
    """ValueError unless the networks are what is trained, one reads what the other says, and the likelihood fits."""
    expected = ("encoder", "decoder", *likelihoods.noise(objective.likelihood))
    if set(objective.trains) != set(expected):
        raise ValueError(
            f"objective.trains: expected {', '.join(expected)}, got {', '.join(objective.trains)}; leave it out"
        )
    check_pair(networks, parts=2)
    likelihoods.check(networks, objective.likelihood, shape(networks, objective))


def follows(networks: dict[str, Any], objective: VAE) -> dict[str, Any]:
    """The numbers of z are those of the encoder."""
    return {"latent": code_size(networks) or objective.latent}


def shape(networks: dict[str, Any], objective: VAE) -> tuple[int, ...]:
    return inputs(networks["encoder"])["x"].shape


def evaluate(networks: Networks, objective: VAE, data: Any, key: Key, progress: bool) -> dict[str, Any]:
    """What `bound_numbers` says of held-out samples, z drawn 64 times for each; whatever beta is, the bound has 1."""
    x, found = data.held_out, []
    for ids in pieces(len(x), 4096 // DRAWS, "bound", progress):
        eps = normal(key("eps"), ids, (DRAWS, objective.latent), np.float64)
        found.append(log_terms(networks, objective.likelihood, x[ids], eps))
    return bound_numbers(prod(x.shape[1:]), *(np.concatenate(part) for part in zip(*found, strict=True)))


def decoded(networks: Networks, objective: VAE, z: np.ndarray) -> np.ndarray:
    """The mean of p(x|z).   z (N, latent) -> (N, ...) float64"""
    return likelihoods.mean(objective.likelihood, decode(networks, z))


def trajectory(
    networks: Networks, objective: VAE, settings: Any, ids: np.ndarray, key: Key, conditions: Batch
) -> Iterator[tuple[int, np.ndarray]]:
    """The mean of p(x|z), z ~ N(0, 1): in one step."""
    yield 0, decoded(networks, objective, normal(key("z"), ids, (objective.latent,))).astype(np.float32)


def plot(networks: Networks, objective: VAE, data: Any, found: dict[str, Any], path: str | Path) -> None:
    """Reconstructions, what happens along each unit, those with most divergence first, and the map of two units."""
    codes, order = posterior(networks, data.held_out)[0], np.argsort(found["unit_divergence_nats"])[::-1]
    held_out, prior = (data.held_out, data.held_out_labels), (np.zeros(objective.latent), np.ones(objective.latent))
    plot_codes(path, *held_out, codes, lambda z: decoded(networks, objective, z), order, *prior)


register_system("vae", VAE, sys.modules[__name__])
