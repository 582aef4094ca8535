"""Hierarchical variational autoencoder, Markovian [Luo22]: latents z_1 .. z_L, one upon another, z_0 = x, all learned but
the top, p(z_L) = N(0, 1); p(x, z) = p(z_L) prod_l p(z_{l-1}|z_l) and q(z|x) = prod_l q(z_l|z_{l-1}), by the bound

    log p(x) >= E_q [log p(x|z_1) - sum_{l<L} log q(z_l|z_{l-1}) / p(z_l|z_{l+1}) - KL(q(z_L|z_{L-1}) || p(z_L))].

The last is a divergence in closed form. The terms between, of consistency, are drawn: z_{l+1} was made of z_l."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ..errors import one_of
from ..models import Batch, Input, Tree
from ..random import Key, normal
from . import levels, likelihoods
from .bounds import bound_numbers
from .codes import reads_x
from .compositions import moments, moments_backward
from .pictures import SHOWN, plot_levels
from .system import Networks, check_trains, register_system

__all__ = ["HierarchicalVAE"]
SETTINGS = ()


@dataclass(frozen=True)
class HierarchicalVAE(likelihoods.OfLikelihood):
    """-log p(x|z_1) + sum_{l<L} log q(z_l|z_{l-1}) / p(z_l|z_{l+1}) + KL(q(z_L|z_{L-1}) || N(0, 1)) in nats, with z_l =
    mean + e^(l/2) eps.   [Luo22] section 'Hierarchical variational autoencoders'

    levels: L; networks encoder1 .. L, the first of which reads x, the others z, and decoder1 .. L, which read z. All say a
    mean and a log variance, but decoder1 what the `likelihood` has, see `VAE`. latents: the numbers of each z_l, as said.
    """

    trains: tuple[str, ...] = ()
    levels: int = 2
    likelihood: str = "bernoulli"
    latents: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.levels < 1:
            raise ValueError(f"objective.levels: expected at least 1 level, got {self.levels}; 1 makes a VAE of it")
        one_of("objective.likelihood", self.likelihood, likelihoods.LIKELIHOODS)
        if all(re.fullmatch(r"(en|de)coder\d+|noise", name) for name in self.trains):  # as levels and likelihood ask
            object.__setattr__(self, "trains", self.names)

    @property
    def names(self) -> tuple[str, ...]:
        """Of all networks."""
        both = (f"{kind}{l}" for kind in ("encoder", "decoder") for l in range(1, self.levels + 1))
        return (*both, *likelihoods.noise(self.likelihood))

    @property
    def noise(self) -> dict[str, int]:
        """Numbers of eps1 .. epsL."""
        return {f"eps{l}": size for l, size in enumerate(self.latents, 1)}

    def reads(self, networks: dict[str, Any]) -> dict[str, Input]:
        return reads_x(networks, "encoder1")

    def draw(self, engine: ModuleType, data: Batch, key: Key, memory: Tree) -> Batch:
        """eps1 .. epsL ~ N(0, 1), and what the likelihood is of."""
        x = data["x"]
        eps = {name: engine.normal(key(name), x.shape[0], (size,)) for name, size in self.noise.items()}
        return {"x": x, **eps, **likelihoods.draw(engine, self.likelihood, x, key)}

    def loss_and_gradient(
        self, engine: ModuleType, networks: dict[str, Any], batch: Batch, key: Key
    ) -> tuple[dict[str, Any], dict[str, Tree]]:
        z, share, log_q, terms, saved = batch["x"], 1 / key.total, None, [], []
        for l in range(1, self.levels + 1):
            read, name = {"x" if l == 1 else "z": z}, f"encoder{l}"
            q, of_encoder = moments(engine, networks[name], read, key.under(name))
            above, of_z = engine.reparameterise(*q, engine.reshape(batch[f"eps{l}"], q[0].shape)[0])
            log_p, of_p = levels.decoded(engine, networks, self.likelihood, l, batch, z, above, key)
            minus, _ = engine.scale(log_p, -1.0)
            terms.append(minus if l == 1 else engine.add(log_q, minus)[0])  # log q of the level below
            log_q, of_q = engine.gaussian_log_likelihood(above, *q) if l < self.levels else engine.gaussian_kl(*q)
            saved.append((of_encoder, of_z, of_p, of_q))
            z = above
        named = dict(zip(levels.term_names(self.levels), [*terms, log_q], strict=True))

        g: dict[str, Tree] = {}
        dz: tuple[Any, ...] = ()  # of z_l, by all that stands above it
        for l in range(self.levels, 0, -1):
            of_encoder, of_z, of_p, of_q = saved[l - 1]
            dz_p, dbelow, g_p = levels.decoded_backward(engine, networks, self.likelihood, l, -share, of_p)
            if l < self.levels:
                dlog_q, *dq = engine.gaussian_log_likelihood_backward(share, of_q)
                dz = (*dz, dlog_q)
            else:
                dq = engine.gaussian_kl_backward(share, of_q)[:2]
            dof_z = engine.reparameterise_backward(engine.accumulate(dz_p, *dz), of_z)
            dmean, dlog_variance = (engine.accumulate(*both) for both in zip(dof_z, dq, strict=True))
            wrt, name = ("z",) if l > 1 else (), f"encoder{l}"
            d, g[name] = moments_backward(engine, networks[name], (dmean, dlog_variance), of_encoder, wrt)
            dz, g = (*d.values(), *dbelow), g | g_p
        return {"loss": engine.accumulate(*named.values()), **named}, g


def check(networks: dict[str, Any], objective: HierarchicalVAE) -> None:
    """ValueError unless the networks are what is trained, each reads what the one before says, and the likelihood fits."""
    check_trains(objective, objective.names)
    levels.check_levels(networks, objective.levels)
    likelihoods.check(networks, objective.likelihood, objective.reads(networks)["x"].shape)


def follows(networks: dict[str, Any], objective: HierarchicalVAE) -> dict[str, Any]:
    """The numbers of each latent are those of its encoder."""
    return {"latents": levels.latent_sizes(networks, objective.levels)}


def evaluate(networks: Networks, objective: HierarchicalVAE, data: Any, key: Key, progress: bool) -> dict[str, Any]:
    """The bound of held-out samples both ways, all latents drawn 64 times for each: as the mean joint ratio, and as the sum
    of reconstruction, a consistency term a level, and the divergence from the prior; as `bound_numbers` says it."""
    ratio, terms, _ = levels.measured(networks, objective.likelihood, data.held_out, objective.noise, key, progress)
    both = {"bits_per_dim": -ratio, "sum_of_terms_bits": np.sum(list(terms.values()), axis=0)}
    return bound_numbers(prod(data.held_out.shape[1:]), ratio, both, terms)


def trajectory(
    networks: Networks, objective: HierarchicalVAE, settings: Any, ids: np.ndarray, key: Key, conditions: Batch
) -> Iterator[tuple[int, np.ndarray]]:
    """Down from z_L ~ N(0, 1), a state a level: z_l drawn, x by the mean of each level below; t = l - 1, L - 1 to 0."""
    z = normal(key("eps"), ids, (objective.latents[-1],), np.float64)
    for l in range(objective.levels, 0, -1):
        yield l - 1, levels.means_down(networks, objective.likelihood, l, z).astype(np.float32)
        if l > 1:
            z = levels.step_down(
                networks, l, z, normal(key(f"eps{l - 1}"), ids, (objective.latents[l - 2],), np.float64)
            )


def plot(networks: Networks, objective: HierarchicalVAE, data: Any, found: dict[str, Any], path: str | Path) -> None:
    """The terms of the bound; and what each level decides: held-out samples, of which less is kept in each row."""
    terms, x = {name: found[f"{name}_bits"] for name in levels.term_names(objective.levels)}, data.held_out[:SHOWN]
    plot_levels(terms, levels.rows_kept(networks, objective.likelihood, x, objective.noise, Key(0).under("plot")), path)


register_system("hierarchical_vae", HierarchicalVAE, sys.modules[__name__])
