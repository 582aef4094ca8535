"""5  Consistency distillation: a frozen teacher makes a step, and a target that follows the student says where it leads.
[CM] algorithm 2"""

from dataclasses import dataclass

import numpy as np

from refdiff import models, process
from refdiff.config import RuleConfig
from refdiff.models import Input, MLPConfig
from refdiff.objectives import Denoising, Objective, ScheduleConfig, register_objective
from systems import rows
from systems.runs import configuration


def consistent(engine, net, x, t):
    """f(x, t) = c_skip x + c_out network(x, t), which is x at t = 0.   [CM] eq. 5 and appendix C"""
    u, sd = 0.1 * t, 0.5
    skip = (sd**2 / (u**2 + sd**2)).astype(x.dtype)[:, None]
    out = (sd * u / np.sqrt(u**2 + sd**2)).astype(x.dtype)[:, None]
    y, saved = models.forward(engine, net, {"x": x, "t": t})
    return skip * x + out * y, (out, saved)


@dataclass(frozen=True)
class Consistency(Objective):
    """sqrt(|f(x_t, t) - f'(x_s, s)|^2 + c^2) - c: x_s is one DDIM step of the teacher from x_t, f' the target's."""

    schedule: ScheduleConfig = ScheduleConfig()
    stride: int = 5
    c: float = 0.03

    def reads(self, networks):
        return {"x": Input(networks["denoiser"].shape)}

    def draw(self, engine, data, key, memory):
        x0, s = data["x"], self.schedule.build()
        t = self.stride * engine.integers(key("t"), len(x0), 1, s.T // self.stride)
        eps = engine.normal(key("eps"), len(x0), x0.shape[1:])
        return {"x": process.q_sample(s, x0, t, eps), "t": t}

    def loss_and_gradient(self, engine, networks, batch, key):
        s, x, t = self.schedule.build(), batch["x"], batch["t"]
        eps = models.predict(engine, networks["teacher"], batch)
        x0 = process.x0_from_eps(s, x, t, eps).clip(-2, 2)
        before = process.q_sample(s, x0, t - self.stride, process.eps_from_x0(s, x, t, x0))
        target, _ = consistent(engine, networks["target"], before, t - self.stride)
        y, (out, saved) = consistent(engine, networks["denoiser"], x, t)
        u = y - engine.stop(target)
        root = np.sqrt((u * u).sum(1) + self.c**2)
        _, g = models.backward(engine, networks["denoiser"], out * u / root[:, None] / key.total, saved)
        return {"loss": root - self.c}, {"denoiser": g}


register_objective("consistency", Consistency)
MODEL = MLPConfig(2, 32, 2)
data = rows.points(labels=False)
teacher = configuration({"denoiser": MODEL}, Denoising(), steps=200)


def config(folder):
    """Of the student of the teacher whose run is in `folder`."""
    return configuration(
        {"denoiser": MODEL, "target": MODEL, "teacher": MODEL},
        Consistency(),
        {
            "target": RuleConfig("follow", of="denoiser", decay=0.95),
            "teacher": RuleConfig("frozen", run=str(folder), of="denoiser"),
        },
        rate=3e-3,
        steps=200,
    )
