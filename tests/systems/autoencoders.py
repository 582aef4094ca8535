"""The variational autoencoder with each of its options, on small images."""

from types import SimpleNamespace

from refdiff.models import ConvDecoderConfig, ConvEncoderConfig, PerceptronConfig, TableConfig
from refdiff.systems import VAE, Autoencoder
from systems import rows
from systems.runs import configuration

CONVOLUTIONAL = {
    "encoder": ConvEncoderConfig(4, 1, 8, (1, 2), 3, parts=2, groups=4),
    "decoder": ConvDecoderConfig(4, 1, 8, (1, 2), 3, groups=4),
}
PERCEPTRONS = {
    "encoder": PerceptronConfig((4, 4, 1), (16,), (2,), parts=2),
    "decoder": PerceptronConfig((2,), (16,), (4, 4, 1), entry="z"),
}
PLAIN = {
    "encoder": PerceptronConfig((4, 4, 1), (16,), (2,)),
    "decoder": PerceptronConfig((2,), (16,), (4, 4, 1), entry="z"),
}
NOISE = {"noise": TableConfig(first=(-1.0,))}
data = rows.images(4)


def _system(networks, objective):
    return SimpleNamespace(config=configuration(networks, objective, steps=150), data=data)


ALONE = {
    "squared_error": _system(PLAIN, Autoencoder()),
    "vae": _system(CONVOLUTIONAL, VAE()),
    "vae_beta": _system(PERCEPTRONS, VAE(beta=4.0)),
    "vae_gaussian": _system(PERCEPTRONS | NOISE, VAE(likelihood="gaussian")),
    "vae_importance": _system(PERCEPTRONS, VAE(samples=5)),
    "vae_importance_gaussian": _system(CONVOLUTIONAL | NOISE, VAE(likelihood="gaussian", samples=3)),
}
