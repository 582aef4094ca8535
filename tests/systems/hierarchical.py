"""7  A hierarchical autoencoder: three latents, one upon another, and a network each way for each."""

from dataclasses import dataclass

import numpy as np

from refdiff import models
from refdiff.models import Input, PerceptronConfig
from refdiff.objectives import Objective, register_objective
from systems import rows
from systems.runs import configuration

LEVELS = 3
LOG_2PI = float(np.log(2 * np.pi))


def log_normal(x, mean, log_variance):
    """log N(x; mean, exp(log_variance)) of each sample.   (N, D) -> (N,)"""
    return -0.5 * ((x - mean) ** 2 * np.exp(-log_variance) + log_variance + LOG_2PI).sum(1)


def log_normal_backward(d, x, mean, log_variance):
    """-> dx, dmean, dlog_variance, d times the derivatives.   d: a number"""
    z = (x - mean) * np.exp(-log_variance)
    return -d * z, d * z, d * 0.5 * ((x - mean) * z - 1)


@dataclass(frozen=True)
class Hierarchical(Objective):
    """-sum_i log p(z_{i-1} | z_i) - log p(z_3) + sum_i log q(z_i | z_{i-1}), z_0 = x, z_i = mean + sd eps_i."""

    trains: tuple[str, ...] = tuple(f"{kind}{i}" for kind in ("encoder", "decoder") for i in range(1, LEVELS + 1))

    def reads(self, networks):
        return {"x": Input(networks["encoder1"].shape)}

    def draw(self, engine, data, key, memory):
        x = data["x"]
        return {"x": x, "eps": engine.normal(key("eps"), len(x), (LEVELS, *x.shape[1:]))}

    def loss_and_gradient(self, engine, networks, batch, key):
        z, q, p, loss = [batch["x"]], [], [], 0.0
        for i in range(LEVELS):
            eps = batch["eps"][:, i]
            y, of_q = models.forward(engine, networks[f"encoder{i + 1}"], {"x": z[-1]})
            (mean, log_variance), of_split = engine.split(y, 2)
            z.append(mean + np.exp(0.5 * log_variance) * eps)
            q.append((log_variance, of_split, of_q))
            y, of_p = models.forward(engine, networks[f"decoder{i + 1}"], {"x": z[-1]})
            of, of_split = engine.split(y, 2)
            p.append((of, of_split, of_p))
            loss = loss - log_normal(z[-2], *of) - 0.5 * (eps * eps + log_variance + LOG_2PI).sum(1)
        loss = loss - log_normal(z[-1], 0, 0 * z[-1])
        return {"loss": loss}, self._backward(engine, networks, batch, 1 / key.total, z, q, p)

    def _backward(self, engine, networks, batch, share, z, q, p):
        g, dz = {}, [0 * a for a in z]
        dz[-1] = share * z[-1]
        for i in reversed(range(LEVELS)):
            (log_variance, of_q_split, of_q), (of, of_p_split, of_p) = q[i], p[i]
            dx, *dof = log_normal_backward(-share, z[i], *of)
            dy = engine.split_backward(tuple(dof), of_p_split)
            d, g[f"decoder{i + 1}"] = models.backward(engine, networks[f"decoder{i + 1}"], dy, of_p, ("x",))
            dz[i + 1] = dz[i + 1] + d["x"]
            dlog_variance = 0.5 * dz[i + 1] * np.exp(0.5 * log_variance) * batch["eps"][:, i] - 0.5 * share
            dy = engine.split_backward((dz[i + 1], dlog_variance), of_q_split)
            d, g[f"encoder{i + 1}"] = models.backward(engine, networks[f"encoder{i + 1}"], dy, of_q, ("x",))
            dz[i] = dz[i] + dx + d["x"]
        return g


register_objective("hierarchical", Hierarchical)
data = rows.points(labels=False)
config = configuration(
    {name: PerceptronConfig((2,), (16,), (4,)) for name in Hierarchical().trains}, Hierarchical(), steps=250
)
