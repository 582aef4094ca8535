"""Bounds that are measured: their standard errors are over draws, whatever the samples differ by."""

import numpy as np
import pytest

from refdiff.systems.bounds import bound_numbers

RNG = np.random.default_rng(0)
APART = 20 * RNG.standard_normal((30, 1))  # what the samples differ by


def measured(draws=16):
    """The numbers of one evaluation: log weights that vary by 0.5 about those of each sample."""
    log_w = APART + 0.5 * RNG.standard_normal((30, draws))
    return bound_numbers(4, log_w, {"bits_per_dim": -log_w}, {"all": -log_w})


@pytest.mark.parametrize("name", ["bits_per_dim", "importance_weighted_bits"])
def test_an_error_is_the_spread_over_draws_and_not_over_samples(name):
    found = [measured() for _ in range(400)]
    error = np.mean([f[f"{name}_error"] for f in found])
    assert error == pytest.approx(np.std([f[name] for f in found]), rel=0.15)
    assert found[0]["all_bits"] == found[0]["bits_per_dim"]
    assert found[0]["bound_nats"] == pytest.approx(found[0]["bits_per_dim"] * 4 * np.log(2))
    assert (found[0]["draws"], found[0]["samples"]) == (16, 30)
