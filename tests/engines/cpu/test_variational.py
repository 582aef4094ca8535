"""A term of the bound on the CPU engine against the reference in float64, whole and captured."""

import numpy as np
import pytest

from refdiff.engines import cpu, reference
from refdiff.process import (
    learned_log_variance,
    learned_log_variance_backward,
    linear,
    posterior_log_variance,
)
from refdiff.testing.measures import relative_error

LEVELS = 17


def case(T, t, seed, shape):
    """Float32: v, mean, x0, posterior_mean and the three numbers of t, with means a deviation apart."""
    rng, schedule = np.random.default_rng(seed), linear(T)
    shape = (len(t), *shape)
    x0 = 2 * rng.integers(0, LEVELS, shape) / (LEVELS - 1) - 1
    _, saved = learned_log_variance(schedule, np.zeros(len(t)), t)
    half_gap, log_variance = learned_log_variance_backward(np.ones(len(t)), saved), posterior_log_variance(schedule, t)
    deviation = np.exp(0.5 * log_variance).reshape(-1, *[1] * (len(shape) - 1))
    true_mean = x0 + deviation * rng.standard_normal(shape)
    mean = true_mean + deviation * rng.standard_normal(shape)
    given = rng.standard_normal(shape), mean, x0, true_mean, log_variance, half_gap, t == 1
    return [a.astype(np.float32) for a in given]


@pytest.mark.parametrize("bins", [LEVELS, None])
@pytest.mark.parametrize("T", [1, 2, 1000])
@pytest.mark.parametrize("shape", [(1,), (4, 4, 2), (16, 16, 3)])
def test_it_is_the_reference(T, bins, shape):
    """Each term and each sample's gradient, not all of them in one norm: those at t = 1 are larger by orders."""
    for t in ([1], [T], [1, T, 1, max(T // 2, 1), min(T, 2)]):
        given = case(T, np.array(t), len(t), shape)
        term, saved = cpu.variational_term(*given, bins)
        dterm = np.random.default_rng(1).standard_normal(len(t)).astype(np.float32)
        dv = cpu.variational_term_backward(dterm, saved)
        assert (term.dtype, dv.dtype, dv.shape) == (np.float32, np.float32, given[0].shape)
        exact, exact_saved = reference.variational_term(*(a.astype(np.float64) for a in given), bins)
        exact_dv = reference.variational_term_backward(dterm.astype(np.float64), exact_saved)
        bound = 4 * max(16, given[0][0].size) ** 0.5 * 2.0**-24
        for n in range(len(t)):
            assert relative_error(term[n].astype(np.float64), exact[n]) <= bound
            assert relative_error(dv[n].astype(np.float64), exact_dv[n]) <= bound
        ones = cpu.variational_term_backward(np.ones(len(t), np.float32), saved)
        assert cpu.variational_term_backward(1.0, saved).tobytes() == ones.tobytes()


def test_a_sample_has_the_same_bits_alone_and_in_a_batch():
    given = case(1000, np.array([1, 500, 1, 2, 1000]), 0, (5, 7, 3))
    term, dv = cpu.variational_term(*given, LEVELS)
    for part in (slice(0, 1), slice(1, 2), slice(2, 5)):
        again, saved = cpu.variational_term(*(a[part] for a in given), LEVELS)
        assert again.tobytes() == term[part].tobytes()
        assert saved.tobytes() == dv[part].tobytes()


@pytest.mark.parametrize("bins", [LEVELS, None])
def test_the_same_bits_captured(use_threads, bins):
    """Which samples are at t = 1 changes from call to call."""
    use_threads(1)

    def f(*given):
        term, saved = cpu.variational_term(*given, bins)
        dv = cpu.variational_term_backward(term, saved)
        rows, _ = cpu.reshape(cpu.add(dv, cpu.variational_term_backward(0.5, saved))[0], (len(dv), -1))
        return cpu.concat(rows, cpu.reshape(term, (-1, 1))[0])[0]

    rng, graph = np.random.default_rng(0), cpu.Captured(f)
    for call, most in enumerate((1000, 1000, 1, 2, 2, 1000)):
        given = case(1000, rng.integers(1, most + 1, 5), call, (4, 4, 2))
        expected = f(*given)
        assert graph(*given).tobytes() == expected.tobytes(), call
        assert np.isfinite(expected).all()


def test_it_refuses_data_off_the_levels_where_they_are_asked_for():
    given = case(1000, np.array([1, 500]), 0, (4,))
    given[2] = given[2] * np.float32(0.97)
    with pytest.raises(ValueError, match="x0: expected data on the 17 levels"):
        cpu.variational_term(*given, LEVELS)
    assert np.isfinite(cpu.variational_term(*given, None)[0]).all()
