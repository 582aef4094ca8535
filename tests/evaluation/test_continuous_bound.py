"""The bound in continuous time: of a perfect denoiser it is the entropy, whatever the schedule; and its errors are right."""

import numpy as np
import pytest

from refdiff.evaluation.continuous_bound import (
    bound_beside_line,
    bound_numbers,
    diffusion_estimates,
    spread_over_time,
)
from refdiff.process import between_ends, cosine_gamma, linear_gamma
from refdiff.random import Key
from refdiff.testing.strategies import rising_curve

LEVELS = 3
V = np.linspace(-1, 1, LEVELS)
X = V[np.random.default_rng(0).integers(LEVELS, size=(60, 4))]


def perfect(z, gamma):
    """(z - a E[x | z]) / s, of numbers that are each of three levels, as likely as another."""
    a, s = (np.exp(-0.5 * np.logaddexp(0, sign * gamma))[:, None] for sign in (1, -1))
    log = -0.5 * ((z[..., None] - a[..., None] * V) / s[..., None]) ** 2
    w = np.exp(log - log.max(axis=-1, keepdims=True))
    return (z - a * (w @ V) / w.sum(axis=-1)) / s


SCHEDULES = {
    "linear": linear_gamma(-8, 7),
    "cosine": cosine_gamma(-8, 7),
    "curved": between_ends(-8, 7, rising_curve(3)),
    "narrow": linear_gamma(-2, 7),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_of_a_perfect_denoiser_the_bound_is_the_entropy(name):
    """log2 3 bits a number, which no schedule changes: what the ends leave to one term they take from another."""
    schedule = SCHEDULES[name]
    found = diffusion_estimates(schedule, perfect, X, Key(1), passes=300)
    numbers = bound_numbers(schedule, found, X, Key(1), LEVELS)
    assert abs(numbers["bits_per_dim"] - np.log2(3)) <= 4 * numbers["bits_per_dim_error"]
    assert numbers["bits_per_dim_error"] < 0.04
    assert (numbers["reconstruction_bits"] > 0.3) == (name == "narrow")
    assert numbers["prior_bits"] < 1e-3


def test_fewer_steps_cost_more_bits():
    schedule, bits = SCHEDULES["linear"], []
    for T in (5, 20, 0):
        found = diffusion_estimates(schedule, perfect, X, Key(1), T, passes=40)
        bits.append(bound_numbers(schedule, found, X, Key(1), LEVELS)["bits_per_dim"])
        assert not T or set(np.unique(found.t * T)) <= set(range(1, T + 1))
    assert bits[0] > bits[1] + 0.05 > bits[2] + 0.05


def test_the_standard_error_is_the_spread_over_keys():
    """Of 40 estimates with keys of their own: within 40 % of what each says of itself."""
    schedule, all_numbers = SCHEDULES["linear"], []
    for seed in range(40):
        found = diffusion_estimates(schedule, perfect, X, Key(seed), passes=12)
        all_numbers.append(bound_numbers(schedule, found, X, Key(seed), LEVELS))
    for name in ("bits_per_dim", "diffusion_bits"):
        spread = np.std([each[name] for each in all_numbers])
        said = np.sqrt(np.mean([each[f"{name}_error"] ** 2 for each in all_numbers]))
        assert 0.6 < spread / said < 1.4


def test_passes_of_other_batches_are_the_same():
    whole = diffusion_estimates(SCHEDULES["curved"], perfect, X, Key(5), passes=3)
    part = diffusion_estimates(SCHEDULES["curved"], perfect, X, Key(5), passes=3, batch=7)
    np.testing.assert_allclose(part.loss, whole.loss, rtol=1e-12)
    assert np.array_equal(part.t, whole.t)
    assert np.abs(np.diff(np.sort(whole.t, axis=1)) - 1 / len(X)).max() < 1e-12


def test_beside_a_straight_line_the_bits_are_the_same_and_the_variance_is_not():
    """A schedule that spends its time where the loss is has less; the other way round it has more."""
    line = SCHEDULES["linear"]
    t = np.linspace(0, 1, 201)
    loss = diffusion_estimates(line, perfect, X, Key(2), passes=200)
    where, mean, _ = spread_over_time(loss, 50)
    root = np.sqrt(np.interp(t, where, mean)) + 0.05
    steps = np.cumsum(root)
    steps = (steps - steps[0]) / (steps[-1] - steps[0])

    def inside(s):
        return np.interp(s, steps, t), np.interp(s, steps, np.gradient(t, steps))

    better = bound_beside_line(between_ends(-8, 7, inside), perfect, X, Key(3), LEVELS, passes=60)
    assert better["variance_factor"] > 1.3
    apart = abs(better["diffusion_bits"] - better["line_diffusion_bits"])
    assert apart <= 4 * np.hypot(better["diffusion_bits_error"], better["line_diffusion_bits_error"])
    same = bound_beside_line(line, perfect, X, Key(3), LEVELS, passes=5)
    assert same["variance_factor"] == pytest.approx(1, abs=1e-12)
    assert (same["gamma"][0], same["gamma"][-1]) == (same["gamma_0"], same["gamma_1"]) == (-8, 7)


def test_pieces_of_time():
    found = diffusion_estimates(SCHEDULES["linear"], perfect, X, Key(2), T=4, passes=4)
    t, mean, sd = spread_over_time(found, 8)
    assert t == [0.3125, 0.5625, 0.8125, 0.9375]
    at = found.loss[found.t == 0.5]
    assert (mean[1], sd[1]) == (pytest.approx(at.mean()), pytest.approx(at.std()))
