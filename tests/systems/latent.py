"""2  Latent diffusion: an autoencoder's run; then, with it frozen, a denoiser of latents and a text encoder that learns
through the context alone.   [LDM]"""

import numpy as np

from refdiff import engines, models
from refdiff.config import RuleConfig
from refdiff.models import Network, PerceptronConfig
from refdiff.objectives import Denoising
from refdiff.systems import Autoencoder
from systems import rows
from systems.networks import Cross, Text
from systems.runs import configuration

AUTOENCODER = {
    "encoder": PerceptronConfig((12,), (24,), (4,)),
    "decoder": PerceptronConfig((4,), (24,), (12,), entry="z"),
}
autoencoder = configuration(AUTOENCODER, Autoencoder(), steps=150)
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
