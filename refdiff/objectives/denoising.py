"""Denoising: the squared error of what a network says of x_t, weighted; and with a learned variance the hybrid loss."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

from .. import models
from ..errors import one_of
from ..models import Batch, Input, Tree
from ..random import Key
from .importance import LARGEST_T, TIMESTEPS, first_losses, losses_after
from .objective import Networks, Objective, entries_read
from .schedule import ScheduleConfig
from .tables import WEIGHTINGS, noise_table, step_table, variational_table

__all__ = ["PREDICTIONS", "VARIANCES", "Denoising", "downscaled"]

PREDICTIONS = ("eps", "x0", "v", "mu")
VARIANCES = ("fixed", "learned")


@dataclass(frozen=True)
class Denoising(Objective):
    """E over t and eps of w_t |target - network(x_t, t, conditions)|^2.   [DDPM] eq. 14

    Each network is asked once, so that a condition reaches every term of the loss.

    schedule: of the noise. prediction: "eps", "x0", "v" or "mu", what the network says. weighting: w_t, "simple" (1), "vlb",
    "min_snr" or "p2". variance: "fixed", or "learned": the network then says v too, and `vlb_weight` L_vlb is added, in
    which the mean is held still [IDDPM] eq. 16; one drawn t stands for the sum over all: a sample adds `vlb_weight` T L_t.
    bins: levels of the data in its L_0, 0 for data that have a density.
    timesteps: t is drawn "uniform", or by "importance": by how large the loss at each t was of late, whatever the loss is,
    with weights that leave its expectation and the gradient's as they were [IDDPM] eq. 18; then the terms are the weighted
    ones, and beside them stand t and `unweighted`.
    downscale: the entry `low_res` is made from x, the means of blocks of so many pixels a side, a power of two; 0: the data
    have it, where the denoiser reads one.
    encoders: ((condition, network), ...): networks that make conditions of entries and learn through them.
    null: ((entry, value, rate), ...): so often an entry is replaced by this value, which stands for no condition [CFG].
    """

    schedule: ScheduleConfig = ScheduleConfig()
    prediction: str = "eps"
    weighting: str = "simple"
    variance: str = "fixed"
    vlb_weight: float = 1e-3
    bins: int = 256
    timesteps: str = "uniform"
    downscale: int = 0
    encoders: tuple[tuple[str, str], ...] = ()
    null: tuple[tuple[str, int, float], ...] = ()

    def __post_init__(self) -> None:
        one_of("objective.prediction", self.prediction, PREDICTIONS)
        one_of("objective.weighting", self.weighting, WEIGHTINGS)
        one_of("objective.variance", self.variance, VARIANCES)
        one_of("objective.timesteps", self.timesteps, TIMESTEPS)
        if self.important and self.schedule.T > LARGEST_T:
            raise ValueError(
                f"objective.timesteps: expected uniform with more than {LARGEST_T} steps, whose probabilities float32 does "
                f"not resolve, got importance with schedule.T = {self.schedule.T}"
            )
        if not self.vlb_weight > 0:
            raise ValueError(
                f"objective.vlb_weight: expected a number above 0, the paper's is 0.001, got {self.vlb_weight}"
            )
        if self.bins < 0 or self.bins == 1:
            raise ValueError(f"objective.bins: expected how many levels the data have, or 0, got {self.bins}")
        if self.downscale < 0 or self.downscale == 1 or self.downscale & (self.downscale - 1):
            raise ValueError(
                f"objective.downscale: expected 2, 4, 8, ..., or 0 for data that have low_res, got {self.downscale}"
            )
        for entry, _, rate in self.null:
            if not 0 <= rate <= 1:
                raise ValueError(f"objective.null: expected a rate from 0 to 1 for {entry}, got {rate}")

    @property
    def learned(self) -> bool:
        """Whether the network says v beside its prediction."""
        return self.variance == "learned"

    @property
    def important(self) -> bool:
        """Whether t is drawn by importance."""
        return self.timesteps == "importance"

    def reads(self, networks: dict[str, Any]) -> dict[str, Input]:
        """What the networks read that it trains, but for t, the conditions that the encoders make, and what is made of x."""
        made = {"t"} | {condition for condition, _ in self.encoders} | ({"low_res"} if self.downscale else set())
        read = entries_read(self.trains, networks)
        return {entry: given for entry, given in read.items() if entry not in made}

    def remember(self) -> Tree:
        return first_losses(self.schedule.T) if self.important else {}

    def update(self, memory: Tree, terms: dict[str, Any]) -> Tree:
        return losses_after(memory, terms["t"], terms["unweighted"]) if self.important else memory

    def draw_t(self, engine: ModuleType, n: int, key: Key, memory: Tree) -> Any:
        """t of n samples, uniform on 1 .. T or by importance.   -> (n,) integers"""
        if self.important:
            return engine.categorical(key("t"), n, memory["cumulative"])
        return engine.integers(key("t"), n, 1, self.schedule.T)

    def draw(self, engine: ModuleType, data: Batch, key: Key, memory: Tree) -> Batch:
        """x_t = a x_0 + b eps and its target c x_0 + d eps, t by `draw_t`.   [DDPM] algorithm 1"""
        x0 = data["x"]
        n, shape = x0.shape[0], tuple(x0.shape[1:])
        t = self.draw_t(engine, n, key, memory)
        eps = engine.normal(key("eps"), n, shape)
        table = noise_table(self.schedule, self.prediction, self.weighting)
        a, b, c, d, weight = engine.columns(table, t)
        batch = data | {"x": engine.affine(a, x0, b, eps), "t": t, "target": engine.affine(c, x0, d, eps)}
        if self.weighting != "simple":
            batch["weight"] = weight
        if self.learned:
            batch["x0"] = x0
        if self.important:
            batch["ratio"] = engine.gather(memory["ratio"], t)
        if self.downscale:
            batch["low_res"] = downscaled(engine, x0, self.downscale)
        for entry, value, rate in self.null:
            batch[entry] = engine.where(engine.bernoulli(key(f"null/{entry}"), n, rate), value, data[entry])
        return batch

    def loss_and_gradient(
        self, engine: ModuleType, networks: Networks, batch: Batch, key: Key
    ) -> tuple[dict[str, Any], dict[str, Tree]]:
        saved: dict[str, Any] = {}
        g: dict[str, Tree] = {}
        for condition, name in self.encoders:
            y, saved[name] = models.forward(engine, networks[name], batch, key.under(name))
            batch = batch | {condition: y}
        denoiser = networks["denoiser"]
        y, saved["denoiser"] = models.forward(engine, denoiser, batch, key.under("denoiser"))
        terms, dy = self._cost(engine, batch, y, 1 / key.total)
        wrt = tuple(condition for condition, _ in self.encoders)
        dinputs, g["denoiser"] = models.backward(engine, denoiser, dy, models.consume(saved["denoiser"]), wrt)
        for condition, name in self.encoders:
            _, g[name] = models.backward(engine, networks[name], dinputs[condition], models.consume(saved[name]))
        return terms, g

    def _cost(self, engine: ModuleType, batch: Batch, y: Any, share: float) -> tuple[dict[str, Any], Any]:
        """The terms, and share times the gradient of the sum of the losses with respect to y."""
        number = one = None
        if self.important:
            number, one = engine.columns(step_table(self.schedule.T), batch["t"])

        def weighed(part: float) -> Any:
            """part, or part times the ratio of each sample."""
            return part if one is None else _product(engine, batch["ratio"], engine.scale(one, part)[0])

        if self.learned:
            terms, dy = self._hybrid(
                engine, batch, y, weighed(share), weighed(share * self.vlb_weight * self.schedule.T)
            )
        else:
            loss, saved = engine.squared_error(y, batch["target"], batch.get("weight"))
            terms, dy = {"loss": loss}, engine.squared_error_backward(weighed(share), saved)
        if one is None:
            return terms, dy
        of_sample = {"unweighted": terms["loss"], "t": number}  # what the memory keeps
        return {name: _product(engine, batch["ratio"], term) for name, term in terms.items()} | of_sample, dy

    def _hybrid(
        self, engine: ModuleType, batch: Batch, y: Any, of_simple: Any, of_vlb: Any
    ) -> tuple[dict[str, Any], Any]:
        """The terms of the hybrid loss, and the gradient of y for those of its two parts."""
        (prediction, v), of_split = engine.split(y, 2)
        simple, saved_simple = engine.squared_error(prediction, batch["target"], batch.get("weight"))
        table = variational_table(self.schedule, self.prediction, self.vlb_weight)
        a, b, c, d, log_variance, half_gap, first, one, scale = engine.columns(table, batch["t"])
        mean = engine.affine(a, batch["x"], b, engine.stop(prediction))
        posterior_mean = engine.affine(c, batch["x0"], d, batch["x"])
        vlb, saved_vlb = engine.variational_term(
            v, mean, batch["x0"], posterior_mean, log_variance, half_gap, first, self.bins or None
        )
        dv = engine.variational_term_backward(of_vlb, saved_vlb)
        dy = engine.split_backward((engine.squared_error_backward(of_simple, saved_simple), dv), of_split)
        return {"loss": engine.affine(one, simple, scale, vlb), "simple": simple, "vlb": vlb}, dy


def _product(engine: ModuleType, a: Any, x: Any) -> Any:
    """a_n x_n, in x's dtype.   two (N,) -> (N,)"""
    half, _ = engine.scale(a, 0.5)
    return engine.affine(half, x, half, x)


def downscaled(engine: ModuleType, x: Any, factor: int) -> Any:
    """The means of blocks of factor x factor pixels, a power of two.   (N, H, W, C) -> (N, H / factor, W / factor, C)"""
    while factor > 1:
        x, _ = engine.average_pool(x)
        factor //= 2
    return x
