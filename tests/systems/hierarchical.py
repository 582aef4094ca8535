"""A hierarchical variational autoencoder of points, three latents of their dimension, and what others are made with."""

from types import SimpleNamespace

from refdiff.models import PerceptronConfig, TableConfig
from refdiff.systems import HierarchicalVAE
from systems import rows
from systems.runs import configuration


def levels(shape, latents, likelihood, hidden=(16,)):
    """{name: configuration} of the networks, one latent upon another."""
    networks, below = {}, shape
    for l, size in enumerate(latents, 1):
        z = size if isinstance(size, tuple) else (size,)
        networks[f"encoder{l}"] = PerceptronConfig(below, hidden, z, parts=2, entry="x" if l == 1 else "z")
        networks[f"decoder{l}"] = PerceptronConfig(z, hidden, below, parts=1 if l == 1 else 2, entry="z")
        below = z
    return networks | ({"noise": TableConfig(first=(-1.0,))} if likelihood == "gaussian" else {})


def system(shape, latents, likelihood, **options):
    networks = levels(shape, latents, likelihood)
    return configuration(networks, HierarchicalVAE(levels=len(latents), likelihood=likelihood), **options)


data = rows.points(labels=False)
config = system((2,), (2, 2, 2), "gaussian", steps=250)
images = SimpleNamespace(config=system((4, 4, 1), (5, 3), "bernoulli", steps=150), data=rows.images(4))
