"""What both models are tested with."""

import numpy as np

from refdiff.models import layout


def case(drawn, config, seed, n=2, dtype=np.float64):
    """Weights p, n samples x and their times t, of a model of this configuration."""
    rng = np.random.default_rng(seed)
    p = drawn(layout(config), seed, dtype)
    return p, rng.standard_normal((n, *config.shape)).astype(dtype), rng.integers(1, 1001, n)
