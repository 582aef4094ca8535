"""All claims, in the order in which the papers make them; importing this puts them into `refdiff.testing.claim.CLAIMS`."""

# isort: off
# fmt: off
from .. import claim as claim  # first, since it says what to install where something is missing
from . import forward, posterior, bound, hierarchical, objectives, sampling, learned_variance, solvers, guidance, exact
from . import guided, binomial, multiplied, scheduler, steps, runs, misprints
from . import (
    schedules,
    flows,
    activations,
    operations,
    normalisation,
    attention,
    networks,
    classification,
    randomness,
    optimisers,
    training,
    classifiers,
    metrics,
    spacings,
    likelihoods,
    noise_levels,
    continuous,
    continuous_bound,
    autoencoders,
)

# fmt: on
# isort: on

__all__ = [
    "activations",
    "attention",
    "autoencoders",
    "binomial",
    "bound",
    "classification",
    "classifiers",
    "continuous",
    "continuous_bound",
    "exact",
    "flows",
    "forward",
    "guidance",
    "guided",
    "hierarchical",
    "learned_variance",
    "likelihoods",
    "metrics",
    "misprints",
    "multiplied",
    "networks",
    "noise_levels",
    "normalisation",
    "objectives",
    "operations",
    "optimisers",
    "posterior",
    "randomness",
    "runs",
    "sampling",
    "scheduler",
    "schedules",
    "solvers",
    "spacings",
    "steps",
    "training",
]
