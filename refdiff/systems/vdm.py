"""Variational diffusion [VDM]: the noise schedule is learned with the denoiser. gamma(t) = -log SNR(t) rises from gamma_0 at
t = 0 to gamma_1 at t = 1, q(z_t|x) = N(alpha x, sigma^2) with sigma^2 = sigmoid(gamma), and the bound has three terms,

    -log p(x) <= KL(q(z_1|x) || p(z_1)) - E log p(x|z_0) + 1/2 E gamma'(t) |eps - eps_hat(z_t, gamma(t))|^2   [VDM] eq. 11

of which the last knows gamma's ends alone [VDM] eq. 18; but what lies between decides how much an estimate of it varies. So
denoiser and ends learn by the bound, the inside by the square of the last term, E L^2 = (E L)^2 + Var L, of each sample, so
that nothing ties samples together [VDM] appendix I.2."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from math import log, prod
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from .. import models
from ..evaluation.continuous_bound import bound_beside_line, plot_schedule
from ..models import Batch, Input, Tree
from ..process import predictor
from ..random import Key, normal
from ..sampling.methods import choose_sampler, threshold_of
from .codes import reads_x
from .compositions import constant
from .learned_gamma import Levels, OfLevels, check_schedule, draw_times, levels, levels_backward, schedule_of
from .steps import check_denoiser, samples_of
from .system import Networks, register_system

__all__ = ["VDM"]
SETTINGS = ("method", "steps", "eta", "variance", "threshold")


@dataclass(frozen=True)
class VDM(OfLevels):
    """The bound in bits per dimension, and for gamma the squared diffusion loss.   [VDM] eqs. 11, 14 and 17

    Networks: those of `learned_gamma`, and a denoiser, told 1000 (gamma - low) / (high - low) as t, whose answer plus z_t
    is eps_hat, as in the paper's code. T: 0 for continuous time, or so many steps. bins: levels of the data, from -1 to 1.
    """

    trains: tuple[str, ...] = ("denoiser", "ends", "gamma")
    T: int = 0
    bins: int = 256
    low: float = -13.3
    high: float = 5.0

    def __post_init__(self) -> None:
        if self.T < 0:
            raise ValueError(f"objective.T: expected a number of steps, or 0 for continuous time, got {self.T}")
        if self.bins < 2:
            raise ValueError(f"objective.bins: expected how many levels the data have, at least 2, got {self.bins}")
        if not -100 <= self.low < self.high <= 100:
            raise ValueError(f"objective.low, high: expected -100 <= low < high <= 100, got {self.low}, {self.high}")

    @property
    def told_a_unit(self) -> float:
        """How much more the denoiser is told as its t where gamma is 1 more."""
        return 1000 / (self.high - self.low)

    def reads(self, networks: dict[str, Any]) -> dict[str, Input]:
        return reads_x(networks, "denoiser")

    def draw(self, engine: ModuleType, data: Batch, key: Key, memory: Tree) -> Batch:
        """eps of z_t and eps_0 of z_0, and t; zero: what the denoiser is told where gamma is 0."""
        n, *shape = data["x"].shape
        noise = {name: engine.normal(key(name), n, tuple(shape)) for name in ("eps", "eps_0")}
        zero = constant(engine, -self.low * self.told_a_unit, engine.uniform(key("zero"), n), key)
        return {"x": data["x"], "zero": zero, **noise, **draw_times(engine, n, key, self.T)}

    def loss_and_gradient(
        self, engine: ModuleType, networks: dict[str, Any], batch: Batch, key: Key
    ) -> tuple[dict[str, Any], dict[str, Tree]]:
        x, eps, denoiser = batch["x"], batch["eps"], networks["denoiser"]
        share, bits = 1 / key.total, 1 / (prod(x.shape[1:]) * log(2))
        gamma, of_gamma = levels(engine, networks, batch, self.T)
        z, of_z = engine.diffuse(x, eps, gamma.here)
        rise, of_rise = engine.scale(gamma.here, self.told_a_unit)
        told, _ = engine.add(rise, batch["zero"])
        y, of_y = models.forward(engine, denoiser, {"x": z, "t": told}, key.under("denoiser"))
        error, of_error = engine.squared_error(engine.add(z, y)[0], eps)  # a mean, of which 1 / ln 2 makes bits
        half, of_half = engine.scale(gamma.slope, 0.5 / log(2))
        diffusion, _ = engine.multiply(error, half)
        prior, of_prior = engine.prior_kl(x, gamma.last)
        log_p, of_log_p = engine.levels_log_likelihood(x, batch["eps_0"], gamma.first, self.bins)
        prior, reconstruction = engine.scale(prior, bits)[0], engine.scale(log_p, -bits)[0]
        parts = {"diffusion": diffusion, "prior": prior, "reconstruction": reconstruction}
        terms = {"loss": engine.accumulate(*parts.values()), "gamma": engine.multiply(diffusion, diffusion)[0], **parts}

        deps_hat = engine.squared_error_backward(engine.scale(half, share)[0], of_error)
        d, g = models.backward(engine, denoiser, deps_hat, models.consume(of_y), ("x", "t"))
        dz = engine.accumulate(deps_hat, d["x"])
        dgamma = Levels(
            first=engine.levels_log_likelihood_backward(-bits * share, of_log_p),
            last=engine.prior_kl_backward(bits * share, of_prior),
            here=engine.accumulate(engine.diffuse_backward(dz, of_z), engine.scale_backward(d["t"], of_rise)),
            slope=engine.scale_backward(engine.scale(error, share)[0], of_half),
        )
        twice, _ = engine.scale(diffusion, 2.0)  # d L^2 = 2 L dL
        return terms, {"denoiser": g, **levels_backward(engine, networks, dgamma, twice, of_gamma)}


def check(networks: dict[str, Any], objective: VDM) -> None:
    """A denoiser of x and t that says one array like x, and the networks of a learned schedule."""
    check_denoiser(networks, objective, VDM.trains, outputs=1)
    check_schedule(networks)


def eps_hat(networks: Networks, objective: VDM, z: np.ndarray, gamma: np.ndarray) -> np.ndarray:
    """What the denoiser says plus z.   z (N, ...), gamma () or (N,) -> float64 like z"""
    t = np.broadcast_to(objective.told_a_unit * (gamma - objective.low), len(z))
    return z + networks["denoiser"]({"x": z, "t": t}).astype(np.float64)


def trajectory(
    networks: Networks, objective: VDM, settings: Any, ids: np.ndarray, key: Key, conditions: Batch
) -> Iterator[tuple[int, np.ndarray]]:
    """From z_1 to z_0 in `settings.steps` steps of the learned schedule, then to the mean of x, by the sampler that the
    settings choose: the paper's is `ancestral`, [VDM] eq. 33, or DDIM with eta = 1, which is the same."""
    learned, one, threshold = schedule_of(networks), samples_of(networks), threshold_of(settings)
    schedule, i = learned.discretised(settings.steps), np.arange(settings.steps + 1)
    gamma = learned.gamma(i / settings.steps)  # of step i + 1

    def noise(t: int) -> np.ndarray:
        return normal(key._replace(step=t)("noise"), ids, one, np.float64)

    z_1 = normal(key("z"), ids, one, np.float64)
    yield schedule.T, z_1.astype(np.float32)
    predict = predictor(schedule, lambda z, t: eps_hat(networks, objective, z, gamma[t - 1]), "eps", threshold)
    for t, z in choose_sampler(schedule, settings, predict, z_1, (i + 1).tolist(), noise):
        yield t, z.astype(np.float32)


def evaluate(networks: Networks, objective: VDM, data: Any, key: Key, progress: bool) -> dict[str, Any]:
    """What `bound_beside_line` says of held-out samples: the bound in its three terms, gamma, and what its inside is for."""
    learned, said = schedule_of(networks), partial(eps_hat, networks, objective)
    return bound_beside_line(learned, said, data.held_out, key, objective.bins, objective.T, progress=progress)


def plot(networks: Networks, objective: VDM, data: Any, found: dict[str, Any], path: str | Path) -> None:
    """gamma(t) beside the straight line between its ends; the diffusion loss over t with its spread, of both."""
    plot_schedule(found, path)


register_system("vdm", VDM, sys.modules[__name__])
