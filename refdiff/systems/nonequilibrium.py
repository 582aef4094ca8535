"""The first diffusion model [DPM]: a Gaussian kernel whose variances beta_t are learned with the reverse process:

    q(x_t | x_{t-1}) = N(sqrt(1 - beta_t) x_{t-1}, beta_t)
    p(x_{t-1} | x_t) = N(sqrt(1 - beta_t) x_t + sqrt(beta_t) m, sigmoid(logit beta_t + r / sqrt(T))),   (m, r) = f(x_t, t)

f is the network `denoiser`; beta_2 .. beta_T are the sigmoids of the table `beta`, with a rate and a clip of its own, and
stay as they are with learning_rate = 0. beta_1 is fixed, and with it p(x_0 | x_1) = N(sqrt(1 - beta_1) x_1, beta_1),
the forward kernel turned round: it has no parameters, so that no edge of the data makes the bound infinite, and is a
normalised density, so that the bound is one of log p(x_0). Where f says 0, p is the perfect reverse process of N(0, 1) data.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from math import log, prod
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from .. import models
from ..models import Batch, Input, Tree
from ..objectives import Objective
from ..process import l_vlb_term, prior_matching, q_sample
from ..random import Key, normal
from . import learned_beta
from .codes import reads_x
from .conditions import numbers_given
from .pictures import WAYS, plot_way
from .steps import check_denoiser, estimated, normal_bits, samples_of
from .system import Networks, register_system

__all__ = ["Nonequilibrium"]

CONDITIONS = ("known", "mask", "observed", "deviation")
SETTINGS = ()


@dataclass(frozen=True)
class Nonequilibrium(Objective):
    """(T - 1) KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)) + L_0 + L_T, t uniform on 2 .. T, of each sample its own: in the
    mean the whole bound on -log p(x_0), in bits of a sample.   [DPM]   T: steps; first: beta_1."""

    trains: tuple[str, ...] = ("denoiser", "beta")
    T: int = 40
    first: float = 1e-3

    def __post_init__(self) -> None:
        if self.T < 2:
            raise ValueError(f"objective.T: expected at least 2 steps, of which the first is fixed, got {self.T}")
        if not 0 < self.first < 1:
            raise ValueError(f"objective.first: expected beta_1, a number between 0 and 1, got {self.first}")

    def reads(self, networks: dict[str, Any]) -> dict[str, Input]:
        return reads_x(networks, "denoiser")

    def draw(self, engine: ModuleType, data: Batch, key: Key, memory: Tree) -> Batch:
        """t; the row of its logit, the same number counted from 0; and the last row, of T."""
        x0, last = data["x"], self.T - 2
        n = x0.shape[0]
        t, row = (engine.integers(key("t"), n, low, low + last) for low in (2, 0))
        end = engine.integers(key("end"), n, last, last)
        return {"x": x0, "t": t, "row": row, "end": end, "eps": engine.normal(key("eps"), n, tuple(x0.shape[1:]))}

    def loss_and_gradient(
        self, engine: ModuleType, networks: dict[str, Any], batch: Batch, key: Key
    ) -> tuple[dict[str, Any], dict[str, Tree]]:
        x0, weight = batch["x"], networks["beta"].p["weight"]
        table = learned_beta.bound_table(self.T, self.first, prod(x0.shape[1:]))
        one, log_first, of_square, constant, of_kl, bit = engine.columns(table, batch["t"])
        (logit, step), of_step = learned_beta.step_numbers(engine, weight, batch["row"], log_first, one)
        (_, ended), of_end = learned_beta.step_numbers(engine, weight, batch["end"], log_first, one)
        gamma, c0, ct, log_variance, root_alpha, root_beta = step
        x, of_x = engine.diffuse(x0, batch["eps"], gamma)
        y, of_y = models.forward(engine, networks["denoiser"], {"x": x, "t": batch["t"]}, key.under("denoiser"))
        (a, of_a), (b, of_b) = engine.multiply(x0, c0), engine.multiply(x, ct)  # the mean of q(x_{t-1} | x_t, x_0)
        p, of_p = learned_beta.reverse_kernel(engine, x, y, logit, root_alpha, root_beta, one, self.T)
        kl, of_divergence = engine.gaussian_kl(engine.add(a, b)[0], log_variance, *p)
        prior, of_prior = engine.prior_kl(x0, ended[0])
        first = learned_beta.first_term(engine, x0, of_square, constant, one)
        loss = engine.affine(one, engine.affine(of_kl, kl, bit, prior), one, first)

        share = 1 / log(2) / key.total
        dmean, dlog_variance, *dp = engine.gaussian_kl_backward((self.T - 1) * share, of_divergence)
        dx_p, dy, dlogit, droot_alpha, droot_beta = learned_beta.reverse_kernel_backward(engine, dp, of_p)
        (_, dc0), (dx_q, dct) = engine.multiply_backward(dmean, of_a), engine.multiply_backward(dmean, of_b)
        dinputs, g = models.backward(engine, networks["denoiser"], dy, models.consume(of_y), ("x",))
        dgamma = engine.diffuse_backward(engine.accumulate(dinputs["x"], dx_p, dx_q), of_x)
        dstep = (dgamma, dc0, dct, dlog_variance, droot_alpha, droot_beta)
        dgamma_T = engine.prior_kl_backward(share, of_prior)
        dweight = engine.accumulate(
            learned_beta.step_numbers_backward(engine, dlogit, dstep, of_step),
            learned_beta.gamma_backward(engine, dgamma_T, of_end),
        )
        return {"loss": loss}, {"denoiser": g, "beta": {"weight": dweight}}


def check(networks: dict[str, Any], objective: Nonequilibrium) -> None:
    """A denoiser that says m and r, and a table of logits."""
    check_denoiser(networks, objective, ("denoiser", "beta"), outputs=2)
    learned_beta.check_table(networks, objective.T)


def trajectory(
    networks: Networks, objective: Nonequilibrium, settings: Any, ids: np.ndarray, key: Key, conditions: Batch
) -> Iterator[tuple[int, np.ndarray]]:
    """(t, x_t) from N(0, 1) at T on, noise in the last step too, as p says; each is multiplied with what the conditions say,
    see `conditions`.   [DPM] section 2.5"""
    of_one = samples_of(networks)
    given = numbers_given(conditions, (len(ids), *of_one))
    _, reverse = learned_beta.learned_steps(networks["denoiser"], networks["beta"], objective.T, objective.first)
    step, name = (np.zeros((len(ids), *of_one)),) * 2, "x"
    for t in range(objective.T, -1, -1):
        mean, log_variance = given.multiply(*step)
        x = given.hold(mean + np.exp(0.5 * log_variance) * normal(key(name), ids, of_one, np.float64))
        yield t, x.astype(np.float32)
        if t > 0:
            step, name = reverse(x, t), f"step {t}"


def evaluate(networks: Networks, objective: Nonequilibrium, data: Any, key: Key, progress: bool) -> dict[str, Any]:
    """The bound on -log2 p(x), a density's, term by term, beside -log2 N(x; 0, 1), what it gains on that, and all beta_t."""
    s, reverse = learned_beta.learned_steps(networks["denoiser"], networks["beta"], objective.T, objective.first)
    x = data.held_out.astype(np.float64)

    def term(pair: np.ndarray, x0: np.ndarray, t: np.ndarray) -> np.ndarray:
        x_t = q_sample(s, x0, t, normal(key("eps"), pair, x0.shape[1:], np.float64))
        return l_vlb_term(s, x0, x_t, t, *reverse(x_t, t), None, "nats")[0]

    found = estimated(objective.T, x, term, float(prior_matching(s, x, "nats").mean()), key, progress)
    gaussian = normal_bits(x)
    return found | {"gaussian_bits": gaussian, "gain_bits": gaussian - found["bound_bits"], "beta": s.beta[1:].tolist()}


def plot(networks: Networks, objective: Nonequilibrium, data: Any, found: dict[str, Any], path: str | Path) -> None:
    """Of points: q(x_t) at t = 0, T/2 and T, samples of p at the same t, and where a step of p takes x; of images: the terms
    over t, and samples."""
    s, reverse = learned_beta.learned_steps(networks["denoiser"], networks["beta"], objective.T, objective.first)
    ids = np.arange(WAYS[len(data.shape)])
    plot_way(found, s, data, dict(trajectory(networks, objective, None, ids, Key(0).under("plot"), {})), reverse, path)


register_system("nonequilibrium", Nonequilibrium, sys.modules[__name__])
