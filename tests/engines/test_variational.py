"""A term of the bound for a learned variance: the process's own, 50 digits, and a complex step for its gradient."""

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff.engines import reference as engine
from refdiff.process import (
    l_vlb_term,
    l_vlb_term_backward,
    learned_log_variance,
    learned_log_variance_backward,
    linear,
    posterior_log_variance,
    posterior_mean,
    q_sample,
)
from refdiff.testing.derivatives import check_backward
from refdiff.testing.measures import relative_error
from refdiff.testing.strategies import every_schedule, seeds

LEVELS = 17


def case(schedule, t, seed, shape=(2, 1, 3), near=1.0):
    """What the operation takes at the steps t, and x_t.   near: how far the means are apart, in deviations."""
    rng = np.random.default_rng(seed)
    shape = (len(t), *shape)
    x0 = 2 * rng.integers(0, LEVELS, shape) / (LEVELS - 1) - 1
    v, eps, away = rng.standard_normal((3, *shape))
    x_t = q_sample(schedule, x0, t, eps)
    _, saved = learned_log_variance(schedule, np.zeros(len(t)), t)
    half_gap, log_variance = learned_log_variance_backward(np.ones(len(t)), saved), posterior_log_variance(schedule, t)
    true_mean = posterior_mean(schedule, x_t, x0, t)
    deviation = np.exp(0.5 * log_variance).reshape(-1, *[1] * (len(shape) - 1))
    of_t = (log_variance, half_gap, (t == 1).astype(np.float64))
    return x_t, (v, true_mean + near * deviation * away, x0, true_mean, *of_t)


def ends(T):
    return np.unique([1, min(2, T), (T + 1) // 2, max(T - 1, 1), T])


SHORT = {f"T = {T}": linear(T) for T in (1, 2)}


@pytest.mark.parametrize("bins", [LEVELS, None])
@pytest.mark.parametrize("name", [*every_schedule(), *SHORT])
def test_it_is_the_term_of_the_process(name, bins):
    """At both ends, in the middle, and where all samples or none are at t = 1: terms and their gradients by v."""
    schedule = {**every_schedule(), **SHORT}[name]
    of_all = ends(schedule.T)
    for t in (of_all, of_all[:1], of_all[-1:], np.ones(3, np.int64)):
        x_t, given = case(schedule, t, 0)
        v, mean, x0, *_ = given
        term, saved = engine.variational_term(*given, bins)
        log_variance, saved_v = learned_log_variance(schedule, v, t)
        expected, saved_term = l_vlb_term(schedule, x0, x_t, t, mean, log_variance, bins)
        dterm = np.random.default_rng(1).standard_normal(len(t))
        _, dlog_variance = l_vlb_term_backward(dterm, saved_term)
        assert relative_error(term, expected) <= 1e-12
        dv, expected = (
            engine.variational_term_backward(dterm, saved),
            learned_log_variance_backward(dlog_variance, saved_v),
        )
        assert relative_error(dv, expected) <= 1e-12
        assert np.array_equal(engine.variational_term_backward(np.ones(len(t)), saved),
                              engine.variational_term_backward(1.0, saved))  # fmt: skip


def exactly(v, mean, x0, true_mean, log_variance, half_gap, first, bins):
    """Of one sample, from the definitions: densities for t > 1, the distribution function at the edges for t = 1."""
    total = mpmath.mpf(0)
    for each in np.ndindex(v.shape):
        m, x, m_true, l, gap = (
            mpmath.mpf(float(a)) for a in (mean[each], x0[each], true_mean[each], log_variance, half_gap)
        )
        learned = l + (1 + mpmath.mpf(float(v[each]))) * gap
        if not first:
            total += (learned - l + mpmath.exp(l - learned) + (m - m_true) ** 2 * mpmath.exp(-learned) - 1) / 2
        elif bins is None:
            total += ((x - m) ** 2 * mpmath.exp(-learned) + learned + mpmath.log(2 * mpmath.pi)) / 2
        else:
            level, step = round((float(x) + 1) * (bins - 1) / 2), mpmath.mpf(2) / (bins - 1)
            low, high = ((-1 + step * (level + side) - m) * mpmath.exp(-learned / 2) for side in (-0.5, 0.5))
            above = mpmath.mpf(1) if level == 0 else mpmath.erfc(low / mpmath.sqrt(2)) / 2
            total -= mpmath.log(above - (0 if level == bins - 1 else mpmath.erfc(high / mpmath.sqrt(2)) / 2))
    return total / (v.size * mpmath.log(2))


@given(seeds(), st.sampled_from([LEVELS, None]), st.sampled_from([0.0, 1e-3, 1.0, 5.0]))
def test_it_is_right_to_its_last_digits(seed, bins, near):
    """Also where the means all but agree and the gap is of 1e-6, where e^d - 1 - d would cancel."""
    for schedule in (linear(1000), linear(2), linear(1)):
        t = ends(schedule.T)
        _, given = case(schedule, t, seed, (2,), near)
        term, _ = engine.variational_term(*given, bins)
        with mpmath.workdps(60):
            for n in range(len(t)):
                expected = exactly(*(a[n] for a in given), bins)
                assert abs(term[n] - expected) <= 2e-13 * abs(expected)


@given(seeds(), st.sampled_from([LEVELS, None]), st.sampled_from([1, 2, 1000]))
def test_the_contract_of_an_operation(check_contract, seed, bins, T):
    """Of wide steps: a mass of all but 1 has fewer digits in complex numbers."""
    _, (v, *others) = case(linear(T, 0.05, 0.1), ends(T), seed)
    names = ("mean", "x0", "posterior_mean", "log_variance", "half_gap", "first")
    check_contract("variational_term", (v,), seed=seed, **dict(zip(names, others, strict=True)), bins=bins)


def test_the_mean_is_held_still():
    """A complex step in it does not pass, as [IDDPM] section 3.1 asks."""
    _, (v, mean, *others) = case(linear(10), ends(10), 0)
    rng = np.random.default_rng(1)
    term, _ = engine.variational_term(v, mean + 1e-30j * rng.standard_normal(mean.shape), *others, LEVELS)
    assert np.array_equal(term, engine.variational_term(v, mean, *others, LEVELS)[0])
    assert not np.iscomplexobj(term)
    check_backward(
        lambda v: engine.variational_term(v, mean, *others, LEVELS), engine.variational_term_backward, (v,), rng
    )


def test_it_refuses_other_shapes_and_data_off_the_levels():
    _, given = case(linear(10), ends(10), 0)
    v, mean, x0, true_mean, log_variance, half_gap, first = given
    with pytest.raises(AssertionError, match="variational_term"):
        engine.variational_term(v, mean[..., :1], x0, true_mean, log_variance, half_gap, first, LEVELS)
    with pytest.raises(AssertionError, match="a number a sample"):
        engine.variational_term(v, mean, x0, true_mean, log_variance, half_gap[:1], first, LEVELS)
    with pytest.raises(ValueError, match="x0: expected data on the 17 levels"):
        engine.variational_term(v, mean, x0 * 0.97, true_mean, log_variance, half_gap, first, LEVELS)
