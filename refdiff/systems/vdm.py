"""Variational diffusion [VDM]: noise whose level is learned with the denoiser. gamma(t) = -log SNR(t), t from 0 to 1, rises

    gamma(t) = gamma_0 + (gamma_1 - gamma_0) f(t),  f monotone from 0 to 1                                  [VDM] eq. 59

between two ends, and the bound has three terms, of which the inside f changes none, but the variance of an estimate of one:

    -log p(x) <= KL(q(z_1|x) || p(z_1)) - E log p(x|z_0) + 1/2 E gamma'(t) |eps - eps_hat(z_t, gamma(t))|^2   [VDM] eqs. 11, 17

So the denoiser and the ends learn by the bound, f by the square of its last term [VDM] appendix I.2, E L^2 = (E L)^2 + Var L."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import log, prod
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from .. import models
from ..errors import setting
from ..evaluation.continuous_bound import bound_numbers, diffusion_estimates, spread_over_time
from ..models import Batch, Input, TableConfig, Tree, inputs, trees
from ..objectives import Objective
from ..plotting import new_figure
from ..process import ContinuousSchedule, ancestral, between_ends, linear_gamma, predictor
from ..random import Key, normal
from ..sampling.methods import threshold_of
from .system import Asked, register_system

__all__ = ["VDM", "schedule_of"]

NAMES = ("denoiser", "ends", "gamma")
Networks = dict[str, Asked]


@dataclass(frozen=True)
class VDM(Objective):
    """The bound in bits per dimension, and of gamma the squared diffusion loss.   [VDM] eqs. 11, 14 and 17

    Networks: denoiser, whose answer plus z_t is eps_hat, and which is told 1000 (gamma - low) / (high - low) as its t; ends,
    a table of one row (b, w), gamma_0 = b and gamma_1 = b + log(1 + e^w); gamma, a `monotone` network, f.
    T: 0 for continuous time, or so many steps. bins: levels of the data, from -1 to 1.
    """

    trains: tuple[str, ...] = NAMES
    T: int = 0
    bins: int = 256
    low: float = -13.3
    high: float = 5.0

    def __post_init__(self) -> None:
        if self.T < 0:
            raise ValueError(f"objective.T: expected a number of steps, or 0 for continuous time, got {self.T}")
        if self.bins < 2:
            raise ValueError(f"objective.bins: expected how many levels the data have, at least 2, got {self.bins}")
        if not -np.inf < self.low < self.high < np.inf:
            raise ValueError(
                f"objective.low, high: expected finite numbers, low < high, got {self.low} and {self.high}"
            )

    def told(self, gamma: Any) -> Any:
        """What the denoiser is told as its t."""
        return 1000 / (self.high - self.low) * (gamma - self.low)

    def reads(self, networks: dict[str, Any]) -> dict[str, Input]:
        return {"x": inputs(networks["denoiser"])["x"]}

    def draw(self, engine: ModuleType, data: Batch, key: Key, memory: Tree) -> Batch:
        """eps of z_t and of z_0, and antithetic t; of T steps i / T, and (i - 1) / T beside it."""
        x = data["x"]
        n, shape = x.shape[0], tuple(x.shape[1:])
        one = engine.where(engine.integers(key("every"), n, 1, 1), 1.0, engine.uniform(key("any"), n))
        batch = {name: engine.normal(key(name), n, shape) for name in ("eps", "eps_0")}
        batch |= {"x": x, "index": engine.integers(key("row"), n, 0, 0), "low": engine.scale(one, self.told(0.0))[0]}
        if not self.T:
            return batch | {"t": engine.antithetic(key("t"), n, key.total)}
        s, t = engine.columns(_half_times(self.T), engine.antithetic_steps(key("t"), n, key.total, self.T))
        return batch | {"t": engine.affine(t, one, t, one), "s": engine.affine(s, one, s, one)}

    def loss_and_gradient(
        self, engine: ModuleType, networks: dict[str, Any], batch: Batch, key: Key
    ) -> tuple[dict[str, Any], dict[str, Tree]]:
        x, eps, share, g = batch["x"], batch["eps"], 1 / key.total, dict[str, Tree]()
        n, bits, scale = x.shape[0], 1 / (prod(x.shape[1:]) * log(2)), 1000 / (self.high - self.low)
        ends, of_ends = models.forward(engine, networks["ends"], batch)
        halves, of_split = engine.split(ends, 2)
        (gamma_0, of_column), (w, _) = (engine.reshape(half, (n,)) for half in halves)
        span, of_span = engine.softplus(w)
        inside, of_inside = models.forward(engine, networks["gamma"], batch)
        rise, of_rise = engine.multiply(span, inside["f"])
        gamma, _ = engine.add(gamma_0, rise)
        slope, of_slope = self._slope(engine, networks, batch, span, inside)

        z, of_z = engine.diffuse(x, eps, gamma)
        told, _ = engine.add(engine.scale(gamma, scale)[0], batch["low"])
        y, of_y = models.forward(engine, networks["denoiser"], {"x": z, "t": told}, key.under("denoiser"))
        error, of_error = engine.squared_error(engine.add(z, y)[0], eps)
        half, _ = engine.scale(slope, 0.5 / log(2))
        diffusion, _ = engine.multiply(error, half)
        prior, of_prior = engine.prior_kl(x, engine.add(gamma_0, span)[0])
        likelihood, of_likelihood = engine.levels_log_likelihood(x, batch["eps_0"], gamma_0, self.bins)
        terms = {"diffusion": diffusion, "prior": engine.scale(prior, bits)[0]}
        terms["reconstruction"] = engine.scale(likelihood, -bits)[0]
        terms = {"loss": engine.accumulate(*terms.values()), "gamma": engine.multiply(diffusion, diffusion)[0], **terms}

        deps_hat = engine.squared_error_backward(engine.scale(half, share)[0], of_error)
        d, g["denoiser"] = models.backward(engine, networks["denoiser"], deps_hat, models.consume(of_y), ("x", "t"))
        dgamma = engine.diffuse_backward(engine.accumulate(deps_hat, d["x"]), of_z)
        dgamma = engine.accumulate(dgamma, engine.scale_backward(d["t"], scale))
        dspan, df = engine.multiply_backward(dgamma, of_rise)
        dslope = engine.scale(error, 0.5 / log(2) * share)[0]
        twice, _ = engine.scale(diffusion, 2.0)  # d L^2 = 2 L dL
        dspan_slope, g["gamma"] = self._slope_backward(engine, networks, df, dslope, twice, of_inside, of_slope)
        dgamma_1 = engine.prior_kl_backward(bits * share, of_prior)
        dgamma_0 = engine.levels_log_likelihood_backward(-bits * share, of_likelihood)
        dgamma_0 = engine.accumulate(dgamma, dgamma_0, dgamma_1)
        dw = engine.softplus_backward(engine.accumulate(dspan, dspan_slope, dgamma_1), of_span)
        columns = tuple(engine.reshape_backward(column, of_column) for column in (dgamma_0, dw))
        _, g["ends"] = models.backward(engine, networks["ends"], engine.split_backward(columns, of_split), of_ends)
        return terms, g

    def _slope(
        self, engine: ModuleType, networks: dict[str, Any], batch: Batch, span: Any, inside: Batch
    ) -> tuple[Any, Any]:
        """gamma'(t), or T expm1(gamma_t - gamma_s), (N,)."""
        if not self.T:
            return engine.multiply(span, inside["slope"])
        before, of_before = models.forward(engine, networks["gamma"], {"t": batch["s"]})
        rise, of_rise = engine.multiply(span, engine.add(inside["f"], engine.scale(before["f"], -1.0)[0])[0])
        y, of_y = engine.expm1(rise)
        return engine.scale(y, self.T)[0], (of_rise, of_y, of_before)

    def _slope_backward(
        self, engine: ModuleType, networks: dict[str, Any], df: Any, dslope: Any, twice: Any, of_inside: Any, saved: Any
    ) -> tuple[Any, Tree]:
        """-> dspan (N,), and the gradient of the network gamma, each sample's times `twice`."""

        def backward(df: Any, dslope: Any, of_f: Any) -> Tree:
            dy = {"f": engine.multiply(df, twice)[0], "slope": engine.multiply(dslope, twice)[0]}
            return models.backward(engine, networks["gamma"], dy, of_f)[1]

        if not self.T:
            dspan, dslope = engine.multiply_backward(dslope, saved)
            return dspan, backward(df, dslope, of_inside)
        of_rise, of_y, of_before = saved
        dspan, dstep = engine.multiply_backward(engine.expm1_backward(engine.scale(dslope, self.T)[0], of_y), of_rise)
        none = engine.scale(dstep, 0.0)[0]
        now = backward(engine.accumulate(df, dstep), none, of_inside)
        return dspan, trees.add(engine, now, backward(engine.scale(dstep, -1.0)[0], none, of_before))


@lru_cache(maxsize=8)
def _half_times(T: int) -> np.ndarray:
    """Half of s and of t of each step, [(i - 1) / T, i / T] / 2.   (T + 1, 2)"""
    i = np.arange(T + 1)[:, None]
    table = np.maximum(np.concatenate([i - 1, i], axis=1), 0) / (2 * T)
    table.flags.writeable = False
    return table


def check(networks: dict[str, Any], objective: VDM) -> None:
    """ValueError unless there are a denoiser of x and t, a table of two numbers, and a monotone network."""
    if not set(objective.trains) <= set(NAMES) or not set(NAMES) <= set(networks):
        got = f"{', '.join(networks)}, of which {', '.join(objective.trains)} train"
        raise ValueError(f"networks: expected {', '.join(NAMES)}, got {got}")
    denoiser, ends, gamma = (networks[name] for name in NAMES)
    if set(inputs(denoiser)) != {"x", "t"} or getattr(denoiser, "outputs", 1) != 1:
        raise ValueError(
            f"networks.denoiser: expected one that reads x and t and says eps, got {type(denoiser).__name__} that reads "
            f"{', '.join(inputs(denoiser))}; leave classes, low_res and outputs out"
        )
    if not isinstance(ends, TableConfig) or (ends.rows, ends.width) != (1, 2):
        raise ValueError(
            f"networks.ends: expected a table of one row of two numbers, got {ends}; take {setting('networks.ends.width', 2)}"
        )
    if getattr(gamma, "says", ()) != ("f", "slope"):
        raise ValueError(f"networks.gamma.kind: expected monotone, got {type(gamma).__name__}")


def shape(networks: dict[str, Any], objective: VDM) -> tuple[int, ...]:
    return inputs(networks["denoiser"])["x"].shape


def schedule_of(networks: Networks) -> ContinuousSchedule:
    """What was learned. ValueError where rounding has made it flat."""
    b, w = np.asarray(networks["ends"]({"index": np.zeros(1, np.int64)}), np.float64)[0].tolist()

    def inside(t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        said = networks["gamma"]({"t": np.ravel(t)})
        return said["f"].reshape(np.shape(t)), said["slope"].reshape(np.shape(t))

    return between_ends(b, b + float(np.logaddexp(0, w)), inside)


def eps_hat(networks: Networks, objective: VDM, z: np.ndarray, gamma: np.ndarray) -> np.ndarray:
    """The denoiser's answer plus z.   z (N, ...), gamma (N,) -> float64 like z"""
    y = networks["denoiser"]({"x": z.astype(np.float32), "t": objective.told(gamma).astype(np.float32)})
    return z + y.astype(np.float64)


def trajectory(
    networks: Networks, objective: VDM, settings: Any, ids: np.ndarray, key: Key, conditions: Batch
) -> Iterator[tuple[int, np.ndarray]]:
    """The ancestral sampler on `settings.steps` steps of the learned schedule, and from z_0 the mean of x.   [VDM] eq. 33"""
    learned = schedule_of(networks)
    steps, form = learned.discretised(settings.steps), shape({"denoiser": networks["denoiser"].config}, objective)
    gamma = learned.gamma(np.arange(steps.T) / settings.steps)  # at step 1, 2, ...

    def model(z: np.ndarray, t: int) -> np.ndarray:
        return eps_hat(networks, objective, z, np.full(len(z), gamma[t - 1]))

    def noise(t: int) -> np.ndarray:
        return normal(key._replace(step=t)("noise"), ids, form, np.float64)

    z = normal(key("z"), ids, form, np.float64)
    yield steps.T, z.astype(np.float32)
    predict = predictor(steps, model, "eps", threshold_of(settings))
    for t, z in ancestral(steps, predict, z, range(1, steps.T + 1), noise):
        yield t, z.astype(np.float32)


def evaluate(networks: Networks, objective: VDM, data: Any, key: Key, progress: bool) -> dict[str, Any]:
    """The bound of held-out samples, in bits per dimension and its three terms, the ends of gamma, and by what factor the
    learned inside lowers the variance of an estimate of the diffusion loss below that of a straight line with these ends."""
    learned = schedule_of(networks)
    line = linear_gamma(float(learned.gamma(0.0)), float(learned.gamma(1.0)))

    def estimated(schedule: ContinuousSchedule) -> Any:
        def ask(z: np.ndarray, gamma: np.ndarray) -> np.ndarray:
            return eps_hat(networks, objective, z, gamma)

        return diffusion_estimates(schedule, ask, data.held_out, key, objective.T, progress=progress)

    found, of_line = estimated(learned), estimated(line)
    numbers = bound_numbers(learned, found, data.held_out, key, objective.bins)
    means, t = of_line.loss.mean(axis=1), np.linspace(0, 1, 101)
    return {
        **numbers,
        "gamma_0": float(learned.gamma(0.0)),
        "gamma_1": float(learned.gamma(1.0)),
        "line_diffusion_bits": float(means.mean()),
        "line_diffusion_bits_error": float(means.std(ddof=1)) / len(means) ** 0.5,
        "line_diffusion_variance": float(of_line.loss.var()),
        "variance_factor": float(of_line.loss.var()) / float(numbers["diffusion_variance"]),
        "t": t.tolist(),
        "gamma": learned.gamma(t).tolist(),
        "loss_over_t": list(spread_over_time(found).values()),
        "line_loss_over_t": list(spread_over_time(of_line).values()),
    }


def plot(networks: Networks, objective: VDM, data: Any, found: dict[str, Any], path: str | Path) -> None:
    """gamma(t) beside the straight line between its ends; the diffusion loss over t with its spread, of both."""
    figure = new_figure(9.6, 3.6)
    of_gamma, of_loss = figure.subplots(1, 2)
    of_gamma.plot([0, 1], [found["gamma_0"], found["gamma_1"]], color="0.6", label="straight line")
    of_gamma.plot(found["t"], found["gamma"], color="C0", label="learned")
    of_gamma.set(xlabel="t", ylabel=r"$\gamma(t) = -\log$ SNR", title="the noise schedule")
    for name, color, label in (("line_loss_over_t", "0.6", "straight line"), ("loss_over_t", "C0", "learned")):
        t, mean, sd = (np.array(values) for values in found[name])
        of_loss.plot(t, mean, color=color, label=label)
        of_loss.fill_between(t, mean - sd, mean + sd, color=color, alpha=0.25, linewidth=0)
    title = f"variance of the estimate: {found['variance_factor']:.2f} times less"
    of_loss.set(xlabel="t", ylabel="diffusion loss (bits per dimension)", title=title)
    for axes in (of_gamma, of_loss):
        axes.legend(frameon=False)
        axes.grid(True, color="0.92")
    figure.savefig(path, dpi=150)


register_system("vdm", VDM, sys.modules[__name__])
