"""The bound of a hierarchical variational autoencoder where its claims do not look: every schedule, shapes, bad input."""

import numpy as np
import pytest

from refdiff.process import consistency_terms, denoising_terms, joint_ratio, linear, path_densities
from refdiff.testing.claims import hierarchical
from refdiff.testing.strategies import every_schedule


@pytest.mark.parametrize("name", sorted(every_schedule()))
def test_with_the_encoder_fixed_it_is_the_diffusion_bound_on_every_schedule(name):
    error = hierarchical.with_a_fixed_encoder_the_hierarchical_bound_is_the_diffusion_bound
    assert error(name, 0.7, 3) <= 1e-12


def test_a_level_that_is_left_out_is_found():
    """What the claim says fails of a bound without its prior, or with a step of another schedule."""
    rng = np.random.default_rng(0)
    path = [rng.standard_normal((5, 2)) for _ in range(4)]
    d, other = (
        path_densities(s, lambda x, t: (x / 2, x / 4), path) for s in (linear(3, 0.1, 0.3), linear(3, 0.1, 0.31))
    )
    ratio = joint_ratio(d.forward, d.reverse, d.prior)
    for wrong in (joint_ratio(other.forward, d.reverse, d.prior), joint_ratio(d.forward, d.reverse, 0 * d.prior)):
        assert np.abs(wrong - ratio).max() > 1e-3
    terms = denoising_terms(d.posterior, d.reverse, other.marginal, d.prior)
    assert np.abs(terms.sum(0) + ratio).max() > 1e-3


def test_terms_stand_in_the_order_of_the_levels():
    forward, reverse, prior = (
        [1.0 * np.ones(2), 2 * np.ones(2)],
        [10.0 * np.ones(2), 20 * np.ones(2)],
        300.0 * np.ones(2),
    )
    assert consistency_terms(forward, reverse, prior)[:, 0].tolist() == [-10, 1 - 20, 2 - 300]
    assert denoising_terms([4.0 * np.ones(2)], reverse, 5.0 * np.ones(2), prior)[:, 0].tolist() == [
        -10,
        4 - 20,
        5 - 300,
    ]
    assert joint_ratio(forward, reverse, prior).tolist() == [327, 327]


def test_one_level_has_no_consistency_and_no_denoising_term():
    one = np.random.default_rng(1).standard_normal((4, 6))
    assert np.array_equal(consistency_terms(one[:1], one[1:2], one[2]), [-one[1], one[0] - one[2]])
    assert np.array_equal(denoising_terms([], one[1:2], one[3], one[2]), [-one[1], one[3] - one[2]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a: joint_ratio([], [], a), "forward: expected at least one level, T >= 1, got none; give the log"),
        (lambda a: denoising_terms([], [], a, a), "reverse: expected at least one level, T >= 1, got none; give"),
        (lambda a: joint_ratio([a, a], [a], a), "reverse: expected 2 arrays, one a level, got 1"),
        (lambda a: consistency_terms([a], [a, a], a), "reverse: expected 1 arrays, one a level, got 2"),
        (lambda a: denoising_terms([a], [a], a, a), "posterior: expected 0 arrays, one fewer than reverse, got 1"),
        (
            lambda a: path_densities(linear(3), lambda x, t: (x, x), [a[:, None]] * 3),
            "path: expected x_0, ..., x_3, 4 arrays, got 3; draw one a step",
        ),
        (
            lambda a: path_densities(linear(1), lambda x, t: (x, x), [np.float16(a)[:, None]] * 2),
            "x_0: expected float32 or float64, got float16; cast it yourself",
        ),
        (
            lambda a: path_densities(linear(1), lambda x, t: x, [a[:, None]] * 2),
            "reverse: expected two arrays (mean, log variance), as of `fixed_reverse`, got ndarray",
        ),
        (
            lambda a: path_densities(linear(1), lambda x, t: (x, x), [a[0]] * 2),
            "x: expected samples (N, ...), got a single number; give it an axis",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_clear_line(call, message):
    with pytest.raises(ValueError, match="expected") as error:
        call(np.ones(3))
    assert str(error.value).startswith(message)
