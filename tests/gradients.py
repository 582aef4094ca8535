"""The gradient of a network in an objective against a complex step."""

import warnings

import numpy as np

from refdiff import models
from refdiff.engines import reference
from refdiff.models import Network, tree_map
from refdiff.testing.derivatives import complex_step
from refdiff.testing.measures import quotient


def gradient_error(objective, networks, batch, key, name):
    """|<g, v> - d mean(loss)/dv| / (|g| |v|) of the network `name` for a random v."""
    _, g = objective.loss_and_gradient(reference, networks, batch, key)
    (config, p), rng = networks[name], np.random.default_rng(1)
    v = tree_map(lambda a: rng.standard_normal(a.shape), p)

    def loss(p):
        other = networks | {name: Network(config, p)}
        return objective.loss_and_gradient(reference, other, batch, key)[0]["loss"].sum() / key.total

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", np.exceptions.ComplexWarning)  # of the gradients there, which nobody uses
        slope = complex_step(loss, p, v)
    a, b = models.flatten(g[name]), models.flatten(v)
    assert a.keys() == b.keys()
    inner = sum(float(np.vdot(a[k], b[k])) for k in a)
    size = sum(float(np.vdot(x, x)) for x in a.values()) * sum(float(np.vdot(x, x)) for x in b.values())
    return quotient(abs(inner - slope), size**0.5)
