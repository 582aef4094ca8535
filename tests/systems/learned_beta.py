"""7  The first diffusion model: beta_2 .. beta_T are learned with the mean of the reverse step.   [2015]"""

from dataclasses import dataclass

import numpy as np

from refdiff import models
from refdiff.config import RuleConfig
from refdiff.models import Input, MLPConfig
from refdiff.objectives import Objective, register_objective
from systems import operations, rows
from systems.networks import Numbers
from systems.runs import configuration

T = 20


@dataclass(frozen=True)
class LearnedBeta(Objective):
    """T KL(q(x_{t-1} | x_t, x_0) || N(sqrt(1 - beta_t) x_t + sqrt(beta_t) m, beta_t)) + KL(q(x_T | x_0) || N(0, 1)),
    t uniform on 2 .. T, m the network's.   first: beta_1, which stays"""

    trains: tuple[str, ...] = ("denoiser", "beta")
    first: float = 1e-2

    def reads(self, networks):
        return {"x": Input(networks["denoiser"].shape)}

    def draw(self, engine, data, key, memory):
        x0, n = data["x"], len(data["x"])
        t = engine.integers(key("t"), n, 2, T)
        return {"x0": x0, "t": t, "eps": engine.normal(key("eps"), n, x0.shape[1:])}

    def loss_and_gradient(self, engine, networks, batch, key):
        x0, t, eps, k = batch["x0"], batch["t"], batch["eps"], T / key.total
        logit, of_logit = models.forward(engine, networks["beta"], {})
        beta = np.concatenate([np.array([self.first], logit.dtype), operations.sigmoid(logit)[0]])
        log = np.concatenate([np.zeros(1, logit.dtype), np.cumsum(np.log1p(-beta))])  # log alpha_bar_0 .. T
        A, B, b = (v[:, None] for v in (np.exp(log)[t], np.exp(log)[t - 1], beta[t - 1]))  # alpha_bar_t, _{t-1}, beta_t
        a, s, ra = np.sqrt(A), np.sqrt(1 - A), np.sqrt(1 - b)
        x = a * x0 + s * eps
        m, of_m = models.forward(engine, networks["denoiser"], {"x": x, "t": t})
        mean = np.sqrt(B) * b / (1 - A) * x0 + ra * (1 - B) / (1 - A) * x  # of q(x_{t-1} | x_t, x_0)   [DDPM] eq. 7
        d, r = mean - ra * x - np.sqrt(b) * m, (1 - B) / (1 - A)
        kl = 0.5 * (-np.log(r) + r + d * d / b - 1)
        end = np.exp(log[-1])
        prior = 0.5 * (end * x0**2 + (1 - end) - np.log(1 - end) - 1)
        terms = {"loss": (T * kl + prior).sum(1), "kl": kl.sum(1)}

        dd, dr = k * d / b, k * 0.5 * (1 - 1 / r)
        inputs, g = models.backward(engine, networks["denoiser"], -np.sqrt(b) * dd, of_m, ("x",))
        dx = dd * (ra * (1 - B) / (1 - A) - ra) + inputs["x"]
        one = (1 - A) ** 2
        dA = (
            dx * (0.5 / a * x0 - 0.5 / s * eps)
            + dd * (x0 * np.sqrt(B) * b + x * ra * (1 - B)) / one
            + dr * (1 - B) / one
        )
        dB = dd * (x0 * 0.5 / np.sqrt(B) * b - x * ra) / (1 - A) - dr / (1 - A)
        db = dd * x0 * np.sqrt(B) / (1 - A) - k * 0.5 * d * d / b**2 - 0.5 * dd * m / np.sqrt(b)
        db = db - 0.5 * dd * (x * (1 - B) / (1 - A) - x) / ra
        dend = 0.5 / key.total * (x0**2 - 1 + 1 / (1 - end)).sum()
        dlog = np.zeros_like(log)
        np.add.at(dlog, t, (dA * A).sum(1))
        np.add.at(dlog, t - 1, (dB * B).sum(1))
        dlog[-1] += dend * end
        dbeta = -np.cumsum(dlog[::-1])[::-1][1:] / (1 - beta)
        np.add.at(dbeta, t - 1, db.sum(1))
        dlogit = operations.sigmoid_backward(dbeta[1:], beta[1:])
        _, g_beta = models.backward(engine, networks["beta"], dlogit, of_logit)
        return terms, {"denoiser": g, "beta": g_beta}


register_objective("learned_beta", LearnedBeta)
data = rows.points(labels=False)
FIRST = 1 / (T - np.arange(2, T + 1) + 1.0)  # beta_t = 1 / (T - t + 1)   [2015] appendix B
FIRST = FIRST.clip(0, 0.9)
config = configuration(
    {"denoiser": MLPConfig(2, 32, 2), "beta": Numbers(tuple(np.log(FIRST / (1 - FIRST)).tolist()))},
    LearnedBeta(),
    {"beta": RuleConfig(learning_rate=5e-2, betas=(0.9, 0.99))},
    T=T,
    steps=300,
    max_grad_norm=0.0,
)
