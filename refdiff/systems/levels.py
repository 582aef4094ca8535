"""Levels of latents, one above another, each with an encoder up and a decoder down: whether they fit, log p(z_{l-1}|z_l) in
operations of an engine, and what is drawn along them for samples and measures, in NumPy and float64.

encoder1 reads x, encoder2 .. L read z, all say a mean and a log variance. decoder1 .. L read z; decoder1 says what the
likelihood of x has, the others a mean and a log variance of the latent below. A latent is (N, numbers) here, whatever its
shape."""

from __future__ import annotations

from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from .. import models
from ..models import Batch, Tree, inputs
from ..process import consistency_terms, gaussian_log_density, joint_ratio, kl_gaussian
from ..progress import pieces
from ..random import Key, normal
from . import likelihoods
from .codes import ask, ask_moments, check_pair, code_size
from .compositions import moments, moments_backward
from .system import Networks

__all__ = [
    "Drawn", "check_levels", "decoded", "decoded_backward", "draw_up", "drawn_anew", "latent_sizes", "means_down",
    "measured", "rows_kept", "step_down", "term_names",
]  # fmt: skip

DRAWS = 64  # of all latents for each sample that is measured


class Drawn(NamedTuple):
    """z: z_1 .. z_L, (N draws, numbers) each; forward: log q(z_l|z_{l-1}); reverse: log p(z_{l-1}|z_l); prior: log p(z_L),
    (N draws,) each; divergence: of each unit in KL(q(z_L|z_{L-1}) || N(0, 1)), of which log q / p at the top is a draw."""

    z: list[np.ndarray]
    forward: list[np.ndarray]
    reverse: list[np.ndarray]
    prior: np.ndarray
    divergence: np.ndarray


def check_levels(networks: dict[str, Any], levels: int) -> None:
    """ValueError unless each network reads what the one before it says.   networks: {name: configuration}"""
    for l in range(1, levels + 1):
        encoder = f"encoder{l}"
        if l > 1 and list(reads := inputs(networks[encoder])) == ["z"]:
            expected, got = networks[f"encoder{l - 1}"].outputs, reads["z"].shape
            if got != expected:
                raise ValueError(
                    f"networks.{encoder}: expected one that reads latents of shape {expected}, as networks.encoder{l - 1} "
                    f"says them, got one that reads {got}; give both the same"
                )
        check_pair(networks, parts=2, level=str(l), below="x" if l == 1 else "z", said=1 if l == 1 else 2)


def latent_sizes(networks: dict[str, Any], levels: int) -> tuple[int, ...]:
    """Numbers of z_1 .. z_L, as the encoders say them; 0 where that is not known."""
    return tuple(code_size(networks, f"encoder{l}") for l in range(1, levels + 1))


def term_names(levels: int) -> tuple[str, ...]:
    """The terms of the bound, from x up."""
    return ("reconstruction", *(f"consistency{l}" for l in range(1, levels)), "prior")


def decoded(
    engine: ModuleType,
    networks: dict[str, Any],
    likelihood: str,
    level: int,
    batch: Batch,
    below: Any,
    z: Any,
    key: Key,
) -> tuple[Any, Any]:
    """log p(z_{l-1}|z_l), below = z_{l-1}, z = z_l, and at the first level log p(x|z_1).   -> (N,) nats, saved"""
    name = f"decoder{level}"
    if level == 1:
        y, of_decoder = models.forward(engine, networks[name], {"z": z}, key.under(name))
        log_p, of_p = likelihoods.log_likelihood(engine, networks, likelihood, batch, y)
    else:
        p, of_decoder = moments(engine, networks[name], {"z": z}, key.under(name))
        log_p, of_p = engine.gaussian_log_likelihood(below, *p)
    return log_p, (of_p, of_decoder)


def decoded_backward(
    engine: ModuleType, networks: dict[str, Any], likelihood: str, level: int, dlog_p: Any, saved: Any
) -> tuple[Any, tuple[Any, ...], dict[str, Tree]]:
    """-> dz, that of z_{l-1} if there is one, and the gradients of the networks.   dlog_p (N,) or a number"""
    name, (of_p, of_decoder) = f"decoder{level}", saved
    if level == 1:
        dy, g = likelihoods.log_likelihood_backward(engine, networks, likelihood, dlog_p, of_p)
        d, g[name] = models.backward(engine, networks[name], dy, models.consume(of_decoder), ("z",))
        return d["z"], (), g
    dbelow, *dp = engine.gaussian_log_likelihood_backward(dlog_p, of_p)
    d, g_decoder = moments_backward(engine, networks[name], tuple(dp), of_decoder, ("z",))
    return d["z"], (dbelow,), {name: g_decoder}


def draw_up(networks: Networks, likelihood: str, x: np.ndarray, eps: list[np.ndarray]) -> Drawn:
    """The latents of x (N, ...) made with eps, (N, draws, numbers) each level, and their log densities."""
    z, forward, reverse, below, draws = [], [], [], x, eps[0].shape[1]
    for l, noise in enumerate(eps, 1):
        mean, log_variance = ask_moments(networks[f"encoder{l}"], below)
        if l == 1:  # all draws of z_1 have one mean
            mean, log_variance = (np.repeat(a, draws, axis=0) for a in (mean, log_variance))
        above = mean + np.exp(0.5 * log_variance) * noise.reshape(mean.shape)
        forward.append(gaussian_log_density(above, mean, log_variance))
        if l == 1:
            y = ask(networks["decoder1"], above)
            reverse.append(likelihoods.measured_log_likelihood(networks, likelihood, np.repeat(x, draws, axis=0), y))
        else:
            reverse.append(gaussian_log_density(below, *ask_moments(networks[f"decoder{l}"], above)))
        z.append(above)
        below = above
    zero = np.zeros_like(below)
    divergence, _ = kl_gaussian(mean, log_variance, zero, zero)
    return Drawn(z, forward, reverse, gaussian_log_density(below, zero, zero), divergence)


def measured(
    networks: Networks, likelihood: str, x: np.ndarray, eps: dict[str, int], key: Key, progress: bool
) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """64 draws of all latents for each of x (N, ...), eps: {name: numbers of z_l}, from l = 1 on. -> the joint ratio
    log p(x, z) / q(z|x), (N, 64); the terms of the bound of -log p(x) by name, (N, 64), that of the prior in closed form;
    and this divergence of each unit of z_L, in the mean."""
    found, units = [], []
    for ids in pieces(len(x), 4096 // DRAWS, "bound", progress):
        noise = [normal(key(name), ids, (DRAWS, size), np.float64) for name, size in eps.items()]
        d = draw_up(networks, likelihood, x[ids], noise)
        drawn = consistency_terms(d.forward, d.reverse, d.prior)[:-1]
        terms = [joint_ratio(d.forward, d.reverse, d.prior), *drawn, d.divergence.sum(axis=1)]
        found.append(np.stack(terms).reshape(-1, len(ids), DRAWS))
        units.append(d.divergence)
    ratio, *terms = np.concatenate(found, axis=1)
    return ratio, dict(zip(term_names(len(eps)), terms, strict=True)), np.concatenate(units).mean(axis=0)


def step_down(networks: Networks, level: int, z: np.ndarray, eps: np.ndarray) -> np.ndarray:
    """z_{l-1} ~ p(z_{l-1} | z_l), level l from 2 on; eps = 0 for its mean.   (N, numbers), twice -> (N, numbers)"""
    mean, log_variance = ask_moments(networks[f"decoder{level}"], z)
    return mean + np.exp(0.5 * log_variance) * eps


def means_down(networks: Networks, likelihood: str, level: int, z: np.ndarray) -> np.ndarray:
    """x of z_l, the mean of each level below taken.   (N, numbers) -> (N, ...) float64"""
    for l in range(level, 1, -1):
        z = step_down(networks, l, z, np.zeros(1))
    return likelihoods.mean(likelihood, ask(networks["decoder1"], z))


def drawn_anew(networks: Networks, likelihood: str, level: int, z: np.ndarray, key: Key) -> np.ndarray:
    """x of z_l, each level below drawn.   (N, numbers) -> (N, ...) float64, the mean of p(x|z_1)"""
    sizes = latent_sizes({name: network.config for name, network in networks.items()}, level)
    for l in range(level, 1, -1):
        z = step_down(networks, l, z, normal(key(f"eps{l - 1}"), np.arange(len(z)), (sizes[l - 2],), np.float64))
    return means_down(networks, likelihood, 1, z)


def rows_kept(networks: Networks, likelihood: str, x: np.ndarray, eps: dict[str, int], key: Key) -> np.ndarray:
    """x (N, ...), then for each level what is made of its z_l, drawn once, as `drawn_anew` does.   -> (L + 1, N, ...)"""
    noise = [normal(key(name), np.arange(len(x)), (1, size), np.float64) for name, size in eps.items()]
    rows = [x.astype(np.float64)]
    for level, z in enumerate(draw_up(networks, likelihood, x, noise).z, 1):
        rows.append(drawn_anew(networks, likelihood, level, z, key.under(f"kept{level}")))
    return np.stack(rows)
