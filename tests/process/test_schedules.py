"""Schedules against 50-digit arithmetic written from the papers' formulas, their figures, and every refusal."""

from itertools import pairwise

import mpmath
import numpy as np
import pytest
from helpers import exact
from hypothesis import example, given
from hypothesis import strategies as st

from refdiff.process import (
    SCHEDULES,
    constant,
    cosine,
    from_alpha_bar,
    from_beta,
    linear,
    quadratic,
    rescale_zero_terminal_snr,
    rescaled_linear,
    scaled_linear,
    sigmoid,
    uniform_steps,
)
from refdiff.testing.strategies import lengths, pairs, schedule_kinds, schedules, seeds, timesteps

mpmath.mp.dps = 50


def beta_linear(T, beta_start=1e-4, beta_end=0.02):
    start, end = mpmath.mpf(beta_start), mpmath.mpf(beta_end)
    return [start + (end - start) * t / max(T - 1, 1) for t in range(T)]


def beta_rescaled_linear(T, beta_start=1e-4, beta_end=0.02, beta_max=0.999):
    scale = mpmath.mpf(1000) / T
    return [min(scale * beta, mpmath.mpf(beta_max)) for beta in beta_linear(T, beta_start, beta_end)]


def beta_quadratic(T, beta_start=1e-4, beta_end=0.02):
    return [root**2 for root in beta_linear(T, mpmath.sqrt(beta_start), mpmath.sqrt(beta_end))]


def beta_scaled_linear(T, beta_start=0.00085, beta_end=0.012):
    return beta_quadratic(T, beta_start, beta_end)


def beta_constant(T, beta=0.02):
    return [mpmath.mpf(beta)] * T


def beta_cosine(T, s=0.008, beta_max=0.999):
    s = mpmath.mpf(s)
    f = [mpmath.cos((mpmath.mpf(t) / T + s) / (1 + s) * mpmath.pi / 2) ** 2 for t in range(T + 1)]
    return [min(1 - f[t] / f[t - 1], mpmath.mpf(beta_max)) for t in range(1, T + 1)]


def beta_sigmoid(T, start=-3.0, end=3.0, tau=1.0, beta_max=0.999):
    start, end, tau = mpmath.mpf(start), mpmath.mpf(end), mpmath.mpf(tau)

    def logistic(x):
        return 1 / (1 + mpmath.exp(-x))

    # Chen's algorithm 1 counts time from 0 to 1 and divides what is left of the logistic by the whole of it.
    left = [logistic(end / tau) - logistic((start + (end - start) * t / T) / tau) for t in range(T + 1)]
    gamma = [value / (logistic(end / tau) - logistic(start / tau)) for value in left]
    return [min(1 - gamma[t] / gamma[t - 1], mpmath.mpf(beta_max)) for t in range(1, T + 1)]


def beta_exact(name, arguments):
    return np.array([mpmath.mpf(0), *globals()[f"beta_{name}"](**{"T": 1000} | arguments)])


def worst(computed, expected):
    """The largest relative error of any element; mpf throughout, so NaN stays NaN and passes no bound."""
    return max(abs(exact(computed) - expected) / abs(expected))


@pytest.mark.parametrize("T", [21, 100, 250, 1000, 4000])
def test_the_rescaled_schedule_has_the_numbers_of_the_published_codes(T):
    """From 0.1 / T to 20 / T, that is, whatever T is."""
    published = (0.1 + 19.9 * np.arange(T) / (T - 1)) / T
    assert rescaled_linear(T).beta[1:] == pytest.approx(published, rel=1e-14)
    if T >= 100:  # hardly another end than that of 1000, where that of `linear` is exp(-10.05 T / 1000)
        assert abs(np.log(rescaled_linear(T).alpha_bar[-1]) + 10.05) < 100 / T


def test_the_rescaled_schedule_is_the_linear_one_for_1000_steps_and_is_held_below_1_for_20():
    assert np.array_equal(rescaled_linear().beta, linear().beta)
    assert np.array_equal(rescaled_linear(1000, 1e-3, 0.05).beta, linear(1000, 1e-3, 0.05).beta)
    assert [rescaled_linear(T).beta[-1] for T in (20, 7, 2)] == [0.999] * 3
    assert rescaled_linear(10, beta_max=0.5).beta.max() == 0.5
    assert rescaled_linear(1).beta[1] == 0.1


PAPERS = [(name, {}) for name in sorted(SCHEDULES)]


def with_papers(test):
    for kind in PAPERS:
        test = example(kind)(test)
    return test


@with_papers
@given(schedule_kinds())
def test_beta_is_the_papers_schedule(kind):
    name, arguments = kind
    assert worst(SCHEDULES[name](**arguments).beta[1:], beta_exact(name, arguments)[1:]) <= 1e-14


def alpha_bound(beta):
    """1e-14, unless a kind asks for say beta = 0.99, for then the float64 beta has alpha = 0.01 to two digits fewer."""
    return 1e-14 * max(1, *(b / (1 - b) / 4 for b in beta[1:]))


@with_papers
@given(schedule_kinds())
def test_alpha_bar_and_its_complement_are_the_papers_schedule(kind):
    name, arguments = kind
    schedule, beta = SCHEDULES[name](**arguments), beta_exact(name, arguments)
    alpha_bar = np.cumprod(1 - beta)
    assert worst(schedule.alpha, 1 - beta) <= alpha_bound(beta)
    assert worst(schedule.alpha_bar, alpha_bar) <= alpha_bound(beta)
    assert worst(schedule.one_minus_alpha_bar[1:], (1 - alpha_bar)[1:]) <= 1e-14
    assert worst(schedule.snr[1:], alpha_bar[1:] / (1 - alpha_bar[1:])) <= alpha_bound(beta)


@given(schedule_kinds(), st.data())
def test_steps_between_are_the_papers_schedule(kind, data):
    name, arguments = kind
    schedule, beta = SCHEDULES[name](**arguments), beta_exact(name, arguments)
    k, t = data.draw(pairs(schedule, strict=True))
    product = mpmath.fprod(1 - beta[k + 1 : t + 1])
    alpha_between, beta_between = schedule.between(k, t)
    assert worst([alpha_between], np.array([product])) <= alpha_bound(beta)
    assert worst([beta_between], np.array([1 - product])) <= 1e-14


def beta_wide(seed, T):
    """Variances from 1e-12 to 0.5, far apart from one step to the next."""
    return 10 ** np.random.default_rng(seed).uniform(-12, np.log10(0.5), T)


@given(seeds(), st.integers(1, 300), st.data())
def test_small_steps_between_large_ones_keep_every_digit(seed, T, data):
    schedule = from_beta(beta_wide(seed, T))
    k, t = data.draw(pairs(schedule, strict=True))
    alpha = np.cumprod(1 - exact(schedule.beta))
    product = mpmath.fprod(1 - exact(schedule.beta)[k + 1 : t + 1])
    assert worst(schedule.alpha_bar, alpha) <= 1e-14
    assert worst(schedule.one_minus_alpha_bar[1:], 1 - alpha[1:]) <= 1e-14
    assert worst([schedule.between(k, t)[0]], np.array([product])) <= 1e-14
    assert worst([schedule.between(k, t)[1]], np.array([1 - product])) <= 1e-14


@given(schedules(terminal=True), st.data())
def test_steps_between_compose_and_are_nothing_from_a_step_to_itself(schedule, data):
    k, t = data.draw(pairs(schedule))
    m = data.draw(st.integers(k, t))
    alpha, beta = schedule.between(np.array([k, k, m, t]), np.array([m, t, t, t]))
    assert abs(alpha[0] * alpha[2] - alpha[1]) <= 1e-14 * alpha[1]
    assert abs(beta[0] * alpha[2] + beta[2] - beta[1]) <= 1e-14 * beta[1]
    assert alpha[3] == 1
    assert beta[3] == 0
    assert not np.signbit(beta[3])
    for i, (first, last) in enumerate([(k, m), (k, t), (m, t), (t, t)]):
        assert schedule.between(first, last) == (alpha[i], beta[i])


@given(schedules())
def test_single_steps_and_whole_products_are_steps_between(schedule):
    t = np.arange(1, schedule.T + 1)
    alpha, beta = schedule.between(t - 1, t)
    assert np.all(abs(alpha - schedule.alpha[1:]) <= 1e-14 * alpha)
    assert np.all(abs(beta - schedule.beta[1:]) <= 1e-14 * beta)
    alpha_bar, one_minus = schedule.between(0, t)
    assert np.all(abs(alpha_bar - schedule.alpha_bar[1:]) <= 1e-14 * alpha_bar)
    assert np.all(abs(one_minus - schedule.one_minus_alpha_bar[1:]) <= 1e-14 * one_minus)


@given(schedules(terminal=True))
def test_alpha_bar_falls_from_one_and_its_complement_rises_from_zero(schedule):
    T = schedule.T
    for values in (schedule.beta, schedule.alpha, schedule.alpha_bar, schedule.one_minus_alpha_bar, schedule.snr):
        assert values.shape == (T + 1,)
        assert values.dtype == np.float64
    assert (schedule.beta[0], schedule.alpha[0], schedule.alpha_bar[0]) == (0, 1, 1)
    assert schedule.one_minus_alpha_bar[0] == 0
    assert schedule.snr[0] == np.inf
    assert np.all(np.diff(schedule.alpha_bar) < 0)
    assert np.all(np.diff(schedule.one_minus_alpha_bar) >= 0)
    assert np.all(np.diff(schedule.snr) < 0)
    assert np.all((schedule.beta[1:] > 0) & (schedule.beta[1:] <= 1))
    assert np.all(schedule.alpha_bar >= 0)
    assert np.all(abs(schedule.alpha_bar + schedule.one_minus_alpha_bar - 1) <= 4e-16)


@given(schedule_kinds(), st.data())
def test_a_respaced_schedule_has_the_products_of_the_original(kind, data):
    original = SCHEDULES[kind[0]](**kind[1])
    chosen = data.draw(timesteps(original))
    respaced = original.respaced(chosen)
    alpha = 1 - exact(original.beta)
    alpha_bar = np.cumprod(alpha)[[0, *chosen]]
    jumps = [mpmath.fprod(alpha[k + 1 : t + 1]) for k, t in pairwise([0, *chosen])]
    assert len(chosen) == respaced.T
    assert respaced.timestep.tolist() == [0, *chosen]
    assert worst(respaced.alpha_bar, alpha_bar) <= 1e-14
    assert worst(respaced.one_minus_alpha_bar[1:], 1 - alpha_bar[1:]) <= 1e-14
    assert worst(respaced.alpha[1:], np.array(jumps)) <= 1e-14
    assert worst(respaced.beta[1:], 1 - np.array(jumps)) <= 1e-14
    t = np.arange(1, respaced.T + 1)
    assert np.array_equal(respaced.between(t - 1, t)[0], respaced.alpha[1:])
    assert np.array_equal(respaced.between(t - 1, t)[1], respaced.beta[1:])


def test_jumps_so_long_that_beta_rounds_to_one_keep_alpha():
    respaced = constant(1000, 0.5).respaced([100, 200, 1000])
    expected = np.array([mpmath.mpf(0.5) ** n for n in (0, 100, 200, 1000)])
    # log alpha_bar = -693 is a float64: its rounding, 1e-13, is what alpha_bar = 1e-301 can be wrong by.
    assert worst(respaced.alpha_bar, expected) <= 2e-13
    assert worst(respaced.alpha[1:], expected[1:] / expected[:-1]) <= 2e-13
    assert worst([respaced.between(1, 2)[0]], expected[1:2]) <= 2e-14


@given(schedules(terminal=True), st.data())
def test_respacing_twice_is_respacing_once(schedule, data):
    first = data.draw(timesteps(schedule))
    once = schedule.respaced(first)
    second = data.draw(timesteps(once))
    twice, expected = once.respaced(second), schedule.respaced(first[second - 1])
    for name in ("beta", "alpha", "alpha_bar", "one_minus_alpha_bar", "timestep"):
        assert np.array_equal(getattr(twice, name), getattr(expected, name))


@given(schedules(max_T=200, terminal=True))
def test_respaced_to_every_step_it_is_the_same_process(schedule):
    same = schedule.respaced(range(1, schedule.T + 1))
    assert np.all(abs(same.beta - schedule.beta) <= 1e-14 * schedule.beta)
    assert np.array_equal(same.alpha_bar, schedule.alpha_bar)
    assert np.array_equal(same.timestep, schedule.timestep)


@given(schedules(terminal=True))
def test_from_alpha_bar_goes_back_to_the_same_process(schedule):
    again = from_alpha_bar(schedule.alpha_bar)
    before, alpha_bar = exact(schedule.alpha_bar[:-1]), exact(schedule.alpha_bar)
    # The numbers given are rounded: beta can be as good as their differences, alpha as good as 1 - beta.
    beta = 1 - alpha_bar[1:] / before
    assert worst(again.beta[1:], beta) <= 1e-15
    sensitivity = np.cumsum(schedule.beta[1:] / np.maximum(schedule.alpha[1:], 1e-300))
    error = abs(again.alpha_bar[1:] - schedule.alpha_bar[1:])
    assert np.all(error <= (1e-14 + 3e-16 * sensitivity) * schedule.alpha_bar[1:])


@given(st.integers(2, 50), seeds())
def test_from_alpha_bar_caps_beta(T, seed):
    alpha_bar = np.sort(np.random.default_rng(seed).uniform(1e-6, 0.99, T))[::-1]
    free, capped = from_alpha_bar([1, *alpha_bar]), from_alpha_bar([1, *alpha_bar], beta_max=0.3)
    assert np.array_equal(capped.beta, np.minimum(free.beta, 0.3))


def test_schedules_are_computed_in_float64_whatever_comes():
    given = np.array([1, 0.75, 0.3, 0.1], np.float32)
    assert from_alpha_bar(given).alpha_bar.dtype == np.float64
    assert np.array_equal(from_alpha_bar(given).beta, from_alpha_bar(given.astype(np.float64)).beta)
    assert np.array_equal(from_alpha_bar([1, 0]).beta, from_alpha_bar([1.0, 0.0]).beta)
    single = np.array([0.1, 0.2], np.float32)
    assert from_beta(single).beta.dtype == np.float64
    assert np.array_equal(from_beta(single).alpha_bar, from_beta(single.astype(np.float64)).alpha_bar)
    assert from_beta([1]).beta.dtype == np.float64


@given(lengths(), st.floats(1e-3, 0.2))
def test_a_schedule_may_end_in_pure_noise(T, s):
    for schedule in (cosine(T, s, beta_max=1.0), from_beta([*np.full(T - 1, 0.01), 1.0])):
        assert schedule.beta[T] == 1
        assert schedule.alpha_bar[T] == 0
        assert schedule.one_minus_alpha_bar[T] == 1
        assert schedule.snr[T] == 0
        assert schedule.between(T - 1, T) == (0, 1)
        assert schedule.between(0, T) == (0, 1)
        assert schedule.between(T, T) == (1, 0)
        for name in ("alpha", "alpha_bar", "one_minus_alpha_bar", "snr"):
            assert not np.isnan(getattr(schedule, name)).any()


@given(schedules(terminal=True), st.data())
def test_nobody_can_write_into_a_schedule(schedule, data):
    for name in ("beta", "alpha", "alpha_bar", "one_minus_alpha_bar", "snr", "timestep"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(schedule, name)[data.draw(st.integers(0, schedule.T))] = 0.5
    with pytest.raises(AttributeError):
        schedule.beta = np.array([0.0, 0.5])


def test_a_schedule_does_not_change_with_the_array_it_came_from():
    given_beta, given_alpha_bar = np.array([0.1, 0.2]), np.array([1, 0.9, 0.7])
    made = from_beta(given_beta), from_alpha_bar(given_alpha_bar)
    given_beta[:] = given_alpha_bar[:] = 0.5
    assert np.array_equal(made[0].beta, [0, 0.1, 0.2])
    assert abs(made[1].alpha_bar[1] - 0.9) <= 1e-15


@pytest.mark.parametrize(
    ("value", "figure", "digits"),
    [
        (linear().alpha_bar[-1], 4.03583e-5, 6),
        (linear().beta[1], 1e-4, 15),
        (linear().beta[-1], 0.02, 15),
        (linear().beta[2] * linear().one_minus_alpha_bar[1] / linear().one_minus_alpha_bar[2], 5.45319e-5, 6),
        (cosine().beta[1], 4.12842e-5, 6),
        (cosine().beta[-1], 0.999, 15),
        (scaled_linear().beta[1], 0.00085, 15),
        (scaled_linear().beta[-1], 0.012, 15),
    ],
)
def test_figures_known_from_the_papers_code(value, figure, digits):
    assert abs(value / figure - 1) <= 5 * 10.0**-digits


def test_the_prior_of_the_papers_schedule_costs_a_hundred_thousandth_of_a_bit():
    schedule = linear()
    a2, s2 = schedule.alpha_bar[-1], schedule.one_minus_alpha_bar[-1]
    kl = 0.5 * (a2 / 3 + s2 - 1 - np.log(s2)) / np.log(2)  # of N(a x_0, s^2) from N(0, 1), E[x_0^2] = 1/3
    assert abs(kl / 9.70e-6 - 1) <= 5e-4


@given(lengths())
def test_scaled_linear_is_quadratic_between_other_ends(T):
    assert np.array_equal(scaled_linear(T).beta, quadratic(T, 0.00085, 0.012).beta)


@given(st.integers(1, 1000), st.data())
def test_uniform_steps_increase_and_reach_both_ends(T, data):
    n = data.draw(st.integers(1, T))
    chosen = uniform_steps(T, n)
    assert chosen.shape == (n,)
    assert chosen[-1] == T
    assert n == 1 or chosen[0] == 1
    assert np.all(np.diff(chosen) >= 1)
    assert n == 1 or np.all(abs(chosen - (1 + (T - 1) / (n - 1) * np.arange(n))) <= 0.5 + 1e-9)
    assert np.array_equal(uniform_steps(T, T), np.arange(1, T + 1))


BETA, RISING = (
    r"beta: expected values in \(0, 1\), 1 at the last",
    "^alpha_bar: expected T \\+ 1 >= 2 values falling from alpha_bar_0 = 1; put the 1 in front if missing$",
)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: from_beta([]), r"beta: expected a list of T >= 1 variances, got shape \(0,\)"),
        (lambda: from_beta([[0.1]]), r"beta: expected a list .* got shape \(1, 1\)"),
        (lambda: from_beta(0.1), r"beta: expected a list .* got shape \(\)"),
        (lambda: from_beta([0.1, 0.0]), BETA + ".* got 0.0 at t = 2"),
        (lambda: from_beta([0.1, -0.2, 0.1]), BETA + ".* got -0.2 at t = 2"),
        (lambda: from_beta([1.0, 0.1]), BETA + ".* got 1.0 at t = 1"),
        (lambda: from_beta([0.1, 1.5]), BETA + ".* got 1.5 at t = 2"),
        (lambda: from_beta([0.1, np.nan]), BETA + ".* got nan at t = 2"),
        (lambda: from_beta([0.1, np.inf]), BETA + ".* got inf at t = 2"),
        (lambda: linear(10, 0.1, 1.2), BETA),
        (lambda: linear(10, -0.1, 0.2), BETA),
        (lambda: quadratic(10, -0.1, 0.2), "beta_start, beta_end: expected values .* got -0.1 and 0.2"),
        (lambda: quadratic(10, 0.1, np.nan), "beta_start, beta_end: expected values .* got 0.1 and nan"),
        (lambda: quadratic(10, 0.1, 1.2), BETA),
        (lambda: constant(3, 0), BETA),
        (lambda: cosine(10, beta_max=0), BETA),
        (lambda: cosine(10, beta_max=np.nan), BETA),
        (lambda: cosine(10, s=0), "s: expected an offset above 0, got 0"),
        (lambda: cosine(10, s=np.nan), "s: expected an offset above 0, got nan"),
        (lambda: sigmoid(10, 3, 3), "sigmoid: expected start < end and tau > 0, got start = 3, end = 3, tau = 1.0"),
        (lambda: sigmoid(10, tau=0), "sigmoid: expected start < end and tau > 0"),
        (lambda: sigmoid(10, start=np.nan), "sigmoid: expected start < end and tau > 0"),
        (lambda: from_alpha_bar([1.0]), RISING),
        (lambda: from_alpha_bar([0.9, 0.8]), RISING),
        (lambda: from_alpha_bar([1.0, 0.8, 0.8]), RISING),
        (lambda: from_alpha_bar([1.0, 0.8, 0.9]), RISING),
        (lambda: from_alpha_bar([1.0, np.nan, 0.5]), RISING),
        (lambda: from_alpha_bar([[1.0, 0.5]]), RISING),
        (lambda: from_alpha_bar([1.0, 0.5, -0.1]), "alpha_bar: expected no negative value, got -0.1 at T"),
        (lambda: linear().respaced([]), "timesteps: expected"),
        (lambda: linear().respaced(5), "timesteps: expected at least one, each larger than the last"),
        (lambda: linear().respaced([5, 5]), "timesteps: expected at least one, each larger than the last"),
        (lambda: linear().respaced([5, 4]), "timesteps: expected at least one, each larger than the last"),
        (lambda: linear().respaced([0, 4]), "timesteps: expected integers from 1 to T = 1000, got 0"),
        (lambda: linear().respaced([4, 1001]), "timesteps: expected integers from 1 to T = 1000, got 1001"),
        (lambda: linear().respaced([4.0]), "timesteps: expected an integer .* dtype float64"),
        (lambda: linear().between(5, 4), "k: expected a step no later than t, got k = 5 with t = 4"),
        (lambda: linear().between(np.array([1, 5]), 4), "k: expected a step no later than t"),
        (lambda: linear().between(-1, 4), "k: expected integers from 0 to T = 1000, got -1"),
        (lambda: linear().between(1, 1001), "t: expected integers from 0 to T = 1000, got 1001"),
        (lambda: uniform_steps(10, 0), "n: expected a number of steps from 1 to T = 10, got 0"),
        (lambda: uniform_steps(10, 11), "n: expected a number of steps from 1 to T = 10, got 11"),
    ],
)
def test_what_is_no_schedule_is_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("name", sorted(SCHEDULES))
@pytest.mark.parametrize("T", [0, -1, 2.0, "3", None])
def test_a_number_of_steps_is_an_integer_of_at_least_one(name, T):
    with pytest.raises(ValueError, match="T: expected a number of steps, an integer of at least 1, got"):
        SCHEDULES[name](T)
    assert SCHEDULES[name](np.int32(7)).T == 7


@given(schedules(respaced=False).filter(lambda s: s.T > 1))
def test_a_rescaled_schedules_alpha_is_the_ratio_of_its_alpha_bars_in_50_digits(schedule):
    """sqrt(alpha_bar'_t) = sqrt(alpha_bar_1) d_t / d_1, d_t = sqrt(alpha_bar_t) - sqrt(alpha_bar_T), from beta alone."""
    rescaled = rescale_zero_terminal_snr(schedule)
    root, roots = mpmath.mpf(1), []
    for beta in schedule.beta[1:].tolist():
        root *= mpmath.sqrt(1 - mpmath.mpf(beta))
        roots.append(root)
    expected = [((roots[t] - roots[-1]) / (roots[t - 1] - roots[-1])) ** 2 for t in range(1, schedule.T)]
    expected = np.array([float(w) for w in [1, roots[0] ** 2, *expected]])
    assert np.all(np.abs(rescaled.alpha - expected) <= 1e-13 * expected)
    assert np.all(np.abs(rescaled.beta - (1 - expected)) <= 1e-15)
    assert rescaled.alpha[-1] == rescaled.alpha_bar[-1] == 0


def test_one_step_cannot_stay_and_become_noise_but_two_can():
    with pytest.raises(ValueError, match="expected at least two steps"):
        rescale_zero_terminal_snr(constant(1, 0.1))
    assert rescale_zero_terminal_snr(constant(2, 0.1)).beta.tolist() == [0.0, 0.1, 1.0]


def test_variances_of_any_numbers_are_double_precision():
    for beta in ([1], np.array([0.5, 0.25], np.float32), np.array([0.5], np.float16)):
        assert from_beta(beta).beta.dtype == np.float64


def test_rescaling_keeps_digits_where_beta_is_all_but_one():
    """alpha is tiny there: of 1 - beta a few digits would be left."""
    schedule = from_alpha_bar([1.0, 0.5, 1e-10, 1e-12, 1e-13])
    rescaled = rescale_zero_terminal_snr(schedule)
    with mpmath.workdps(50):
        alpha = [mpmath.mpf(a) for a in schedule.alpha.tolist()]
        root = [mpmath.sqrt(mpmath.fprod(alpha[: t + 1])) for t in range(5)]
        root = [None, *((r - root[-1]) * root[1] / (root[1] - root[-1]) for r in root[1:])]
        expected = [float((root[t] / root[t - 1]) ** 2) for t in (2, 3)]
        products = [float(root[t] ** 2) for t in (2, 3)]
    assert rescaled.beta[2] > 1 - 1e-9
    assert rescaled.alpha[2:4] == pytest.approx(expected, rel=1e-14, abs=0)
    assert rescaled.alpha_bar[2:4] == pytest.approx(products, rel=1e-13, abs=0)
