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
from ..models import Batch, Input, Tree
from ..random import Key, normal
from . import likelihoods
from .bounds import bound_numbers, divergence_bound, importance_weighted_bound
from .codes import ask, ask_moments, check_pair, code_size, reads_x
from .compositions import moments, moments_backward
from .levels import measured
from .pictures import plot_codes
from .system import Networks, check_trains, register_system

__all__ = ["VAE"]
SETTINGS = ()


@dataclass(frozen=True)
class VAE(likelihoods.OfLikelihood):
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
        (mean, log_variance), of_encoder = moments(engine, encoder, batch, key.under("encoder"))
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
        _, g["encoder"] = moments_backward(engine, encoder, (dmean, dlog_variance), of_encoder)
        return terms, g


def check(networks: dict[str, Any], objective: VAE) -> None:
    """ValueError unless the networks are what is trained, one reads what the other says, and the likelihood fits."""
    check_trains(objective, ("encoder", "decoder", *likelihoods.noise(objective.likelihood)))
    check_pair(networks, parts=2)
    likelihoods.check(networks, objective.likelihood, objective.reads(networks)["x"].shape)


def follows(networks: dict[str, Any], objective: VAE) -> dict[str, Any]:
    """The numbers of z are those of the encoder."""
    return {"latent": code_size(networks) or objective.latent}


def evaluate(networks: Networks, objective: VAE, data: Any, key: Key, progress: bool) -> dict[str, Any]:
    """The bound of held-out samples, z drawn 64 times for each, as `bound_numbers` says it; whatever beta is, it has 1; and
    the divergence of each unit, in nats a sample."""
    one_level = networks | {"encoder1": networks["encoder"], "decoder1": networks["decoder"]}
    x, eps = data.held_out, {"eps": objective.latent}
    log_w, measures, units = measured(one_level, objective.likelihood, x, eps, key, progress)
    terms = {"reconstruction": measures["reconstruction"], "divergence": measures["prior"]}
    bound = {"bits_per_dim": terms["reconstruction"] + terms["divergence"]}
    found = bound_numbers(prod(x.shape[1:]), log_w, bound, terms)
    return found | {"unit_divergence_nats": units.tolist()}


def decoded(networks: Networks, objective: VAE, z: np.ndarray) -> np.ndarray:
    """The mean of p(x|z).   z (N, latent) -> (N, ...) float64"""
    return likelihoods.mean(objective.likelihood, ask(networks["decoder"], z))


def trajectory(
    networks: Networks, objective: VAE, settings: Any, ids: np.ndarray, key: Key, conditions: Batch
) -> Iterator[tuple[int, np.ndarray]]:
    """The mean of p(x|z), z ~ N(0, 1): in one step."""
    yield 0, decoded(networks, objective, normal(key("z"), ids, (objective.latent,))).astype(np.float32)


def plot(networks: Networks, objective: VAE, data: Any, found: dict[str, Any], path: str | Path) -> None:
    """Reconstructions, what happens along each unit, those with most divergence first, and the map of two units."""
    codes, order = ask_moments(networks["encoder"], data.held_out)[0], np.argsort(found["unit_divergence_nats"])[::-1]
    held_out, prior = (data.held_out, data.held_out_labels), (np.zeros(objective.latent), np.ones(objective.latent))
    plot_codes(path, *held_out, codes, lambda z: decoded(networks, objective, z), order, *prior)


register_system("vae", VAE, sys.modules[__name__])
