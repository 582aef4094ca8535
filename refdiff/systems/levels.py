"""Levels of latents, one above another, each with an encoder up and a decoder down: whether they fit, and what is drawn
along them for samples and measures, in NumPy and float64.

encoder1 reads x, encoder2 .. L read z, all say a mean and a log variance. decoder1 .. L read z; decoder1 says what the
likelihood of x has, the others a mean and a log variance of the latent below. A latent is (N, numbers) here, whatever its
shape."""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import numpy as np

from ..models import inputs
from ..random import Key, normal
from . import likelihoods
from .codes import check_pair
from .likelihoods import measured_log_likelihood, measured_log_normal
from .system import Asked

__all__ = ["Drawn", "check_levels", "draw_up", "drawn_anew", "entry", "latent_sizes", "means_down", "step_down"]

Networks = dict[str, Asked]


class Drawn(NamedTuple):
    """z: z_1 .. z_L, (N, numbers) each; forward: log q(z_l|z_{l-1}); reverse: log p(z_{l-1}|z_l); prior: log p(z_L); and
    divergence: KL(q(z_L|z_{L-1}) || N(0, 1)), of which log q / p at the top is a draw; (N,) each."""

    z: list[np.ndarray]
    forward: list[np.ndarray]
    reverse: list[np.ndarray]
    prior: np.ndarray
    divergence: np.ndarray


def entry(level: int) -> str:
    """What the encoder of a level reads."""
    return "x" if level == 1 else "z"


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
        check_pair(networks, parts=2, level=str(l), below=entry(l), said=1 if l == 1 else 2)


def latent_sizes(networks: dict[str, Any], levels: int) -> tuple[int, ...]:
    """Numbers of z_1 .. z_L, as the encoders say them; 0 where that is not known."""
    found = (getattr(networks.get(f"encoder{l}"), "outputs", 0) for l in range(1, levels + 1))
    return tuple(prod(outputs) if isinstance(outputs, tuple) else 0 for outputs in found)


def draw_up(networks: Networks, likelihood: str, x: np.ndarray, eps: list[np.ndarray]) -> Drawn:
    """The latents of x (N, ...) made with eps, (N, numbers) each level, and their log densities."""
    z, forward, reverse, below = [], [], [], x
    for l, noise in enumerate(eps, 1):
        mean, log_variance = _moments(networks[f"encoder{l}"], entry(l), below)
        above = mean + np.exp(0.5 * log_variance) * noise
        forward.append(measured_log_normal(above, mean, log_variance))
        if l == 1:
            flat, y = x.reshape(len(x), -1).astype(np.float64), _said(networks["decoder1"], "z", above)
            reverse.append(measured_log_likelihood(networks, likelihood, flat, y.reshape(len(x), -1)))
        else:
            reverse.append(measured_log_normal(below, *_moments(networks[f"decoder{l}"], "z", above)))
        z.append(above)
        below = above
    divergence = 0.5 * (np.expm1(log_variance) - log_variance + mean**2).sum(axis=-1)
    return Drawn(z, forward, reverse, measured_log_normal(below, 0.0, 0.0), divergence)


def step_down(networks: Networks, level: int, z: np.ndarray, eps: np.ndarray) -> np.ndarray:
    """z_{l-1} ~ p(z_{l-1} | z_l), level l from 2 on; eps = 0 for its mean.   (N, numbers), twice -> (N, numbers)"""
    mean, log_variance = _moments(networks[f"decoder{level}"], "z", z)
    return mean + np.exp(0.5 * log_variance) * eps


def means_down(networks: Networks, likelihood: str, level: int, z: np.ndarray) -> np.ndarray:
    """x of z_l, the mean of each level below taken.   (N, numbers) -> (N, ...) float64"""
    for l in range(level, 1, -1):
        z = step_down(networks, l, z, np.zeros(1))
    return likelihoods.mean(likelihood, _said(networks["decoder1"], "z", z))


def drawn_anew(networks: Networks, likelihood: str, level: int, z: np.ndarray, key: Key) -> np.ndarray:
    """x of z_l, each level below drawn.   (N, numbers) -> (N, ...) float64, the mean of p(x|z_1)"""
    for l in range(level, 1, -1):
        (size,) = latent_sizes({name: network.config for name, network in networks.items()}, l - 1)[l - 2 :]
        z = step_down(networks, l, z, normal(key(f"eps{l - 1}"), np.arange(len(z)), (size,), np.float64))
    return means_down(networks, likelihood, 1, z)


def _moments(network: Asked, name: str, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and log variance, as a network says them.   -> (N, numbers), twice"""
    mean, log_variance = np.split(_said(network, name, x), 2, axis=-1)
    return mean.reshape(len(x), -1), log_variance.reshape(len(x), -1)


def _said(network: Asked, name: str, x: np.ndarray) -> np.ndarray:
    """What a network says of x, a latent of its shape or flattened.   -> (N, ...) float64"""
    y: np.ndarray = network({name: x.reshape(len(x), *inputs(network.config)[name].shape).astype(np.float32)})
    return y.astype(np.float64)
