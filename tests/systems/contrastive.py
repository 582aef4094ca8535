"""6  Pictures and captions side by side: each has to find its partner among all others of the batch.   [CLIP]"""

from dataclasses import dataclass

import numpy as np

from refdiff import models
from refdiff.models import PerceptronConfig
from refdiff.objectives import Objective, register_objective
from systems import operations, rows
from systems.networks import Numbers, Transformer
from systems.runs import configuration


@dataclass(frozen=True)
class Contrastive(Objective):
    """The mean of the cross entropies of rows and columns of e^scale U V^T, u and v of unit length.   [CLIP] figure 3"""

    trains: tuple[str, ...] = ("image", "text", "scale")

    def reads(self, networks):
        return models.inputs(networks["image"]) | models.inputs(networks["text"])

    def embed(self, engine, networks, batch):
        """u, v (N, D), and what their backward needs."""
        y, of_image = models.forward(engine, networks["image"], batch)
        h, of_text = models.forward(engine, networks["text"], batch)
        (u, of_u), (v, of_v) = operations.l2_normalise(y), operations.l2_normalise(h[:, -1])
        return u, v, (of_image, of_text, of_u, of_v, h.shape)

    def gather(self, engine, networks, batch, key):
        u, v, _ = self.embed(engine, networks, batch)
        return {"u": u, "v": v}

    def loss_and_gradient(self, engine, networks, batch, key):
        u, _, (of_image, of_text, of_u, of_v, shape) = self.embed(engine, networks, batch)
        all_u, all_v = batch["all_u"], batch["all_v"]
        (scale,), of_scale = models.forward(engine, networks["scale"], {})
        n, own = len(all_u), key.first + np.arange(len(u))
        logits = np.exp(scale) * (all_u @ all_v.T)
        rows_, columns = operations.log_softmax(logits)[0], operations.log_softmax(logits.T)[0]
        loss = -0.5 * (rows_[own, own] + columns[own, own])
        d = (np.exp(rows_) + np.exp(columns).T - 2 * np.eye(n, dtype=u.real.dtype)) / (
            2 * n
        )  # of the mean of all losses
        du = operations.l2_normalise_backward(np.exp(scale) * d[own] @ all_v, of_u)
        dv = operations.l2_normalise_backward(np.exp(scale) * d.T[own] @ all_u, of_v)
        dh = np.zeros(shape, dv.dtype)
        dh[:, -1] = dv  # of the last token alone
        dscale = (d[own] * logits[own]).sum()[None]
        saved, dys = {"image": of_image, "text": of_text, "scale": of_scale}, {"image": du, "text": dh, "scale": dscale}
        return {"loss": loss}, {k: models.backward(engine, networks[k], dys[k], saved[k])[1] for k in self.trains}


register_objective("contrastive", Contrastive)
data = rows.captioned()
config = configuration(
    {
        "image": PerceptronConfig((12,), (24,), (8,)),
        "text": Transformer(10, 3, 8),
        "scale": Numbers((float(np.log(1 / 0.07)),)),
    },
    Contrastive(),
    steps=150,
)
