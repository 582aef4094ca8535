"""Diffusion of bits [DPM]: noise that throws bits anew, and a network that takes it back, bit by bit.

    q(x_t | x_{t-1}) = B(x_{t-1} (1 - beta_t) + beta_t / 2),   beta_t = 1 / (T - t + 1)
    p(x_{t-1} | x_t) = B(sigmoid(f(x_t, t) + log((1 - beta_t / 2) / (beta_t / 2)) x_t))

f is the network `denoiser`. Where it says 0, p is the perfect reverse process of throws of a coin, and the bound one bit a
dimension. Bits are -1 and 1 here, 0 and 1 in `process.binomial`; of signs the posterior q(x_{t-1} = 1 | x_t, x_0) is
1/2 + (c_0 x_0 + c_t x_t) / 2, without a product, and its entropy an affine function of x_0 x_t.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from math import log
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from .. import models
from ..models import Batch, Input, Tree
from ..objectives import Objective
from ..process import binomial_ancestral, binomial_marginal, binomial_term, draw_bits, reciprocal
from ..random import Key, uniform
from .bits import bits_reverse, bits_table, check_bits
from .codes import reads_x
from .conditions import bits_given
from .pictures import WAYS, plot_terms_and_samples
from .steps import among_few, check_denoiser, estimated, independent_bits, samples_of
from .system import Networks, register_system

__all__ = ["Binomial"]

CONDITIONS = ("known", "mask", "observed", "flipped")
SETTINGS = ()


@dataclass(frozen=True)
class Binomial(Objective):
    """T KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)), t uniform on 1 .. T: in the mean the whole bound, in bits of a
    sample, L_0 at t = 1 and L_T = 0 included.   [DPM]   T: steps from data to noise."""

    T: int = 100

    def __post_init__(self) -> None:
        if self.T < 1:
            raise ValueError(f"objective.T: expected at least one step from data to noise, got {self.T}")

    def reads(self, networks: dict[str, Any]) -> dict[str, Input]:
        return reads_x(networks, "denoiser")

    def check_samples(self, x: np.ndarray) -> None:
        """ValueError unless these are bits."""
        check_bits("data.source", x, "; take heartbeat or binary-digits, or images at a threshold")

    def draw(self, engine: ModuleType, data: Batch, key: Key, memory: Tree) -> Batch:
        """x_t = 1 where a uniform number is below 1/2 + alpha_bar_t x_0 / 2, else -1."""
        x0 = data["x"]
        n, shape = x0.shape[0], tuple(x0.shape[1:])
        t = engine.integers(key("t"), n, 1, self.T)
        one, _ = engine.multiply(x0, x0)  # of bits
        two, half, minus, half_signal, *_ = engine.columns(bits_table(self.T), t)
        bit = engine.less(engine.uniform(key("bits"), n, shape), engine.affine(half_signal, x0, half, one))
        return {"x": engine.affine(two, bit, minus, one), "t": t, "x0": x0}

    def loss_and_gradient(
        self, engine: ModuleType, networks: dict[str, Any], batch: Batch, key: Key
    ) -> tuple[dict[str, Any], dict[str, Tree]]:
        x, x0 = batch["x"], batch["x0"]
        one, _ = engine.multiply(x0, x0)
        _, half, _, _, of_x0, of_xt, odds, middle, slope, nats, unit = engine.columns(bits_table(self.T), batch["t"])
        y, saved = models.forward(engine, networks["denoiser"], {"x": x, "t": batch["t"]}, key.under("denoiser"))
        p = engine.affine(unit, engine.affine(of_x0, x0, of_xt, x), half, one)  # q(x_{t-1} = 1 | x_t, x_0)
        cross, of_cross = engine.bernoulli_log_likelihood(p, engine.affine(unit, y, odds, x))
        agree, count = (engine.sample_sum(engine.multiply(x0, other)[0])[0] for other in (x, x0))
        entropy = engine.affine(slope, agree, middle, count)
        loss = engine.affine(nats, cross, nats, entropy)  # -T (log p + entropy), in bits

        dy = engine.bernoulli_log_likelihood_backward(-self.T / log(2) / key.total, of_cross)
        _, g = models.backward(engine, networks["denoiser"], dy, models.consume(saved))
        return {"loss": loss}, {"denoiser": g}


def check(networks: dict[str, Any], objective: Binomial) -> None:
    """A denoiser that says one number for each bit."""
    check_denoiser(networks, objective, ("denoiser",), outputs=1)


def trajectory(
    networks: Networks, objective: Binomial, settings: Any, ids: np.ndarray, key: Key, conditions: Batch
) -> Iterator[tuple[int, np.ndarray]]:
    """(t, x_t) from throws of a coin at T on; the first state and each step are multiplied with what the conditions say, see
    `conditions`.   [DPM] section 2.5"""
    of_one, T = samples_of(networks), objective.T
    given, reverse = bits_given(conditions, (len(ids), *of_one)), bits_reverse(networks["denoiser"], T)

    def multiplied(x: np.ndarray, t: Any) -> np.ndarray:
        return given.multiply(reverse(given.hold(x), t))

    def drawn(t: int) -> np.ndarray:
        return uniform(key(f"step {t}"), ids, of_one)

    rate = 1 / (1 + np.exp(-given.multiply(np.zeros((len(ids), *of_one)))))
    start = draw_bits(rate, uniform(key("x"), ids, of_one))
    for t, x in chain([(T, start)], binomial_ancestral(reciprocal(T), multiplied, start, drawn)):
        yield t, (2 * given.hold(x) - 1).astype(np.float32)


def evaluate(networks: Networks, objective: Binomial, data: Any, key: Key, progress: bool) -> dict[str, Any]:
    """The bound on -log2 p(x), term by term, beside what independent pixels cost, and of data that are few different samples
    their entropy, with the share of samples that are one of them."""
    s, reverse = reciprocal(objective.T), bits_reverse(networks["denoiser"], objective.T)
    bits = (data.held_out.astype(np.float64) + 1) / 2

    def term(pair: np.ndarray, x0: np.ndarray, t: np.ndarray) -> np.ndarray:
        x_t = draw_bits(binomial_marginal(s, x0, t), uniform(key("bits"), pair, x0.shape[1:]))
        return binomial_term(s, x0, x_t, t, reverse(x_t, t), "nats")

    found = estimated(objective.T, bits, term, 0.0, key, progress)
    *_, (_, x) = trajectory(networks, objective, None, np.arange(500), key.under("sample"), {})
    return found | {"independent_bits": independent_bits(data.x, bits)} | among_few(data.x, x)


def plot(networks: Networks, objective: Binomial, data: Any, found: dict[str, Any], path: str | Path) -> None:
    """The terms over t, and samples."""
    ids = np.arange(WAYS[len(data.shape)])
    *_, (_, x) = trajectory(networks, objective, None, ids, Key(0).under("plot"), {})
    plot_terms_and_samples(found, x, path)


register_system("binomial", Binomial, sys.modules[__name__])
