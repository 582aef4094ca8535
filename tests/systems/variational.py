"""4  Variational diffusion: the noise schedule learns too, its ends by the loss, its inside by the square of the loss, which
needs the whole batch; gradients pass through a t that is no integer.   [VDM]"""

from dataclasses import dataclass

import numpy as np

from refdiff import models
from refdiff.config import RuleConfig
from refdiff.models import Input, MLPConfig, MonotoneConfig
from refdiff.objectives import Objective, register_objective
from systems import operations, rows
from systems.networks import Numbers
from systems.runs import configuration

LOW, HIGH = -6.0, 4.0  # gamma is told to the network as a time from 0 to 1000
SCALE = 1000 / (HIGH - LOW)


@dataclass(frozen=True)
class Variational(Objective):
    """L_0 + L_T + gamma'(t) |eps - eps_hat|^2 / 2, gamma(t) = -log SNR. score and ends learn by it, gamma by the square of
    the mean of its last term.   [VDM] eqs. 11 to 13, appendix I"""

    trains: tuple[str, ...] = ("score", "ends", "gamma")

    def reads(self, networks):
        return {"x": Input(networks["score"].shape)}

    def draw(self, engine, data, key, memory):
        x, n = data["x"], len(data["x"])
        one = engine.uniform(key("t")._replace(first=0), 1)  # one number for the whole step
        t = (one + ((key.first + np.arange(n)) / key.total).astype(one.dtype)) % 1
        eps = {name: engine.normal(key(name), n, x.shape[1:]) for name in ("eps", "eps_0")}
        return {"x": x, "t": t, **eps}

    def _diffusion(self, engine, networks, batch):
        """The last term, and all that it was made of."""
        x, eps = batch["x"], batch["eps"]
        ends, of_ends = models.forward(engine, networks["ends"], {})
        inside, of_inside = models.forward(engine, networks["gamma"], {"t": batch["t"]})
        span = ends[1] - ends[0]
        gamma, slope = ends[0] + span * inside["f"], span * inside["slope"]
        a, s = (np.sqrt(operations.sigmoid(sign * gamma)[0])[:, None] for sign in (-1, 1))
        inputs = {"x": a * x + s * eps, "t": SCALE * (gamma - LOW)}
        y, of_y = models.forward(engine, networks["score"], inputs)
        error = ((y - eps) ** 2).sum(1)
        return 0.5 * slope * error, (ends, inside, span, slope, a, s, y, error), (of_ends, of_inside, of_y)

    def gather(self, engine, networks, batch, key):
        return {"diffusion": engine.stop(self._diffusion(engine, networks, batch)[0])}

    def loss_and_gradient(self, engine, networks, batch, key):
        x, eps, share = batch["x"], batch["eps"], 1 / key.total
        diffusion, values, (of_ends, of_inside, of_y) = self._diffusion(engine, networks, batch)
        ends, inside, span, slope, a, s, y, error = values
        s1, a1 = operations.sigmoid(ends[1])[0], operations.sigmoid(-ends[1])[0]  # sigma_1^2, alpha_1^2
        prior = 0.5 * (a1 * x**2 + s1 - np.log(s1) - 1).sum(1)
        first = 0.5 * (batch["eps_0"] ** 2 + ends[0] + np.log(2 * np.pi)).sum(1)
        twice = 2 * batch["all_diffusion"].mean()  # d L^2 = 2 L dL
        terms = {"loss": diffusion + prior + first, "gamma": twice * diffusion, "diffusion": diffusion}
        dy = share * slope[:, None] * (y - eps)
        d, g_score = models.backward(engine, networks["score"], dy, of_y, ("x", "t"))
        dgamma = (d["x"] * (0.5 * a * s * (a * eps - s * x))).sum(1) + d["t"] * SCALE
        dslope = share * 0.5 * error
        at_1 = share * (0.5 * s1 * a1 * (1 - x**2) - 0.5 * a1).sum()
        d0 = (dgamma * (1 - inside["f"]) - dslope * inside["slope"]).sum() + share * 0.5 * x.size
        d1 = (dgamma * inside["f"] + dslope * inside["slope"]).sum() + at_1
        _, g_ends = models.backward(engine, networks["ends"], np.array([d0, d1], ends.dtype), of_ends)
        dinside = {"f": twice * span * dgamma, "slope": twice * span * dslope}
        _, g_gamma = models.backward(engine, networks["gamma"], dinside, of_inside)
        return terms, {"score": g_score, "ends": g_ends, "gamma": g_gamma}


register_objective("variational", Variational)
data = rows.points(labels=False)
config = configuration(
    {"score": MLPConfig(2, 32, 2), "ends": Numbers((-5.0, 3.0)), "gamma": MonotoneConfig(8)},
    Variational(),
    {
        "ends": RuleConfig(learning_rate=1e-3, betas=(0.9, 0.99)),
        "gamma": RuleConfig(learning_rate=2e-2, betas=(0.9, 0.99)),
    },
    steps=150,
)
