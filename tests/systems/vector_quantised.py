"""3  A quantised autoencoder against a discriminator: two turns, a codebook that is averaged, and a weight that needs the
whole batch.   [VQVAE] [LDM] section 3.1"""

from dataclasses import dataclass

import numpy as np

from refdiff import models
from refdiff.config import RuleConfig
from refdiff.models import Input, PerceptronConfig
from refdiff.objectives import Objective, register_objective
from systems import operations, rows
from systems.networks import Codebook
from systems.runs import configuration


def quantised(engine, networks, batch):
    """z, its codes, and what the decoder says of them; z + stop(code - z) is the code, with the gradient of z."""
    z, of_z = models.forward(engine, networks["encoder"], batch)
    size = networks["codebook"].config.size
    book, of_book = models.forward(engine, networks["codebook"], {"z": z.reshape(len(z), -1, size)})
    code = book["code"].reshape(z.shape)
    y, of_y = models.forward(engine, networks["decoder"], {"z": z + engine.stop(code - z)})
    return (z, code, y), (of_z, of_book, of_y)


@dataclass(frozen=True)
class Reconstruction(Objective):
    """|x - y|^2 + commitment |z - stop(code)|^2 + lam softplus(-D(y)), after `start` steps; lam makes both gradients of the
    decoder's last layer of one length, times `adversarial`.   [LDM] eq. 25"""

    trains: tuple[str, ...] = ("encoder", "decoder", "codebook")
    commitment: float = 0.25
    adversarial: float = 0.1
    start: int = 3

    def turns(self, step):
        return (self, Discrimination()) if step > self.start else (self,)

    def reads(self, networks):
        return {"x": Input(networks["encoder"].shape)}

    def draw(self, engine, data, key, memory):
        x = data["x"]
        return {"x": x, "adversarial": np.full(len(x), self.adversarial * (key.step > self.start), x.dtype)}

    def _parts(self, engine, networks, batch, share):
        """What was computed, and the gradients of y: of the error, and of the adversary's term."""
        values, saved = quantised(engine, networks, batch)
        y = values[2]
        score, of_score = models.forward(engine, networks["discriminator"], {"x": y})
        fooled, of_fooled = operations.softplus(-score[:, 0])
        error, of_error = engine.squared_error(y, batch["x"])
        dscore = -operations.softplus_backward(np.full(len(y), share, y.dtype), of_fooled)[:, None]
        d, _ = models.backward(engine, networks["discriminator"], dscore, of_score, ("x",))  # it does not learn here
        return values, saved, error, fooled, engine.squared_error_backward(share, of_error), d["x"]

    def gather(self, engine, networks, batch, key):
        """The gradients of the decoder's last layer: one row a shard."""
        _, (_, _, of_y), _, _, derror, dfooled = self._parts(engine, networks, batch, 1 / key.total)

        def last(dy):
            _, g = models.backward(engine, networks["decoder"], dy, of_y)
            return engine.stop(g["linear1"]["weight"])[None]

        return {"error": last(derror), "fooled": last(dfooled)}

    def loss_and_gradient(self, engine, networks, batch, key):
        values, saved, error, fooled, derror, dfooled = self._parts(engine, networks, batch, 1 / key.total)
        (z, code, _), (of_z, of_book, of_y) = values, saved
        lengths = [np.linalg.norm(batch[f"all_{name}"].sum(0)) for name in ("error", "fooled")]
        lam = batch["adversarial"] * (lengths[0] / (lengths[1] + z.real.dtype.type(1e-4)))
        commit, of_commit = engine.squared_error(z, engine.stop(code))
        dy = derror + lam[:, None] * dfooled
        d, g_decoder = models.backward(engine, networks["decoder"], dy, of_y, ("z",))
        dz = d["z"] + engine.squared_error_backward(self.commitment / key.total, of_commit)
        _, statistics = models.backward(engine, networks["codebook"], None, of_book)
        _, g_encoder = models.backward(engine, networks["encoder"], dz, of_z)
        terms = {"loss": error + lam * fooled + self.commitment * commit, "error": error, "fooled": fooled}
        return terms, {"encoder": g_encoder, "decoder": g_decoder, "codebook": statistics}


@dataclass(frozen=True)
class Discrimination(Objective):
    """(softplus(-D(x)) + softplus(D(y))) / 2."""

    trains: tuple[str, ...] = ("discriminator",)

    def loss_and_gradient(self, engine, networks, batch, key):
        (_, _, made), _ = quantised(engine, networks, batch)
        net = networks["discriminator"]
        real, of_real = models.forward(engine, net, batch)
        fake, of_fake = models.forward(engine, net, {"x": made})
        on_real, of_on_real = operations.softplus(-real[:, 0])
        on_fake, of_on_fake = operations.softplus(fake[:, 0])
        half = np.full(len(made), 0.5 / key.total, made.dtype)
        d_real = -operations.softplus_backward(half, of_on_real)[:, None]
        d_fake = operations.softplus_backward(half, of_on_fake)[:, None]
        _, g1 = models.backward(engine, net, d_real, of_real)
        _, g2 = models.backward(engine, net, d_fake, of_fake)
        return {"loss": 0.5 * (on_real + on_fake)}, {"discriminator": models.add(engine, g1, g2)}  # used twice


register_objective("reconstruction", Reconstruction)
data = rows.captioned()
config = configuration(
    {
        "encoder": PerceptronConfig((12,), (24,), (12,)),
        "decoder": PerceptronConfig((12,), (24,), (12,), entry="z"),
        "codebook": Codebook(8, 3),
        "discriminator": PerceptronConfig((12,), (16,), (1,)),
    },
    Reconstruction(),
    {
        "codebook": RuleConfig("average", decay=0.95),
        "discriminator": RuleConfig(learning_rate=2e-3, betas=(0.5, 0.9)),
    },
    steps=200,
)
