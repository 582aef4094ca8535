"""Classification: what class an image is of, told from the image in noise; its gradient by x_t guides a sampler [ADM]."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

from .. import models
from ..models import Batch, Input, Tree
from ..random import Key
from .objective import Networks, Objective, entries_read
from .schedule import ScheduleConfig
from .tables import noise_table

__all__ = ["Classification"]


@dataclass(frozen=True)
class Classification(Objective):
    """E over t and eps of -log p(label | x_t, t), the softmax of what the network `classifier` says.   [ADM] section 4

    schedule: of the noise, that of the model which is to be guided. noised: False for clean images, x_0 at t = 0: such a
    classifier judges samples and cannot guide, for it never saw noise.
    """

    trains: tuple[str, ...] = ("classifier",)
    schedule: ScheduleConfig = ScheduleConfig()
    noised: bool = True

    def reads(self, networks: dict[str, Any]) -> dict[str, Input]:
        """What the classifier reads, but for t, and the label."""
        read = entries_read(self.trains, networks)
        return {entry: given for entry, given in read.items() if entry != "t"} | {"label": Input((), "int")}

    def draw(self, engine: ModuleType, data: Batch, key: Key, memory: Tree) -> Batch:
        """x_t = a x_0 + b eps, t uniform on 1 .. T; or x_0 and t = 0.   [DDPM] eq. 4"""
        x0 = data["x"]
        n, shape = x0.shape[0], tuple(x0.shape[1:])
        if not self.noised:
            return data | {"t": engine.integers(key("t"), n, 0, 0)}
        t = engine.integers(key("t"), n, 1, self.schedule.T)
        a, b, _, _, _ = engine.columns(noise_table(self.schedule, "eps", "simple"), t)
        return data | {"x": engine.affine(a, x0, b, engine.normal(key("eps"), n, shape)), "t": t}

    def loss_and_gradient(
        self, engine: ModuleType, networks: Networks, batch: Batch, key: Key
    ) -> tuple[dict[str, Any], dict[str, Tree]]:
        classifier = networks["classifier"]
        logits, saved = models.forward(engine, classifier, batch, key.under("classifier"))
        loss, of_loss = engine.cross_entropy(logits, batch["label"])
        dlogits = engine.cross_entropy_backward(1 / key.total, of_loss)
        _, g = models.backward(engine, classifier, dlogits, models.consume(saved))
        return {"loss": loss}, {"classifier": g}
