"""7  A t that is drawn by how large its loss was of late: what a run remembers, and no gradient changes.
[IDDPM] section 3.3"""

from dataclasses import dataclass, replace

import numpy as np

from refdiff.models import MLPConfig
from refdiff.objectives import Denoising, register_objective
from systems import rows
from systems.runs import configuration


@dataclass(frozen=True)
class Importance(Denoising):
    """t with the probability p_t of sqrt(E L_t^2) over the last `history` losses of each t, weighted by 1 / (T p_t)."""

    weighting: str = "vlb"
    history: int = 10

    def remember(self):
        T = self.schedule.T
        return {"loss": np.zeros((T, self.history), np.float32), "count": np.zeros(T, np.int64)}

    def probability(self, memory):
        """p_t (T,), uniform before each t has its losses."""
        T = self.schedule.T
        if memory["count"].min() < self.history:
            return np.full(T, 1 / T)
        p = np.sqrt((memory["loss"].astype(np.float64) ** 2).mean(1))
        return 0.999 * p / p.sum() + 0.001 / T

    def timesteps(self, engine, n, key, memory):
        cumulative = np.cumsum(self.probability(memory))
        return 1 + np.searchsorted(cumulative, engine.uniform(key("t"), n)).clip(0, self.schedule.T - 1)

    def draw(self, engine, data, key, memory):
        batch = super().draw(engine, data, key, memory)
        ratio = 1 / (self.schedule.T * self.probability(memory)[batch["t"] - 1])
        weight = batch["weight"] * ratio
        return batch | {"weight": weight.astype(np.float32), "ratio": ratio.astype(np.float32)}

    def loss_and_gradient(self, engine, networks, batch, key):
        terms, g = super().loss_and_gradient(engine, networks, batch, key)
        return terms | {"t": batch["t"], "unweighted": terms["loss"] / batch["ratio"]}, g

    def update(self, memory, terms):
        loss, count = memory["loss"].copy(), memory["count"].copy()
        for t, value in zip(terms["t"].astype(int), terms["unweighted"], strict=True):
            loss[t - 1] = np.append(loss[t - 1, 1:], value)
            count[t - 1] = min(count[t - 1] + 1, self.history)
        return {"loss": loss, "count": count}


register_objective("importance", Importance)
data = rows.points()
config = configuration({"denoiser": MLPConfig(2, 32, 2, classes=3)}, Importance(history=3), T=20, steps=200)
uniform = replace(config, objective=Denoising(weighting="vlb"))
