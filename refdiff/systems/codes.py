"""What models with an encoder and a decoder share: whether the two fit, and what a trained one says, in NumPy."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ..errors import setting
from ..models import Input, inputs
from ..progress import pieces

__all__ = ["ask", "ask_moments", "check_pair", "code_size", "reads_x"]


def code_size(networks: dict[str, Any], encoder: str = "encoder") -> int:
    """Numbers of a latent, as networks.encoder, or the one of that name, says it; 0 where that is not known."""
    outputs = getattr(networks.get(encoder), "outputs", 0)
    return prod(outputs) if isinstance(outputs, tuple) else 0


def check_pair(networks: dict[str, Any], parts: int, level: str = "", below: str = "x", said: int = 1) -> None:
    """ValueError unless networks.encoder reads x, or what else is `below`, and says a latent in so many parts, and
    networks.decoder reads that latent, z, and says what is below, `said` times.   networks: {name: configuration}; level:
    the end of both names
    """
    encoder, decoder = f"encoder{level}", f"decoder{level}"
    for name, entry, expected in ((encoder, below, parts), (decoder, "z", said)):
        config, reads = networks[name], inputs(networks[name])
        if list(reads) != [entry]:
            raise ValueError(
                f"networks.{name}: expected a network that reads {entry} alone, got {type(config).__name__}, which reads "
                f"{', '.join(reads) or 'nothing'}; give {setting(f'networks.{name}.entry', entry)}, or a network that does"
            )
        if not isinstance(getattr(config, "outputs", None), tuple):
            raise ValueError(
                f"networks.{name}.kind: expected a network that says the shape `outputs`, such as perceptron or "
                f"conv_{name.rstrip(level)}, got {type(config).__name__}; take one of these"
            )
        if (got := getattr(config, "parts", 1)) != expected:
            meant = "a mean and a log variance" if expected == 2 else "one number for each that it says"
            raise ValueError(
                f"networks.{name}.parts: expected {expected}, {meant}, got {got}; give "
                f"{setting(f'networks.{name}.parts', expected)}"
            )
    x, latent = inputs(networks[encoder])[below].shape, networks[encoder].outputs
    z, says = inputs(networks[decoder])["z"].shape, networks[decoder].outputs
    if z != latent:
        raise ValueError(
            f"networks.{decoder}: expected one that reads latents of shape {latent}, as networks.{encoder} says them, got "
            f"one that reads {z}; give both the same"
        )
    if says != x:
        raise ValueError(
            f"networks.{decoder}: expected one that says samples of shape {x}, as networks.{encoder} reads them, got one "
            f"that says {says}; give both the same"
        )


def reads_x(networks: dict[str, Any], name: str = "encoder") -> dict[str, Input]:
    """The x of networks.encoder, or the one of that name, all that is read of the data.   networks: {name: configuration}"""
    return {"x": inputs(networks[name])["x"]}


def ask(network: Any, x: np.ndarray, progress: bool = False) -> np.ndarray:
    """What a network with one entry says of x, of that entry's shape or flattened.   network: Asked; (N, ...) -> (N, ...)
    float64"""
    ((name, entry),) = inputs(network.config).items()
    x = x.reshape(len(x), *entry.shape)
    said = [network({name: x[ids]}) for ids in pieces(len(x), 512, "networks", progress)]
    return np.concatenate(said).astype(np.float64)


def ask_moments(network: Any, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and log variance, as a network of two parts says them of x.   -> (N, numbers) float64, twice"""
    mean, log_variance = np.split(ask(network, x), 2, axis=-1)
    return mean.reshape(len(x), -1), log_variance.reshape(len(x), -1)
