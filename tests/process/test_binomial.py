"""Bits: what is refused, arrays of other libraries, and samples that have the probabilities asked for."""

import numpy as np
import pytest

from refdiff import process
from refdiff.process import reciprocal
from refdiff.random import Key, uniform
from refdiff.testing.strategies import every_schedule

S = reciprocal(5)
BITS, SPINS = np.array([[0.0, 1.0, 1.0]]), np.array([[-1.0, 1.0, 1.0]])


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda x: process.binomial_step(S, x, 2), "x_prev"),
        (lambda x: process.binomial_marginal(S, x, 2), "x0"),
        (lambda x: process.binomial_posterior(S, x, BITS, 2), "x_t"),
        (lambda x: process.binomial_posterior(S, BITS, x, 2), "x0"),
        (lambda x: process.binomial_prior_matching(S, x), "x0"),
        (lambda x: process.binomial_term(S, BITS, x, 2, BITS), "x_t"),
        (lambda x: process.binomial_term(S, x, BITS, 2, BITS), "x0"),
        (lambda x: process.binomial_bound_terms(S, lambda x, t: x, x, lambda t: BITS), "x0"),
        (lambda x: next(process.binomial_ancestral(S, lambda x, t: x, x, lambda t: BITS)), "x"),
    ],
)
@pytest.mark.parametrize("wrong", [SPINS, 0.5 * BITS, np.full((1, 3), np.nan)])
def test_bits_that_are_no_bits_are_refused_by_name(call, name, wrong):
    with pytest.raises(
        ValueError, match=rf"\A{name}: expected bits, each 0 or 1, got values from [^\n]*\(x \+ 1\) / 2\Z"
    ):
        call(wrong)
    call(BITS)


@pytest.mark.parametrize("T", [0, -1, 1.5])
def test_no_steps(T):
    with pytest.raises(ValueError, match="T: expected a number of steps, an integer of at least 1, got"):
        reciprocal(T)


def test_half_precision_is_refused_where_it_has_no_room():
    with pytest.raises(ValueError, match="logits: expected float32 or float64, got float16"):
        process.kl_binomial(BITS, BITS.astype(np.float16))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_dtype_is_that_of_the_bits(dtype):
    x, u = BITS.astype(dtype), np.full((1, 3), 0.5, dtype)
    t = np.array([3])
    for y in (
        process.binomial_step(S, x, t), process.binomial_marginal(S, x, 3), process.binomial_posterior(S, x, x, t),
        process.draw_bits(u, u), process.binomial_term(S, x, x, t, u), process.binomial_prior_matching(S, x),
        process.final(process.binomial_ancestral(S, lambda x, t: x, x, lambda t: u)),
    ):  # fmt: skip
        assert y.dtype == dtype


def test_one_step_a_sample_is_that_step():
    rng = np.random.default_rng(0)
    x0, x_t = (rng.uniform(size=(2, 5, 4)) < 0.5).astype(float)
    logits, t = rng.standard_normal((5, 4)), np.arange(1, 6)
    together = process.binomial_term(S, x0, x_t, t, logits)
    for i in range(5):
        alone = process.binomial_term(S, x0[i : i + 1], x_t[i : i + 1], int(t[i]), logits[i : i + 1])
        assert together[i] == pytest.approx(alone[0], rel=1e-14)


def test_units_are_bits_a_dimension_and_nats_a_sample():
    x = np.array([[0.0, 1.0, 1.0, 0.0]])
    logits = np.zeros((1, 4))
    assert process.binomial_term(S, x, x, 1, logits)[0] == pytest.approx(1, abs=1e-15)  # a throw of a coin
    assert process.binomial_term(S, x, x, 1, logits, "nats")[0] == pytest.approx(4 * np.log(2), abs=1e-15)


def test_samples_of_a_known_reverse_process_have_its_frequencies():
    """Of the perfect process of bits that are 1 with probability 0.8: 20,000 samples."""
    n, rate = 20_000, 0.8

    def reverse(x, t):
        a, beta = S.alpha_bar[t - 1], S.beta[t]
        before = a * rate + (1 - a) / 2
        to = np.where(x == 1, 1 - beta / 2, beta / 2)  # q(x_t | x_{t-1} = 1); from 0 it is 1 less that
        return np.log(before * to) - np.log((1 - before) * (1 - to))

    def draws(t):
        return uniform(Key(0, t)("step"), np.arange(n), (1,))

    start = process.draw_bits(np.full((n, 1), 0.5), draws(6))
    x = process.final(process.binomial_ancestral(S, reverse, start, draws))
    assert abs(x.mean() - rate) < 4 * np.sqrt(rate * (1 - rate) / n)


def test_other_libraries_give_the_same_numbers(library):
    rng = np.random.default_rng(1)
    x0, x_t = (rng.uniform(size=(2, 4, 3)) < 0.5).astype(float)
    logits, u = rng.standard_normal((4, 3)), rng.uniform(size=(4, 3))
    t = np.array([1, 2, 5, 3])
    a, b, c, d = (library.asarray(v) for v in (x0, x_t, logits, u))
    for ours, theirs in (
        (process.binomial_term(S, x0, x_t, t, logits), process.binomial_term(S, a, b, t, c)),
        (process.binomial_bound_terms(S, lambda x, t: logits, x0, lambda t: u),
         process.binomial_bound_terms(S, lambda x, t: c, a, lambda t: d)),
        (process.final(process.binomial_ancestral(S, lambda x, t: logits, x0, lambda t: u)),
         process.final(process.binomial_ancestral(S, lambda x, t: c, a, lambda t: d))),
        (process.multiplied_gaussian(x0, logits, u), process.multiplied_gaussian(a, c, d)),
        (process.observed_gaussian(x0, logits, u, 0.3)[0], process.observed_gaussian(a, c, d, 0.3)[0]),
        (process.observed_bits(logits, x0, 0.1), process.observed_bits(c, a, 0.1)),
        (process.conditioned(logits, u, x0), process.conditioned(c, d, a)),
    ):  # fmt: skip
        np.testing.assert_allclose(np.asarray(theirs), ours, rtol=1e-14)


def test_a_mask_of_parts_is_refused():
    with pytest.raises(ValueError, match=r"mask: expected 1 where elements are known, .* got values from 0.5 to 0.5"):
        process.conditioned(BITS, BITS, np.full((1, 3), 0.5))


@pytest.mark.parametrize("deviation", [0, -1.0, np.nan, np.inf])
def test_a_deviation_that_is_none_is_refused(deviation):
    with pytest.raises(ValueError, match=r"\Adeviation: expected a positive number, got [^\n]*\Z"):
        process.observed_gaussian(*np.zeros((3, 1, 2)), deviation)


@pytest.mark.parametrize("flipped", [0, 0.5, 1, -0.1, np.nan])
def test_a_probability_of_errors_that_is_none_is_refused(flipped):
    with pytest.raises(ValueError, match=r"\Aflipped: expected a probability between 0 and 1/2, [^\n]*\Z"):
        process.observed_bits(np.zeros_like(BITS), BITS, flipped)


def test_what_was_seen_of_bits_is_bits():
    with pytest.raises(ValueError, match=r"\Ay: expected bits, each 0 or 1, got values from -1 to -1\Z"):
        process.observed_bits(np.zeros((1, 3)), np.full((1, 3), -1.0), 0.1)


@pytest.mark.parametrize("name", sorted(every_schedule()))
def test_the_posterior_is_a_probability_whatever_is_rounded(name):
    """Where a step loses next to nothing, c + c_0 + c_t comes out above 1 by a digit."""
    schedule = every_schedule()[name]
    x_t, x0 = np.array([[0.0, 0, 1, 1], [0, 1, 0, 1]])
    for t in range(1, min(schedule.T, 50) + 1):
        p = process.binomial_posterior(schedule, x_t, x0, t)
        assert p.min() >= 0
        assert p.max() <= 1
