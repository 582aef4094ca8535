"""2  Latent diffusion: an autoencoder's run; then, with it frozen, a denoiser of latents and a text encoder that learns
through the context alone.   [LDM]"""

from dataclasses import dataclass

import numpy as np

from refdiff import engines, models
from refdiff.config import RuleConfig
from refdiff.models import Input, Network
from refdiff.objectives import Denoising, Objective, register_objective
from systems import rows
from systems.networks import Cross, Perceptron, Text
from systems.runs import configuration


@dataclass(frozen=True)
class Autoencoding(Objective):
    """|x - decoder(encoder(x))|^2."""

    trains: tuple[str, ...] = ("encoder", "decoder")

    def reads(self, networks):
        return {"x": Input((networks["encoder"].sizes[0],))}

    def loss_and_gradient(self, engine, networks, batch, key):
        z, of_z = models.forward(engine, networks["encoder"], batch)
        y, of_y = models.forward(engine, networks["decoder"], {"z": z})
        loss, of_loss = engine.squared_error(y, batch["x"])
        dy = engine.squared_error_backward(1 / key.total, of_loss)
        d, g_decoder = models.backward(engine, networks["decoder"], dy, of_y, ("z",))
        _, g_encoder = models.backward(engine, networks["encoder"], d["z"], of_z)
        return {"loss": loss}, {"encoder": g_encoder, "decoder": g_decoder}


register_objective("autoencoding", Autoencoding)
AUTOENCODER = {"encoder": Perceptron((12, 24, 4)), "decoder": Perceptron((4, 24, 12), "z")}
autoencoder = configuration(AUTOENCODER, Autoencoding(), steps=150)
data = rows.captioned()


def config(folder, **changes):
    """Of the run that follows the autoencoder's in `folder`."""
    frozen = {name: RuleConfig("frozen", run=str(folder)) for name in AUTOENCODER}
    networks = {**AUTOENCODER, "denoiser": Cross(4, 32, 2, 16), "text": Text(11, 3, 16)}
    objective = Denoising(
        trains=("denoiser", "text"),
        prediction="v",
        encoders=(("context", "text"),),
        null=(("tokens", rows.NO_WORD, 0.1),),
    )
    return configuration(networks, objective, frozen, **{"steps": 200, **changes})


def prepare(networks, data):
    """z = E(x) / sd, once for the data set.   -> the data of latents, {"sd": their deviation}   [LDM] appendix G"""
    encoder = Network(AUTOENCODER["encoder"], networks["encoder"])
    z = models.predict(engines.get("reference"), encoder, data.entries)
    return rows.Rows(x=z / z.std(), tokens=data.entries["tokens"]), {"sd": float(z.std())}


def decode(networks, z, numbers):
    """x = D(sd z)."""
    decoder = Network(AUTOENCODER["decoder"], networks["decoder"])
    return models.predict(engines.get("reference"), decoder, {"z": np.float32(numbers["sd"]) * z})
