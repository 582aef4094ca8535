"""Hierarchical variational autoencoder, Markovian [Luo22]: latents z_1 .. z_L, one upon another, z_0 = x, all learned but
the top, p(z_L) = N(0, 1); p(x, z) = p(z_L) prod_l p(z_{l-1}|z_l) and q(z|x) = prod_l q(z_l|z_{l-1}), by the bound

    log p(x) >= E_q [log p(x|z_1) - sum_{l<L} log q(z_l|z_{l-1}) / p(z_l|z_{l+1}) - KL(q(z_L|z_{L-1}) || p(z_L))].

The last is a divergence in closed form. The terms between, of consistency, are drawn: z_{l+1} was made of z_l."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from math import log, prod
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from .. import models
from ..errors import one_of
from ..models import Batch, Input, Tree, inputs
from ..objectives import Objective
from ..plotting import new_figure
from ..process import consistency_terms, joint_ratio
from ..random import Key, normal
from . import likelihoods
from .bounds import log_mean_weights
from .codes import pieces, show_samples
from .levels import check_levels, draw_up, drawn_anew, entry, latent_sizes, means_down, step_down
from .system import Asked, register_system

__all__ = ["HierarchicalVAE"]

DRAWS = 64  # of all latents for each sample that is measured
SHOWN = 12  # samples in a picture
Networks = dict[str, Asked]


@dataclass(frozen=True)
class HierarchicalVAE(Objective):
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
            raise ValueError(
                f"objective.levels: expected at least 1 level, got {self.levels}; 1 is a variational autoencoder"
            )
        one_of("objective.likelihood", self.likelihood, likelihoods.LIKELIHOODS)
        if all(re.fullmatch(r"(en|de)coder\d+|noise", name) for name in self.trains):  # as levels and likelihood ask
            object.__setattr__(self, "trains", self.names)

    @property
    def names(self) -> tuple[str, ...]:
        """Of all networks."""
        both = (f"{kind}{l}" for kind in ("encoder", "decoder") for l in range(1, self.levels + 1))
        return (*both, *likelihoods.noise(self.likelihood))

    def reads(self, networks: dict[str, Any]) -> dict[str, Input]:
        return {"x": inputs(networks["encoder1"])["x"]}

    def draw(self, engine: ModuleType, data: Batch, key: Key, memory: Tree) -> Batch:
        """eps1 .. epsL ~ N(0, 1), and what the likelihood is of."""
        x, sizes = data["x"], dict(enumerate(self.latents, 1))
        eps = {f"eps{l}": engine.normal(key(f"eps{l}"), x.shape[0], (size,)) for l, size in sizes.items()}
        return {"x": x, **eps, **likelihoods.draw(engine, self.likelihood, x, key)}

    def loss_and_gradient(
        self, engine: ModuleType, networks: dict[str, Any], batch: Batch, key: Key
    ) -> tuple[dict[str, Any], dict[str, Tree]]:
        L, share, z, log_q = self.levels, 1 / key.total, batch["x"], None
        saved, terms = {}, {}
        for l in range(1, L + 1):
            y, of_encoder = models.forward(engine, networks[f"encoder{l}"], {entry(l): z}, key.under(f"encoder{l}"))
            (mean, log_variance), of_split = engine.split(y, 2)
            above, of_z = engine.reparameterise(mean, log_variance, engine.reshape(batch[f"eps{l}"], mean.shape)[0])
            y, of_decoder = models.forward(engine, networks[f"decoder{l}"], {"z": above}, key.under(f"decoder{l}"))
            if l == 1:
                log_p, of_p = likelihoods.log_likelihood(engine, networks, self.likelihood, batch, y)
                terms["reconstruction"] = engine.scale(log_p, -1.0)[0]
            else:
                of_below, of_said = engine.split(y, 2)
                log_p, of_p = engine.gaussian_log_likelihood(z, *of_below)
                of_p = of_p, of_said
                terms[f"consistency{l - 1}"] = engine.add(log_q, engine.scale(log_p, -1.0)[0])[0]
            if l < L:
                log_q, of_q = engine.gaussian_log_likelihood(above, mean, log_variance)
            else:
                terms["prior"], of_q = engine.gaussian_kl(mean, log_variance)
            saved[l], z = (of_encoder, of_split, of_z, of_decoder, of_p, of_q), above
        loss = terms["reconstruction"]
        for name in list(terms)[1:]:
            loss, _ = engine.add(loss, terms[name])
        return {"loss": loss, **terms}, self._backward(engine, networks, saved, share)

    def _backward(self, engine: ModuleType, networks: Any, saved: dict[int, Any], share: float) -> dict[str, Tree]:
        """From the top down; `dz`: the gradients of z_l by all that stands above it."""
        g: dict[str, Tree] = {}
        dz: tuple[Any, ...] = ()
        for l in range(self.levels, 0, -1):
            of_encoder, of_split, of_z, of_decoder, of_p, of_q = saved[l]
            if l == 1:
                dy, g_noise = likelihoods.log_likelihood_backward(engine, networks, self.likelihood, -share, of_p)
                g |= g_noise
            else:
                dbelow, *dof_below = engine.gaussian_log_likelihood_backward(-share, of_p[0])
                dy = engine.split_backward(tuple(dof_below), of_p[1])
            d, g[f"decoder{l}"] = models.backward(
                engine, networks[f"decoder{l}"], dy, models.consume(of_decoder), ("z",)
            )
            if l < self.levels:
                dq, dmean, dlog_variance = engine.gaussian_log_likelihood_backward(share, of_q)
                dz = (*dz, dq)
            else:
                dmean, dlog_variance, _, _ = engine.gaussian_kl_backward(share, of_q)
            dmean_z, dlog_variance_z = engine.reparameterise_backward(engine.accumulate(d["z"], *dz), of_z)
            dof = engine.accumulate(dmean_z, dmean), engine.accumulate(dlog_variance_z, dlog_variance)
            dy, wrt = engine.split_backward(dof, of_split), ("z",) if l > 1 else ()
            d, g[f"encoder{l}"] = models.backward(engine, networks[f"encoder{l}"], dy, models.consume(of_encoder), wrt)
            dz = (d["z"], dbelow) if l > 1 else ()
        return g


def check(networks: dict[str, Any], objective: HierarchicalVAE) -> None:
    """ValueError unless the networks are what is trained, each reads what the one before says, and the likelihood fits."""
    if set(objective.trains) != set(objective.names):
        raise ValueError(
            f"objective.trains: expected {', '.join(objective.names)}, got {', '.join(objective.trains)}; leave it out"
        )
    check_levels(networks, objective.levels)
    likelihoods.check(networks, objective.likelihood, shape(networks, objective))
    if objective.latents != (said := latent_sizes(networks, objective.levels)):
        raise ValueError(
            f"objective.latents: expected {said}, as the encoders say, got {objective.latents}; leave it out"
        )


def follows(networks: dict[str, Any], objective: HierarchicalVAE) -> dict[str, Any]:
    """The numbers of each latent are those of its encoder."""
    return {"latents": latent_sizes(networks, objective.levels)}


def shape(networks: dict[str, Any], objective: HierarchicalVAE) -> tuple[int, ...]:
    return inputs(networks["encoder1"])["x"].shape


def evaluate(networks: Networks, objective: HierarchicalVAE, data: Any, key: Key, progress: bool) -> dict[str, Any]:
    """The bound of held-out samples both ways, all latents drawn 64 times for each: as the mean joint ratio, and as the sum
    of reconstruction, a consistency term a level, and the divergence from the prior; in bits a dimension, from above of
    -log p(x). Beside them the importance-weighted bound of these draws. Errors are standard errors over the draws."""
    x, found = data.held_out, []
    for ids in pieces(len(x), 4096 // DRAWS, "bound", progress):
        noise = [normal(key(f"eps{l}"), ids, (DRAWS, n), np.float64) for l, n in enumerate(objective.latents, 1)]
        eps = [e.reshape(len(ids) * DRAWS, -1) for e in noise]
        d = draw_up(networks, objective.likelihood, np.repeat(x[ids], DRAWS, axis=0), eps)
        terms = consistency_terms(d.forward, d.reverse, d.prior)
        parts = [joint_ratio(d.forward, d.reverse, d.prior), *terms[:-1], d.divergence]
        found.append(np.stack(parts).reshape(len(parts), len(ids), DRAWS))
    ratio, *terms = np.concatenate(found, axis=1)
    bits, (tight, spread) = 1 / (prod(x.shape[1:]) * log(2)), log_mean_weights(ratio)
    total = sum(terms)
    numbers = {
        "bound_bits": -bits * ratio.mean(),
        "bound_bits_error": bits * (ratio.var(axis=1).mean() / ratio.size) ** 0.5,
        "sum_of_terms_bits": bits * total.mean(),
        "sum_of_terms_bits_error": bits * (total.var(axis=1).mean() / ratio.size) ** 0.5,
        "reconstruction_bits": bits * terms[0].mean(),
        **{f"consistency{l}_bits": bits * terms[l].mean() for l in range(1, objective.levels)},
        "prior_bits": bits * terms[-1].mean(),
        "importance_weighted_bits": -bits * tight.mean(),
        "importance_weighted_bits_error": bits * (spread.mean() / len(x)) ** 0.5,
        "bound_nats": -ratio.mean(),
    }
    return {name: float(value) for name, value in numbers.items()} | {"draws": DRAWS, "samples": len(x)}


def trajectory(
    networks: Networks, objective: HierarchicalVAE, settings: Any, ids: np.ndarray, key: Key, conditions: Batch
) -> Iterator[tuple[int, np.ndarray]]:
    """Down from z_L ~ N(0, 1), a state a level: z_l drawn, x by the mean of each level below; t = l - 1, L - 1 to 0."""
    z = normal(key("eps"), ids, (objective.latents[-1],), np.float64)
    for l in range(objective.levels, 0, -1):
        yield l - 1, means_down(networks, objective.likelihood, l, z).astype(np.float32)
        if l > 1:
            z = step_down(networks, l, z, normal(key(f"eps{l - 1}"), ids, (objective.latents[l - 2],), np.float64))


def plot(networks: Networks, objective: HierarchicalVAE, data: Any, found: dict[str, Any], path: str | Path) -> None:
    """The terms of the bound, level by level; and samples of held-out ones whose z_l and all above are kept, the rest drawn
    anew: the first row shows the data, the next l = 1, and so up to l = L, where all but the top is new."""
    terms = ["reconstruction", *(f"consistency{l}" for l in range(1, objective.levels)), "prior"]
    figure = new_figure(9.0, 9.0)
    bars, samples = figure.subplots(2, 1, height_ratios=(1, 2))
    bars.bar(terms, [found[f"{name}_bits"] for name in terms])
    bars.set_ylabel("bits a dimension")
    x, key = data.held_out[:SHOWN], Key(0).under("plot")
    ids = np.arange(len(x))
    noise = [normal(key(f"eps{l}"), ids, (n,), np.float64) for l, n in enumerate(objective.latents, 1)]
    rows = [x.astype(np.float64)]
    for level, z in enumerate(draw_up(networks, objective.likelihood, x, noise).z, 1):
        rows.append(drawn_anew(networks, objective.likelihood, level, z, key.under(f"kept{level}")))
    show_samples(samples, np.stack(rows), "held out; below, z_l and above kept, l = 1 to L, the rest drawn anew")
    figure.savefig(path, dpi=120)


register_system("hierarchical_vae", HierarchicalVAE, sys.modules[__name__])
